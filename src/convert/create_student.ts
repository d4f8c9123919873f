// The students of a conversion with their first values: one per layer and variant.
import { createTrainableLinear } from "../../models/attention/create.ts";
import { initLinearLayer } from "../../models/attention/init.ts";
import type { LinearShape, Variant } from "../../models/attention/mixer.ts";
import { linearShapeFor, linearTensors } from "../../models/attention/shape.ts";
import { readAttentionSource } from "../../models/attention_source.ts";
import type { ModelConfig } from "../../models/config.ts";
import { withCheckpoint } from "../../models/load.ts";
import type { LoadedModel } from "../../models/model.ts";
import { ParameterBlock } from "../../models/parameters.ts";
import type { Ops } from "../ops/ops.ts";
import type { Recipe } from "./recipe.ts";
import { Student } from "./student.ts";

/** Attention-matched shape of a variant, with what the recipe says about it. */
export function shapeOf(config: ModelConfig, variant: Variant, recipe: Recipe): LinearShape {
  const overrides = variant === "gla" && recipe.glaConv > 0 ? { convKernel: recipe.glaConv } : {};
  return linearShapeFor(config, variant, overrides);
}

/**
 * By layer, then in the order of the recipe's variants.
 * @throws CheckpointError if the checkpoint cannot be read or is a hybrid already
 */
export function createStudents(ops: Ops, model: LoadedModel, recipe: Recipe): Student[][] {
  return withCheckpoint(model.directory, (config, tensors) =>
    Array.from({ length: config.numLayers }, (_, layer) => {
      const source = readAttentionSource(tensors, config, layer);
      return recipe.variants.map((variant) => {
        const shape = shapeOf(config, variant, recipe);
        const params = new ParameterBlock(ops, linearTensors(shape));
        const values = initLinearLayer(shape, source, { seed: recipe.seed, layer, from: recipe.init });
        for (const [name, array] of values) params.write(name, array);
        return new Student(ops, layer, shape, createTrainableLinear(params, shape), recipe.loss);
      });
    }),
  );
}
