// The report on CUDA kernels: what is read from the assembler's notes, and which spills fail it.
import { expect, test } from "bun:test";
import { hotSpills, isAssemblerNote, parseNotes } from "../../kernels/resources.ts";

const notes = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN5graft3gpu4gateEPf' for 'sm_80'
ptxas info    : Function properties for _ZN5graft3gpu4gateEPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 19 registers, used 0 barriers, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN5graft3gpu6decodeEPf' for 'sm_90a'
ptxas info    : Function properties for _ZN5graft3gpu6decodeEPf
    88 bytes stack frame, 80 bytes spill stores, 132 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 88 bytes cumulative stack size, 1024 bytes smem, 432 bytes cmem[0]
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to a call`;

test("registers, shared memory, stack and spills are read kernel by kernel", () => {
  const { kernels, remarks } = parseNotes("attention_decode.cu", notes);
  const common = { file: "attention_decode.cu" };
  expect(kernels).toEqual([
    {
      ...common,
      kernel: "_ZN5graft3gpu4gateEPf",
      target: "sm_80",
      registers: 19,
      shared: 0,
      stack: 0,
      stores: 0,
      loads: 0,
    },
    {
      ...common,
      kernel: "_ZN5graft3gpu6decodeEPf",
      target: "sm_90a",
      registers: 255,
      shared: 1024,
      stack: 88,
      stores: 80,
      loads: 132,
    },
  ]);
  expect(remarks.length).toBe(1);
  expect(notes.split("\n").every(isAssemblerNote)).toBe(true);
  expect(isAssemblerNote("decode.cu(12): error: expected a ;")).toBe(false);
});

test("a spill fails the report where the kernel runs in every layer, and only there", () => {
  const hot = hotSpills(parseNotes("attention_decode.cu", notes).kernels);
  expect(hot.map(({ target }) => target)).toEqual(["sm_90a"]);
  expect(hotSpills(parseNotes("sampling.cu", notes).kernels)).toEqual([]);
  expect(hotSpills(parseNotes("gdn_step.cu", notes).kernels).length).toBe(1);
});
