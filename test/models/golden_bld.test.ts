// Golden distillations: six AdamW steps of one linear layer on one attention layer's outputs follow the golden trajectory,
// on every kernel library of this machine.
import { describe, expect, test } from "bun:test";
import type { Variant } from "../../models/attention/mixer.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { Arena } from "../../src/tensor/arena.ts";
import { numel } from "../../src/tensor/tensor.ts";
import { type Golden, goldenDir, goldenFiles, relativeError } from "../support/golden.ts";
import { GoldenAttention, goldenTrainableLinear, hp } from "../support/golden_layers.ts";
import { isas, opsOf } from "../support/kernels.ts";
import { createRows } from "../support/rows.ts";

const LOSS = 1e-4;
const FINAL: Record<Variant, number> = { gla: 1e-3, gdn: 1e-3, jet: 3e-3 };

function distil(ops: Ops, golden: Golden): void {
  const variant = golden.hyperparameters.variant as Variant;
  const [B, T, C] = golden.shape("input.hidden_states") as [number, number, number];
  const ctx = { ops, arena: new Arena(ops) };
  const rows = createRows(
    ops,
    Array.from({ length: B + 1 }, (_, s) => s * T),
  );
  const x = ops.fromArray([B * T, C], golden.f32("input.hidden_states"));
  const target = ops.empty([B * T, C]);
  new GoldenAttention(ops, golden, "teacher.param.").serving().forwardDense(ctx, x, target, rows);
  expect(relativeError(ops.toFloat32(target), golden.f32("output.teacher"))).toBeLessThanOrEqual(LOSS);
  const student = goldenTrainableLinear(ops, golden, variant, "student.initial.");
  const { params } = student;
  const [m, v] = [ops.empty(params.values.shape), ops.empty(params.values.shape)];
  const [stats, norm] = [ops.empty([2], "f64"), ops.empty([1], "f64")];
  const losses: number[] = [];
  const norms: number[] = [];
  const forward = () => student.forward(ctx, x, rows);
  const rates = golden.f32("input.lr_per_step");
  for (let step = 1; step <= rates.length; step++) {
    const saved = forward();
    const dy = ctx.arena.alloc([B * T, C]);
    ops.mse(stats, dy, saved.y, target, false);
    losses.push(ops.toFloat64(stats)[0]! / numel(target));
    params.zeroGrads();
    student.backward(ctx, dy, saved, null);
    ops.sumSquares(norm, params.grads);
    norms.push(Math.sqrt(ops.toFloat64(norm)[0]!));
    const settings = {
      step,
      lr: rates[step - 1]!,
      beta1: hp(golden, "beta1"),
      beta2: hp(golden, "beta2"),
      eps: hp(golden, "eps"),
      maxNorm: hp(golden, "max_grad_norm"),
    };
    for (const name of params.names()) {
      const [p, g] = [params.value(name), params.grad(name)];
      const offset = p.ptr - params.values.ptr;
      const [pm, pv] = [m, v].map((t) => ({ ...p, ptr: t.ptr + offset })) as [typeof p, typeof p];
      ops.adamw(p, pm, pv, g, norm, { ...settings, weightDecay: params.decays(name) ? hp(golden, "weight_decay") : 0 });
    }
    ctx.arena.reset();
  }
  ops.mse(stats, null, forward().y, target, false);
  losses.push(ops.toFloat64(stats)[0]! / numel(target));
  expect(relativeError(Float32Array.from(losses), golden.f32("output.loss_per_step"))).toBeLessThanOrEqual(LOSS);
  expect(relativeError(Float32Array.from(norms), golden.f32("output.grad_norm_per_step"))).toBeLessThanOrEqual(1e-3);
  for (const name of params.names()) {
    const error = relativeError(params.read(name), golden.f32(`student.final.${name}`));
    if (!(error <= FINAL[variant])) throw new Error(`${golden.name} ${name}: relative error ${error}`);
  }
  ctx.arena.close();
  for (const t of [x, target, m, v, stats, norm, rows.seqStart, rows.positions]) ops.free(t);
  params.free();
}

const files = goldenFiles("bld");
if (files.length === 0) console.log(`skipped: no golden distillations in ${goldenDir}`);

for (const isa of isas) {
  describe(`golden distillations on ${isa}`, () => {
    for (const golden of files) test(`${golden.name} on ${isa}`, async () => distil(await opsOf(isa), golden));
  });
}
