// Pools of counterparts on disk, made in a moment from the attention of a checkpoint.
import { mkdirSync } from "node:fs";
import { initLinearLayer } from "../../models/attention/init.ts";
import type { LinearShape, Variant } from "../../models/attention/mixer.ts";
import { linearShapeFor, type ShapeOverrides } from "../../models/attention/shape.ts";
import { readAttentionSource } from "../../models/attention_source.ts";
import { identityOf, withCheckpoint } from "../../models/load.ts";
import { savePool } from "../../models/pool.ts";

/** A pool of copy-initialised layers, as conversion begins with. */
export function makePool(
  model: string,
  directory: string,
  variant: Variant,
  overrides: ShapeOverrides = {},
  seed = 4,
): LinearShape {
  mkdirSync(directory, { recursive: true });
  return withCheckpoint(model, (config, tensors) => {
    const shape = linearShapeFor(config, variant, overrides);
    const layers = Array.from({ length: config.numLayers }, (_, layer) =>
      initLinearLayer(shape, readAttentionSource(tensors, config, layer), { seed, layer }),
    );
    const info = {
      shape,
      numLayers: config.numLayers,
      backbone: identityOf(config, tensors),
      details: { note: "test" },
    };
    savePool(directory, info, (name) => {
      const [, layer, rest] = /^linear\.(\d+)\.(.*)$/.exec(name)!;
      return layers[Number(layer)]!.get(rest!)!;
    });
    return shape;
  });
}
