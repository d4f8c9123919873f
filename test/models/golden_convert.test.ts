// Golden conversions: every tensor that the source determines has the golden value, every other one is drawn and finite.
import { describe, expect, test } from "bun:test";
import { initLinearLayer } from "../../models/attention/init.ts";
import type { Variant } from "../../models/attention/mixer.ts";
import { linearTensors } from "../../models/attention/shape.ts";
import { attentionSource } from "../../models/attention_source.ts";
import { type Golden, goldenDir, goldenFiles, relativeError } from "../support/golden.ts";
import { goldenShape, goldenTensors, hp } from "../support/golden_layers.ts";

const LIMIT = 1e-6;

function convert(golden: Golden): void {
  const shape = goldenShape(golden, golden.hyperparameters.variant as Variant);
  const numHeads = hp(golden, "num_attention_heads");
  const sizes = {
    hiddenSize: shape.hiddenSize,
    numHeads,
    numKvHeads: hp(golden, "num_key_value_heads", numHeads),
    headDim: hp(golden, "head_dim"),
  };
  const source = attentionSource(goldenTensors(golden, "source."), sizes, "");
  const tensors = initLinearLayer(shape, source, { seed: 7, layer: 0 });
  const fresh = JSON.parse(golden.metadata.freshly_initialised ?? "[]") as string[];
  const determined = golden.names("target.").map((name) => name.slice("target.".length));
  expect([...tensors.keys()].sort()).toEqual([...fresh, ...determined].sort());
  for (const { name, shape: dims } of linearTensors(shape)) {
    const values = tensors.get(name)!;
    expect(values.length).toBe(dims.reduce((a, b) => a * b, 1));
    if (fresh.includes(name)) expect(values.every(Number.isFinite)).toBe(true);
    else expect(relativeError(values, golden.f32(`target.${name}`))).toBeLessThanOrEqual(LIMIT);
  }
}

const files = goldenFiles("convert");
if (files.length === 0) console.log(`skipped: no golden conversions in ${goldenDir}`);

describe("golden conversions", () => {
  for (const golden of files) test(golden.name, () => convert(golden));
});
