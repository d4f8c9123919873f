// AdamW against golden trajectories and the reference; sums of squares; results that do not depend on threads.
import { describe, expect, test } from "bun:test";
import type { AdamwStep, Ops } from "../../src/ops/ops.ts";
import { guarded, isas, opsOf } from "../support/kernels.ts";
import { eachGolden, expectClose, expectGolden, expectSameBits, fastIsas, random, zeros } from "../support/op_case.ts";

describe("golden files", () => {
  eachGolden(["adamw"], (ops, golden) => {
    const h = golden.hyperparameters as Record<string, number>;
    const undecayed = golden.hyperparameters.no_decay_params as string[];
    const clip = h.max_grad_norm! > 0;
    const rates = golden.f32("input.lr_per_step");
    const norm = ops.empty([1], "f64");
    const params = golden.names("input.param.").map((full) => {
      const name = full.slice("input.param.".length);
      const shape = golden.shape(full);
      const p = guarded(ops, shape);
      ops.upload(p, golden.f32(full));
      return { name, p, m: zeros(ops, shape), v: zeros(ops, shape), decays: !undecayed.includes(name) };
    });
    for (let step = 1; step <= h.steps!; step++) {
      const grads = params.map(({ name, p }) => ops.fromArray(p.shape, golden.f32(`input.step${step}.grad.${name}`)));
      grads.forEach((g, i) => {
        ops.sumSquares(norm, g, i > 0);
      });
      if (golden.has(`output.step${step}.grad_norm`)) {
        const actual = Float32Array.of(Math.sqrt(ops.toFloat64(norm)[0]!));
        expectClose(actual, golden.f32(`output.step${step}.grad_norm`), 1e-6, `norm of step ${step}`);
      }
      params.forEach(({ name, p, m, v, decays }, i) => {
        const settings: AdamwStep = {
          step,
          lr: rates[step - 1]!,
          beta1: h.beta1!,
          beta2: h.beta2!,
          eps: h.eps!,
          weightDecay: decays ? h.weight_decay! : 0,
          maxNorm: h.max_grad_norm!,
        };
        ops.adamw(p, m, v, grads[i]!, clip ? norm : null, settings);
        expectGolden(ops, p, golden, `output.step${step}.param.${name}`, 1e-5);
        expectGolden(ops, m, golden, `output.step${step}.exp_avg.${name}`, 1e-5);
        expectGolden(ops, v, golden, `output.step${step}.exp_avg_sq.${name}`, 1e-5);
      });
    }
  });
});

function steps(ops: Ops, n: number) {
  const [p, m, v] = [guarded(ops, [n]), zeros(ops, [n]), zeros(ops, [n])];
  ops.copy(p, random(ops, [n], 1));
  const norm = ops.empty([1], "f64");
  for (let step = 1; step <= 3; step++) {
    const g = random(ops, [n], 10 + step, 3);
    ops.sumSquares(norm, g);
    const settings = { step, lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
    ops.adamw(p, m, v, g, norm, settings);
  }
  for (const t of [p, m, v]) t.check();
  return { p: ops.toFloat32(p), m: ops.toFloat32(m), v: ops.toFloat32(v), norm: ops.toFloat64(norm)[0]! };
}

for (const isa of fastIsas) {
  test.each([1, 7, 1000, 50001])(`adamw() matches the reference at %d elements on ${isa}`, async (n) => {
    const [actual, expected] = [steps(await opsOf(isa), n), steps(await opsOf("reference"), n)];
    for (const name of ["p", "m", "v"] as const) expectClose(actual[name], expected[name], 2e-6, name);
    expect(Math.abs(actual.norm / expected.norm - 1)).toBeLessThan(1e-6);
  });

  test(`adamw() and sumSquares() have the same bits with 1 and 2 threads on ${isa}`, async () => {
    const ops = await opsOf(isa);
    const two = steps(ops, 100003);
    ops.setThreads(1);
    const one = steps(ops, 100003);
    ops.setThreads(2);
    for (const name of ["p", "m", "v"] as const) expectSameBits(one[name], two[name], name);
    expect(one.norm).toBe(two.norm);
  });
}

test.each(isas)("adamw() refuses step 0 and betas outside [0, 1) on %s", async (isa) => {
  const ops = await opsOf(isa);
  const p = random(ops, [4], 1);
  const settings = { step: 1, lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, maxNorm: 0 };
  expect(() => ops.adamw(p, p, p, p, null, { ...settings, step: 0 })).toThrow("step is 0");
  expect(() => ops.adamw(p, p, p, p, null, { ...settings, beta2: 1 })).toThrow("betas are 0.9 and 1");
});
