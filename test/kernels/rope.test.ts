// Rotary embedding: golden files, the reference at odd sizes, rotation back, in-place use, refused positions.
import { describe, expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { rows } from "../../src/tensor/tensor.ts";
import { guarded, isas, opsOf } from "../support/kernels.ts";
import { eachGolden, expectClose, expectGolden, expectSameBits, fastIsas, random } from "../support/op_case.ts";

describe("golden files", () => {
  eachGolden(["rope"], (ops, golden) => {
    const [, T, H, D] = golden.shape("input.x") as [number, number, number, number];
    const limit = golden.name.includes("llama31") || golden.name.includes("llama32") ? 5e-4 : 1e-5;
    const positions = golden.i32("input.position_ids");
    const table = guarded(ops, [Math.max(...positions) + 1, D]);
    ops.ropeTable(table, ops.fromArray([D / 2], golden.f32("inv_freq")));
    const x = ops.fromArray([T, H, D], golden.f32("input.x"));
    const dy = ops.fromArray([T, H, D], golden.f32("upstream.y"));
    const [y, dx] = [guarded(ops, [T, H, D]), guarded(ops, [T, H, D])];
    const at = ops.fromArray([T], positions);
    ops.rope(y, x, at, table);
    ops.rope(dx, dy, at, table, -1);
    table.check();
    expectGolden(ops, y, golden, "output.y", limit);
    expectGolden(ops, dx, golden, "grad.input.x", limit);
  });
});

function tableOf(ops: Ops, P: number, D: number) {
  const table = guarded(ops, [P, D]);
  const frequencies = Float32Array.from({ length: D / 2 }, (_, i) => 10000 ** ((-2 * i) / D));
  ops.ropeTable(table, ops.fromArray([D / 2], frequencies));
  table.check();
  return table;
}

function rotate(ops: Ops, N: number, H: number, D: number, direction: 1 | -1) {
  const positions = Int32Array.from({ length: N }, (_, i) => (i * 7) % 50);
  const y = guarded(ops, [N, H, D]);
  const x = random(ops, [N, H, D], 1);
  ops.rope(y, x, ops.fromArray([N], positions), tableOf(ops, 50, D), direction);
  y.check();
  return ops.toFloat32(y);
}

for (const isa of fastIsas) {
  test.each([
    [1, 1, 8],
    [5, 3, 16],
    [63, 2, 80],
    [100, 4, 128],
  ])(`rope() matches the reference at %d rows, %d heads of %d on ${isa}`, async (N, H, D) => {
    for (const direction of [1, -1] as const) {
      const actual = rotate(await opsOf(isa), N, H, D, direction);
      expectClose(actual, rotate(await opsOf("reference"), N, H, D, direction), 1e-6, `direction ${direction}`);
    }
  });

  test(`rope() gives the same bits row by row, in place and with 1 thread on ${isa}`, async () => {
    const ops = await opsOf(isa);
    const [N, H, D] = [65, 5, 64];
    const [table, x] = [tableOf(ops, 65, D), random(ops, [N, H, D], 1)];
    const positions = ops.fromArray(
      [N],
      Int32Array.from({ length: N }, (_, i) => i),
    );
    const whole = guarded(ops, [N, H, D]);
    ops.rope(whole, x, positions, table);
    const expected = ops.toFloat32(whole);
    ops.setThreads(1);
    ops.rope(whole, x, positions, table);
    ops.setThreads(2);
    expectSameBits(ops.toFloat32(whole), expected, "one thread");
    for (let i = 0; i < N; i++) ops.rope(rows(x, i, 1), rows(x, i, 1), rows(positions, i, 1), table);
    expectSameBits(ops.toFloat32(x), expected, "row by row in place");
  });
}

test.each(isas)("rope() refuses positions outside its table on %s", async (isa) => {
  const ops = await opsOf(isa);
  const [table, x] = [tableOf(ops, 4, 8), random(ops, [1, 1, 8], 1)];
  expect(() => ops.rope(x, x, ops.fromArray([1], Int32Array.of(4)), table)).toThrow("position 4 of row 0");
  expect(() => ops.rope(x, x, ops.fromArray([1], Int32Array.of(-1)), table)).toThrow("position -1 of row 0");
});
