import { expect, test } from "bun:test";
import { ParameterBlock } from "../../models/parameters.ts";
import { AdamW } from "../../src/train/optimizer.ts";
import { type Golden, goldenFiles, relativeError } from "../support/golden.ts";
import { bestOps } from "../support/kernels.ts";

const LIMIT = 1e-5;

/** Golden parameter names beside those under which a parameter set decides what decays. */
const names = { matrix: "matrix.weight", conv: "conv.weight", bias: "bias" } as const;

async function follow(golden: Golden): Promise<void> {
  const ops = await bestOps();
  const hp = golden.hyperparameters;
  const keys = Object.keys(names) as (keyof typeof names)[];
  const params = new ParameterBlock(
    ops,
    keys.map((key) => ({ name: names[key], shape: golden.shape(`input.param.${key}`) })),
  );
  for (const key of keys) params.write(names[key], golden.f32(`input.param.${key}`));
  const maxNorm = Number(hp.max_grad_norm) > 0 ? Number(hp.max_grad_norm) : Number.POSITIVE_INFINITY;
  const optimizer = new AdamW(ops, params, {
    beta1: Number(hp.beta1),
    beta2: Number(hp.beta2),
    eps: Number(hp.eps),
    weightDecay: Number(hp.weight_decay),
    maxNorm,
  });
  const rates = golden.f32("input.lr_per_step");
  rates.forEach((rate, i) => {
    for (const key of keys) ops.upload(params.grad(names[key]), golden.f32(`input.step${i + 1}.grad.${key}`));
    optimizer.step(rate);
    for (const key of keys) {
      expect(relativeError(params.read(names[key]), golden.f32(`output.step${i + 1}.param.${key}`))).toBeLessThan(
        LIMIT,
      );
      expect(params.readGrad(names[key]).every((value) => value === 0)).toBe(true);
    }
  });
  expect(optimizer.steps).toBe(rates.length);
  optimizer.free();
  params.free();
}

for (const golden of goldenFiles("adamw")) {
  test(`AdamW over a parameter set follows ${golden.name}`, () => follow(golden));
}
