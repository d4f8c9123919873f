// Models and pools with random weights, for measuring speed. They pass through the same loader as a checkpoint's, but
// matrices are drawn on the device, one at a time: no second copy of the weights exists, and none in host memory.
import type { Ops } from "../src/ops/ops.ts";
import { createLinearMixer } from "./attention/create.ts";
import type { LinearShape, Variant } from "./attention/mixer.ts";
import { linearShapeFor } from "./attention/shape.ts";
import type { ModelConfig } from "./config.ts";
import type { LinearPool, LoadedModel } from "./model.ts";
import { familyOf } from "./parse_config.ts";
import { randomBackbone, randomCounterparts } from "./random_tensors.ts";
import { WeightLoader } from "./weights.ts";

export interface RandomOptions {
  readonly seed?: number;
  /** How linear weights are held (default bf16). */
  readonly dtype?: "f32" | "bf16";
}

/**
 * A backbone of full attention with random weights.
 * @param config without linear layers; its maxPositions bounds the rope table
 */
export function createRandomModel(ops: Ops, config: ModelConfig, options: RandomOptions = {}): LoadedModel {
  const { seed = 1, dtype = "bf16" } = options;
  const backbone = familyOf(config).load(new WeightLoader(ops, randomBackbone(config, seed), dtype), config);
  return {
    directory: "",
    config,
    backbone,
    layerTypes: config.linearLayers.map(() => "full_attention"),
    mixers: config.linearLayers.map(() => null),
    identity: `random-${seed}`,
    free: () => backbone.free(),
  };
}

/** Counterparts of every layer of a model with random weights; gates and decays begin as a conversion's do. */
export function createRandomPool(
  ops: Ops,
  model: Pick<LoadedModel, "config" | "identity">,
  variant: Variant,
  options: RandomOptions = {},
): LinearPool {
  const { seed = 1, dtype = "bf16" } = options;
  const shape: LinearShape = linearShapeFor(model.config, variant);
  const { numLayers } = model.config;
  const weights = new WeightLoader(ops, randomCounterparts(shape, numLayers, seed), dtype);
  const mixers = Array.from({ length: numLayers }, (_, i) => createLinearMixer(weights.scope(`linear.${i}.`), shape));
  const free = () => {
    for (const mixer of mixers) mixer.free();
  };
  return { directory: "", variant, shape, mixers, backbone: model.identity, free };
}
