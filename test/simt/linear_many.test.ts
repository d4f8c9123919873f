// Products of many rows in the emulator: sizes that no tile divides, everything that happens to sums on their way out, the
// bits of few rows, and the kernels on wgmma, whose instructions are emulated by the manual.
import { dlopen } from "bun:ffi";
import { expect, test } from "bun:test";
import { join } from "node:path";
import { type Activation, ProjectionSet } from "../../src/ops/layer_structs.ts";
import type { Ops, PackedLinear } from "../../src/ops/ops.ts";
import { rows } from "../../src/tensor/tensor.ts";
import { opsOf } from "../support/kernels.ts";
import { expectClose, expectSameBits, outputs, random } from "../support/op_case.ts";

const { symbols } = dlopen(join(import.meta.dir, "..", "..", "build", "kernels", "libgraft_simt.so"), {
  graft_simt_wgmma: {
    args: ["i32", "i32", "ptr", "ptr", "ptr", "ptr", "i32", "ptr", "ptr", "ptr", "i32", "ptr", "i32", "i32"],
    returns: "i32",
  },
});

function packed(ops: Ops, out: number, inputs: number, seed: number): PackedLinear {
  const narrow = ops.empty([out, inputs], "bf16");
  ops.convert(narrow, random(ops, [out, inputs], seed));
  return ops.linearPack(narrow);
}

/** Everything that goes through products of several rows, of sizes of their own. */
function products(ops: Ops, N: number, outs: readonly [number, number, number], inputs: number) {
  const weights = outs.map((out, i) => packed(ops, out, inputs, 10 + i));
  const up = packed(ops, outs[0], inputs, 20);
  const x = random(ops, [N, inputs], 1);
  const norm = { weight: random(ops, [inputs], 2), bias: null, eps: 1e-6 };
  const activations: Activation[] = ["identity", "silu", "gelu_tanh"];
  const set = new ProjectionSet(
    ops,
    weights.map((weight, i) => ({
      weight,
      bias: i === 1 ? null : random(ops, [outs[i]!], 30 + i),
      activation: activations[i]!,
    })),
  );
  const residual = random(ops, [N, outs[0]], 3);
  const bias = random(ops, [outs[0]], 4);
  const sizes = { a: [N, outs[0]], b: [N, outs[1]], c: [N, outs[2]], gated: [N, outs[0]], added: [N, outs[0]] };
  const compute = (ranges: readonly (readonly [number, number])[]) => {
    const y = outputs(ops, sizes);
    ops.copy(y.added, residual);
    for (const [at, count] of ranges) {
      const part = rows(x, at, count);
      ops.projections(
        [y.a, y.b, y.c].map((t) => rows(t, at, count)),
        part,
        norm,
        set,
      );
      ops.gatedLinear(rows(y.gated, at, count), part, norm, weights[0]!, up);
      const added = rows(y.added, at, count);
      ops.linear(added, part, weights[0]!, bias, added);
    }
    return y.read();
  };
  return { compute, free: () => set.free() };
}

const names = ["a", "b", "c", "gated", "added"] as const;

test("products of many rows match the reference at sizes that no tile divides", async () => {
  const [ops, reference] = [await opsOf("simt"), await opsOf("reference")];
  for (const [N, outs, inputs] of [
    [65, [16, 7, 33], 64],
    [100, [130, 129, 4], 70],
    [129, [64, 258, 20], 200],
    [257, [36, 1, 128], 24],
    [300, [72, 8, 260], 140],
  ] as const) {
    const [actual, expected] = [products(ops, N, outs, inputs), products(reference, N, outs, inputs)];
    const [a, e] = [actual.compute([[0, N]]), expected.compute([[0, N]])];
    for (const name of names) expectClose(a[name], e[name], 1e-5, `${name} [${N}, ${outs}, ${inputs}]`);
    actual.free();
    expected.free();
  }
});

test("a row's products have the same bits among few rows and among many", async () => {
  const ops = await opsOf("simt");
  // Chunks of 64 inputs: fewer than slices, as many, and numbers that eight does not divide.
  for (const [N, outs, inputs] of [
    [150, [20, 132, 7], 40],
    [140, [24, 9, 40], 330],
    [70, [144, 3, 16], 512],
    [68, [17, 12, 30], 1100],
  ] as const) {
    const { compute, free } = products(ops, N, outs, inputs);
    const whole = compute([[0, N]]);
    const pieces: [number, number][] = [];
    for (let at = 0, i = 0; at < N; i++) {
      const count = Math.min([1, 2, 9, 17, 33, 66][i % 6]!, N - at);
      pieces.push([at, count]);
      at += count;
    }
    const parts = compute(pieces);
    for (const name of names) expectSameBits(parts[name], whole[name], `${name} [${N}, ${outs}, ${inputs}]`);
    free();
  }
});

// As kWgmmaForms has them: rows of a tile, blocks of a cluster, whether each block sums a slice.
const forms = ["192 / 2", "128 / 2", "64 / 2", "192 / 1", "128 / 1", "64 / 1", "128 / 8 slices", "64 / 8 slices"];

test.each(forms.map((name, i) => [name, i] as const))(
  "wgmma in tiles of %s gives the bits of mma",
  async (name, form) => {
    const ops = await opsOf("simt");
    // More tiles than multiprocessors; slices of unequal length, empty ones, rows and outputs that no tile divides.
    for (const [N, inputs, out, gatedOut, units] of [
      [70, 580, 140, 72, 2],
      [195, 70, 270, 66, 4],
    ] as const) {
      const [w, gate, up] = [
        packed(ops, out, inputs, 5),
        packed(ops, gatedOut, inputs, 6),
        packed(ops, gatedOut, inputs, 7),
      ];
      const [x, bias, residual] = [random(ops, [N, inputs], 1), random(ops, [out], 2), random(ops, [N, out], 3)];
      const gated = [N, gatedOut];
      const y = outputs(ops, { mma: [N, out], wgmma: [N, out], gate: gated, up: gated, gated, gatedWgmma: gated });
      ops.linear(y.mma, x, w, bias, residual);
      ops.linear(y.gate, x, gate);
      ops.linear(y.up, x, up);
      ops.siluMul(y.gated, y.gate, y.up);
      const p = (t: { readonly ptr: number }) => t.ptr as never;
      const status = symbols.graft_simt_wgmma(
        form,
        units,
        p(y.wgmma),
        p(w),
        p(bias),
        p(residual),
        out,
        p(y.gatedWgmma),
        p(gate),
        p(up),
        gatedOut,
        p(x),
        N,
        inputs,
      );
      expect(status).toBe(0);
      const read = y.read();
      expectSameBits(read.wgmma, read.mma, `${name} [${N}, ${out}, ${inputs}]`);
      expectSameBits(read.gatedWgmma, read.gated, `${name}, gated [${N}, ${gatedOut}, ${inputs}]`);
    }
  },
);
