// The emulator finds the faults that a device would hide: kernels with a planted fault each, and the same without it.
import { dlopen } from "bun:ffi";
import { expect, test } from "bun:test";
import { join } from "node:path";
import { guarded, opsOf, randomFloats } from "../support/kernels.ts";

const { symbols } = dlopen(join(import.meta.dir, "..", "..", "build", "kernels", "libgraft_simt.so"), {
  graft_simt_planted: { args: ["ptr", "ptr", "i32", "i32", "i32"], returns: "i32" },
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
  const { status, error } = await run(fault, true);
  expect(status).not.toBe(0);
  expect(error).toMatch(message);
  expect(error).toMatch(/block \(0, 0, 0\), thread \(\d+, 0, 0\)/);
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
