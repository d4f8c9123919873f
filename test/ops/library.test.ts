// Where the kernel libraries are put and what is said when the system refuses them.
import { expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { typesFor } from "../../src/engine/default_types.ts";
import { openLibrary } from "../../src/ops/abi.ts";
import { driverObstacle } from "../../src/ops/device_probe.ts";
import { hasCudaKernels, type Isa, isaNames, openKernels } from "../../src/ops/library.ts";
import { withTemporary } from "../support/checkpoints.ts";
import { opsOf } from "../support/kernels.ts";

test("libraries are put into the folder that is named, once, and a damaged copy is mended", () =>
  withTemporary(async (folder) => {
    const options = { isa: "reference", extractTo: join(folder, "libs"), extractAlways: true } as const;
    expect((await openKernels(options)).isa).toBe("reference");
    const [name, ...others] = readdirSync(options.extractTo);
    expect([name, others]).toEqual([expect.stringMatching(/^libgraft_reference-[0-9a-f]{16}\.so$/), []]);
    const path = join(options.extractTo, name!);
    const { mtimeMs } = statSync(path);
    await openKernels(options);
    expect(statSync(path).mtimeMs).toBe(mtimeMs);
    const whole = readFileSync(path);
    writeFileSync(join(options.extractTo, "half"), whole.subarray(0, 100));
    renameSync(join(options.extractTo, "half"), path);
    await openKernels(options);
    expect(readFileSync(path).equals(whole)).toBe(true);
  }));

test("a library that cannot be opened or written is one line with the way out", () =>
  withTemporary(async (folder) => {
    await expect(openKernels({ isa: "reference", directory: folder })).rejects.toThrow(/GRAFT_LIB_DIR$/);
    mkdirSync(join(folder, "x"));
    writeFileSync(join(folder, "x", "file"), "");
    const blocked = { isa: "reference", extractTo: join(folder, "x", "file", "libs"), extractAlways: true } as const;
    await expect(openKernels(blocked)).rejects.toThrow(
      /^Cannot put the kernels into .*part of the path is a file.*GRAFT_LIB_DIR$/,
    );
  }));

test("a CUDA device that is not there is one line with the reason, and left to itself the choice is the processor", async () => {
  if (driverObstacle() === null) return;
  const reason = (await hasCudaKernels()) ? /there is no NVIDIA driver here/ : /this build has no CUDA kernels/;
  const asked = openKernels({ device: "cuda" });
  await expect(asked).rejects.toThrow(/^Cannot use --device cuda: [^\n]+$/);
  await expect(asked).rejects.toThrow(reason);
  const { isa, passedOver } = await openKernels({ device: "auto" });
  expect(isaNames).toContain(isa as Isa);
  expect(passedOver).toMatch(reason);
});

test("an instruction set chooses the processor, and does not go with a device", async () => {
  const opened = await openKernels({ device: "auto", isa: "reference" });
  expect([opened.isa, opened.passedOver]).toEqual(["reference", null]);
  await expect(openKernels({ device: "cuda", isa: "avx2" })).rejects.toThrow(
    "Cannot use --isa avx2 with --device cuda: it is the processor's",
  );
});

test("driverObstacle() goes by the driver's files", () =>
  withTemporary(async (folder) => {
    expect(driverObstacle(folder)).toBe("there is no NVIDIA driver here (no /dev/nvidiactl)");
    mkdirSync(join(folder, "dev"));
    writeFileSync(join(folder, "dev", "nvidiactl"), "");
    expect(driverObstacle(folder)).toBeNull();
  }));

test("the CUDA library says what is missing where the driver's library is", async () => {
  const path = join(import.meta.dir, "..", "..", "build", "kernels", "libgraft_cuda.so");
  if (statSync(path).size === 0 || driverObstacle() === null) return;
  const symbols = openLibrary(path);
  expect(symbols.graft_init(0)).toBe(2);
  expect(String(symbols.graft_last_error())).toContain("libcuda.so.1 is not found");
});

test("a device has types of its own for weights and KV, and asking decides", async () => {
  const [cpu, cuda] = [await opsOf("reference"), await opsOf("simt")];
  expect([cpu.kind, cuda.kind]).toEqual(["cpu", "cuda"]);
  expect(typesFor(cpu, {})).toEqual({ kv: "f32" });
  expect(typesFor(cuda, {})).toEqual({ weights: "bf16", kv: "bf16" });
  expect(typesFor(cuda, { weightDtype: "f32", kvDtype: "f32" })).toEqual({ weights: "f32", kv: "f32" });
});
