// Norms and their gradients: golden files, the reference at odd sizes, and results that do not depend on rows or threads.
import { describe, expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { rows } from "../../src/tensor/tensor.ts";
import { guarded, isas, opsOf, randomFloats } from "../support/kernels.ts";
import {
  eachGolden,
  expectClose,
  expectGolden,
  expectSameBits,
  fastIsas,
  outputs,
  random,
  zeros,
} from "../support/op_case.ts";

const sizes = [
  [1, 1],
  [3, 7],
  [63, 100],
  [1, 4097],
  [200, 64],
] as const;

describe("golden files", () => {
  eachGolden(["rmsnorm"], (ops, golden) => {
    const shape = golden.shape("input.x");
    const [x, dy] = [ops.fromArray(shape, golden.f32("input.x")), ops.fromArray(shape, golden.f32("upstream.y"))];
    const w = ops.fromArray(golden.shape("param.weight"), golden.f32("param.weight"));
    const [y, dx, dw] = [guarded(ops, shape), guarded(ops, shape), zeros(ops, w.shape)];
    const eps = golden.hyperparameters.eps as number;
    ops.rmsNorm(y, x, w, eps);
    ops.rmsNormBackward(dx, dw, dy, x, w, eps);
    expectGolden(ops, y, golden, "output.y", 1e-5);
    expectGolden(ops, dx, golden, "grad.input.x", 3e-5);
    expectGolden(ops, dw, golden, "grad.param.weight", 3e-5);
  });

  eachGolden(["layernorm"], (ops, golden) => {
    const shape = golden.shape("input.x");
    const [x, dy] = [ops.fromArray(shape, golden.f32("input.x")), ops.fromArray(shape, golden.f32("upstream.y"))];
    const w = ops.fromArray(golden.shape("param.weight"), golden.f32("param.weight"));
    const b = ops.fromArray(golden.shape("param.bias"), golden.f32("param.bias"));
    const [y, dx, dw, db] = [guarded(ops, shape), guarded(ops, shape), zeros(ops, w.shape), zeros(ops, b.shape)];
    const eps = golden.hyperparameters.eps as number;
    ops.layerNorm(y, x, w, b, eps);
    ops.layerNormBackward(dx, dw, db, dy, x, w, eps);
    expectGolden(ops, y, golden, "output.y", 1e-5);
    expectGolden(ops, dx, golden, "grad.input.x", 3e-5);
    expectGolden(ops, dw, golden, "grad.param.weight", 3e-5);
    expectGolden(ops, db, golden, "grad.param.bias", 3e-5);
  });

  eachGolden(["gated_rmsnorm"], (ops, golden) => {
    const shape = golden.shape("input.x");
    const [x, dy] = [ops.fromArray(shape, golden.f32("input.x")), ops.fromArray(shape, golden.f32("upstream.y"))];
    const gate = ops.fromArray(shape, golden.f32("input.gate"));
    const w = ops.fromArray(golden.shape("param.weight"), golden.f32("param.weight"));
    const [y, dx, dgate, dw] = [guarded(ops, shape), guarded(ops, shape), guarded(ops, shape), zeros(ops, w.shape)];
    const eps = golden.hyperparameters.eps as number;
    ops.gatedRmsNorm(y, x, gate, w, eps);
    ops.gatedRmsNormBackward(dx, dgate, dw, dy, x, gate, w, eps);
    expectGolden(ops, y, golden, "output.y", 1e-5);
    expectGolden(ops, dx, golden, "grad.input.x", 3e-5);
    expectGolden(ops, dgate, golden, "grad.input.gate", 3e-5);
    expectGolden(ops, dw, golden, "grad.param.weight", 3e-5);
  });

  eachGolden(["l2norm"], (ops, golden) => {
    const shape = golden.shape("input.x");
    const [x, dy] = [ops.fromArray(shape, golden.f32("input.x")), ops.fromArray(shape, golden.f32("upstream.y"))];
    const [y, dx] = [guarded(ops, shape), guarded(ops, shape)];
    const eps = golden.hyperparameters.eps as number;
    ops.l2Norm(y, x, shape.at(-1)!, eps);
    ops.l2NormBackward(dx, dy, x, shape.at(-1)!, eps);
    expectGolden(ops, y, golden, "output.y", 1e-5);
    expectGolden(ops, dx, golden, "grad.input.x", 3e-5);
  });
});

/** Every output of every norm for one random case. */
function everything(ops: Ops, N: number, C: number) {
  const [x, gate, dy] = [random(ops, [N, C], 1), random(ops, [N, C], 2, 4), random(ops, [N, C], 3)];
  const [w, b] = [random(ops, [C], 4), random(ops, [C], 5)];
  const out = outputs(ops, { rms: [N, C], layer: [N, C], gated: [N, C], bare: [N, C], l2: [N, C] });
  ops.rmsNorm(out.rms, x, w, 1e-5);
  ops.layerNorm(out.layer, x, w, b, 1e-5);
  ops.gatedRmsNorm(out.gated, x, gate, w, 1e-5);
  ops.gatedRmsNorm(out.bare, x, null, w, 1e-5);
  ops.l2Norm(out.l2, x, C);
  const grads = outputs(ops, { rms: [N, C], layer: [N, C], gated: [N, C], gate: [N, C], bare: [N, C], l2: [N, C] });
  const sums = outputs(ops, { rms: [C], layerW: [C], layerB: [C], gated: [C], bare: [C] });
  for (const sum of [sums.rms, sums.layerW, sums.layerB, sums.gated, sums.bare]) ops.copy(sum, b);
  ops.rmsNormBackward(grads.rms, sums.rms, dy, x, w, 1e-5);
  ops.rmsNormBackward(grads.rms, sums.rms, dy, x, w, 1e-5, true);
  ops.layerNormBackward(grads.layer, sums.layerW, sums.layerB, dy, x, w, 1e-5);
  ops.layerNormBackward(grads.layer, sums.layerW, sums.layerB, dy, x, w, 1e-5, true);
  ops.gatedRmsNormBackward(grads.gated, grads.gate, sums.gated, dy, x, gate, w, 1e-5);
  ops.gatedRmsNormBackward(grads.bare, null, sums.bare, dy, x, null, w, 1e-5);
  ops.l2NormBackward(grads.l2, dy, x, C);
  return { forward: out.read(), grads: grads.read(), sums: sums.read() };
}

for (const isa of fastIsas) {
  describe(isa, () => {
    test.each(sizes.map(([N, C]) => [N, C] as [number, number]))(
      "norms match the reference at %d rows of %d",
      async (N, C) => {
        const actual = everything(await opsOf(isa), N, C);
        const expected = everything(await opsOf("reference"), N, C);
        for (const group of ["forward", "grads", "sums"] as const) {
          const got: Record<string, Float32Array> = actual[group];
          const want: Record<string, Float32Array> = expected[group];
          // One channel: the gradients of a normalised number are differences of nearly equal terms.
          const limit = C === 1 && group === "grads" ? 1e-3 : 1e-5;
          for (const name in want) {
            if (C === 1 && name === "layer" && group === "grads") continue;
            expectClose(got[name]!, want[name]!, limit, `${group} ${name}`);
          }
        }
      },
    );

    test("norms give the same bits with 1 and 2 threads and row by row", async () => {
      const ops = await opsOf(isa);
      const [N, C] = [37, 1000];
      const two = everything(ops, N, C);
      ops.setThreads(1);
      const one = everything(ops, N, C);
      ops.setThreads(2);
      for (const group of ["forward", "grads", "sums"] as const) {
        const [a, b] = [one[group] as Record<string, Float32Array>, two[group] as Record<string, Float32Array>];
        for (const name in a) expectSameBits(a[name]!, b[name]!, `${group} ${name}`);
      }
      const [x, w, gate] = [random(ops, [N, C], 1), random(ops, [C], 4), random(ops, [N, C], 2, 4)];
      const y = outputs(ops, { rms: [N, C], gated: [N, C] });
      for (let i = 0; i < N; i++) {
        ops.rmsNorm(rows(y.rms, i, 1), rows(x, i, 1), w, 1e-5);
        ops.gatedRmsNorm(rows(y.gated, i, 1), rows(x, i, 1), rows(gate, i, 1), w, 1e-5);
      }
      const alone = y.read();
      expectSameBits(alone.rms, two.forward.rms, "rms row by row");
      expectSameBits(alone.gated, two.forward.gated, "gated rms row by row");
    });
  });
}

test.each(isas)("norms refuse a null pointer and no channels on %s", async (isa) => {
  const ops = await opsOf(isa);
  const x = ops.fromArray([2, 4], randomFloats(8, 1));
  expect(ops.symbols.graft_rms_norm(x.ptr as never, null, x.ptr as never, 2, 4, 1e-5)).toBe(1);
  expect(ops.lastError()).toContain("null pointer");
  expect(ops.symbols.graft_l2_norm(x.ptr as never, x.ptr as never, 2, 0, 1e-5)).toBe(1);
  expect(ops.lastError()).toContain("C is 0");
});
