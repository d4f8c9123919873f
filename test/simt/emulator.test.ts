// The emulator finds the faults that a device would hide: kernels with a planted fault each, and the same without it.
import { dlopen, type Pointer, toArrayBuffer } from "bun:ffi";
import { expect, test } from "bun:test";
import { join } from "node:path";
import { guarded, opsOf, randomFloats } from "../support/kernels.ts";

const { symbols } = dlopen(join(import.meta.dir, "..", "..", "build", "kernels", "libgraft_simt.so"), {
  graft_simt_planted: { args: ["ptr", "ptr", "i32", "i32", "i32"], returns: "i32" },
  graft_simt_hold: { args: ["i32"], returns: "void" },
});

const COUNT = 128;
const faults = [
  [
    "a missing barrier",
    1,
    /race: (reads|writes) byte \d+ of shared memory, which thread \d+ (wrote|read) with no barrier in between/,
  ],
  ["a missing barrier of a warp", 2, /race: (reads|writes) byte \d+ of shared memory/],
  ["a write behind an allocation", 3, /write of 4 bytes at 0x[0-9a-f]+, which belongs to no allocation/],
  ["a write behind shared memory", 4, /write of 4 bytes at byte 512 of shared memory, the block has 512/],
  ["lanes that leave before a shuffle", 6, /lanes of this warp have ended already|other lanes of its warp wait/],
  ["dependence on the order of blocks", 7, /reads what thread \d+ of another block wrote in this launch/],
  ["a missing __threadfence", 8, /reads what thread \d+ of another block wrote/],
  ["a block that takes others for done", 9, /reads what thread \d+ of another block wrote|belongs to no allocation/],
  ["a read before the kernel before has been waited for", 10, /reads what a kernel before it writes before/],
  ["a write before the kernel before has been waited for", 11, /writes device memory before it has waited/],
  ["a wide load from an unaligned address", 13, /planted.cu:\d+ uses address 0x[0-9a-f]+, which is no multiple of 16/],
] as const;

async function run(fault: number, plant: boolean) {
  const ops = await opsOf("simt");
  const input = ops.fromArray([COUNT], randomFloats(COUNT, 1));
  const out = ops.empty([COUNT]);
  const status = symbols.graft_simt_planted(out.ptr as never, input.ptr as never, COUNT, fault, plant ? 1 : 0);
  const result = { status, error: status === 0 ? "" : ops.lastError(), out: ops.toFloat32(out) };
  ops.free(input);
  ops.free(out);
  return result;
}

test.each(faults)("%s is found", async (_, fault, message) => {
  expect((await run(fault, false)).status).toBe(0);
  // Some faults do no harm where the blocks come in an order that suits them; the next launches have others.
  let { status, error } = await run(fault, true);
  for (let i = 0; i < 50 && status === 0; i++) ({ status, error } = await run(fault, true));
  expect(status).not.toBe(0);
  expect(error).toMatch(message);
  expect(error).toMatch(/block \(\d+, 0, 0\), thread \(\d+, 0, 0\)/);
});

test("a kernel that is launched early and never waits is found", async () => {
  expect((await run(12, false)).status).toBe(0);
  expect((await run(12, true)).error).toContain("never waits for the kernel before it");
});

test("a block that counts others as done reads only what is there, in any order of blocks", async () => {
  const reversed = randomFloats(COUNT, 1).map((_, i, all) => all[(i & ~31) + 31 - (i & 31)]!);
  for (let i = 0; i < 20; i++) expect((await run(8, false)).out).toEqual(reversed);
});

test("with the stream held up, work waits for whoever asks, and copies read pinned memory late", async () => {
  const ops = await opsOf("simt");
  const pinned = ops.hostAlloc(4 * COUNT);
  const values = new Float32Array(toArrayBuffer(pinned as Pointer, 0, 4 * COUNT));
  const x = ops.fromArray([COUNT], randomFloats(COUNT, 1));
  values.fill(7);
  symbols.graft_simt_hold(1);
  try {
    const [ticket, bytes] = [0, 4 * COUNT];
    expect(ops.symbols.graft_download_begin(pinned as Pointer, x.ptr as Pointer, bytes, ticket)).toBe(0);
    ops.axpy(x, x, 1);
    expect(values[3]).toBe(7);
    expect(ops.symbols.graft_download_wait(ticket)).toBe(0);
    expect([...values]).toEqual([...randomFloats(COUNT, 1)]);
    expect(ops.toFloat32(x)).toEqual(randomFloats(COUNT, 1).map((value) => 2 * value));
    // What goes wrong shows when it is waited for.
    await expect(run(3, true)).rejects.toThrow("belongs to no allocation");
  } finally {
    symbols.graft_simt_hold(0);
  }
  ops.free(x);
  ops.hostFree(pinned);
});

test("what an asynchronous copy brings is not there before it is waited for", async () => {
  const [good, bad] = [await run(5, false), await run(5, true)];
  expect(good.out).toEqual(randomFloats(COUNT, 1));
  expect(bad.out.every(Number.isNaN)).toBe(true);
});

test("a kernel without fault computes what it says", async () => {
  expect((await run(1, false)).out).toEqual(randomFloats(COUNT, 1).reverse());
});

test("a kernel that writes into the words behind its output trips them", async () => {
  const ops = await opsOf("simt");
  const out = guarded(ops, [4]);
  ops.zero({ ...out, shape: [5] });
  expect(() => out.check()).toThrow("wrote behind");
});
