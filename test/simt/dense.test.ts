// CUDA kernels that work row by row, in the emulator: the reference at awkward sizes, and one answer for any number of rows.
import { expect, test } from "bun:test";
import type { Ops, PackedLinear } from "../../src/ops/ops.ts";
import { rows } from "../../src/tensor/tensor.ts";
import { opsOf } from "../support/kernels.ts";
import { expectClose, expectSameBits, outputs, random } from "../support/op_case.ts";

const dtypes = ["f32", "bf16"] as const;

function packed(ops: Ops, out: number, inputs: number, dtype: "f32" | "bf16"): PackedLinear {
  const wide = random(ops, [out, inputs], 7 + out);
  if (dtype === "f32") return ops.linearPack(wide);
  const narrow = ops.empty([out, inputs], "bf16");
  ops.convert(narrow, wide);
  return ops.linearPack(narrow);
}

function linear(ops: Ops, N: number, out: number, inputs: number, dtype: "f32" | "bf16") {
  const w = packed(ops, out, inputs, dtype);
  const [x, bias, residual] = [random(ops, [N, inputs], 3), random(ops, [out], 4), random(ops, [N, out], 5)];
  const y = outputs(ops, { plain: [N, out], added: [N, out], looked: [2, inputs] });
  ops.linear(y.plain, x, w);
  ops.copy(y.added, residual);
  ops.linear(y.added, x, w, bias, y.added);
  ops.embedding(y.looked, ops.fromArray([2], Int32Array.of(out - 1, 0)), w);
  return y.read();
}

test.each(dtypes)("linear() matches the reference in %s", async (dtype) => {
  const [ops, reference] = [await opsOf("simt"), await opsOf("reference")];
  for (const [N, out, inputs] of [
    [1, 16, 32],
    [1, 17, 8],
    [2, 40, 100],
    [7, 100, 33],
    [9, 33, 260],
    [17, 64, 64],
    [33, 20, 96],
    [64, 130, 48],
    [65, 130, 48],
    [130, 144, 72],
    [131, 7, 300],
  ] as const) {
    const [actual, expected] = [linear(ops, N, out, inputs, dtype), linear(reference, N, out, inputs, dtype)];
    for (const name of ["plain", "added", "looked"] as const) {
      expectClose(actual[name], expected[name], 1e-5, `${name} [${N}, ${out}, ${inputs}]`);
    }
  }
});

test.each(dtypes)("linear() gives a row the same bits in any batch in %s", async (dtype) => {
  const ops = await opsOf("simt");
  for (const [out, inputs] of [
    [48, 96],
    [20, 520],
  ] as const) {
    const N = 70;
    const w = packed(ops, out, inputs, dtype);
    const x = random(ops, [N, inputs], 1);
    const y = outputs(ops, { all: [N, out], parts: [N, out] });
    ops.linear(y.all, x, w);
    let at = 0;
    for (const count of [1, 1, 2, 9, 17, 40]) {
      ops.linear(rows(y.parts, at, count), rows(x, at, count), w);
      at += count;
    }
    const { all, parts } = y.read();
    expectSameBits(parts, all, `[${out}, ${inputs}]`);
  }
});

function pointwise(ops: Ops, N: number, C: number) {
  const [x, gate, w, b] = [
    random(ops, [N, C], 1, 3),
    random(ops, [N, C], 2, 3),
    random(ops, [C], 3),
    random(ops, [C], 4),
  ];
  const rows = [...new Set([N - 1, 0, Math.floor(N / 2)])];
  const y = outputs(ops, {
    rms: [N, C],
    gated: [N, C],
    layer: [N, C],
    l2: [N, C],
    silu: [N, C],
    siluMul: [N, C],
    gelu: [N, C],
    sum: [N, C],
    axpy: [N, C],
    gate: [N, C],
    g: [N, C],
    beta: [N, C],
    gathered: [rows.length, C],
    scattered: [N, C],
  });
  ops.rmsNorm(y.rms, x, w, 1e-6);
  ops.gatedRmsNorm(y.gated, x, gate, w, 1e-6);
  ops.layerNorm(y.layer, x, w, b, 1e-6);
  ops.l2Norm(y.l2, x, C);
  ops.silu(y.silu, x);
  ops.siluMul(y.siluMul, x, gate);
  ops.geluTanh(y.gelu, x);
  ops.add(y.sum, x, gate);
  ops.copy(y.axpy, gate);
  ops.axpy(y.axpy, x, 0.3);
  ops.glaGate(y.gate, x, 16);
  ops.gdnGate(y.g, y.beta, x, gate, w, b, 2);
  // No row twice: which of two writes stays is not given.
  const index = ops.fromArray([rows.length], Int32Array.from(rows));
  ops.gatherRows(y.gathered, x, index);
  ops.copy(y.scattered, gate);
  ops.scatterRows(y.scattered, y.gathered, index);
  return y.read();
}

test("norms, activations, gates and row moves match the reference", async () => {
  const [ops, reference] = [await opsOf("simt"), await opsOf("reference")];
  for (const [N, C] of [
    [1, 8],
    [5, 33],
    [9, 256],
    [3, 257],
    [2, 1100],
  ] as const) {
    const [actual, expected] = [pointwise(ops, N, C), pointwise(reference, N, C)];
    for (const name in expected) {
      const key = name as keyof typeof expected;
      expectClose(actual[key], expected[key], 3e-6, `${name} [${N}, ${C}]`);
    }
  }
});

test("rope() matches the reference both ways and far from the beginning", async () => {
  const rotate = (ops: Ops) => {
    const [N, H, D, P] = [5, 3, 24, 4000];
    const table = ops.empty([P, D]);
    ops.ropeTable(
      table,
      ops.fromArray(
        [D / 2],
        Float32Array.from({ length: D / 2 }, (_, i) => 10000 ** ((-2 * i) / D)),
      ),
    );
    const x = random(ops, [N, H, D], 1);
    const positions = ops.fromArray([N], Int32Array.of(0, 1, 77, 3999, 1024));
    const y = outputs(ops, { there: [N, H, D], back: [N, H, D] });
    ops.rope(y.there, x, positions, table);
    ops.rope(y.back, y.there, positions, table, -1);
    return { ...y.read(), x: ops.toFloat32(x) };
  };
  const [actual, expected] = [rotate(await opsOf("simt")), rotate(await opsOf("reference"))];
  expectClose(actual.there, expected.there, 1e-6, "there");
  expectClose(actual.back, actual.x, 1e-6, "back");
});

test("ids and positions outside their table are complained of", async () => {
  const ops = await opsOf("simt");
  const [table, y] = [random(ops, [5, 8], 1), ops.empty([2, 8])];
  const ids = (...values: number[]) => ops.fromArray([values.length], Int32Array.from(values));
  expect(() => ops.embedding(y, ids(0, 5), table)).toThrow("row 1 names 5, expected 0 to 4");
  expect(() => ops.gatherRows(y, table, ids(0, -3))).toThrow("row 1 names -3");
  expect(() => ops.rope(y, y, ids(0, 9), ops.empty([4, 8]))).toThrow("row 1 names 9, expected 0 to 3");
  expect(() => ops.embedding(y, ids(0, 4), table)).not.toThrow();
});
