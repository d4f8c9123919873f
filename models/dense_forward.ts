// The parent's forward pass over whole sequences without a cache, layer by layer: what conversion feeds its students from.
import type { Tensor } from "../src/tensor/tensor.ts";
import type { Context, RaggedRows } from "./attention/mixer.ts";
import type { Backbone, LayerCapture } from "./model.ts";

/**
 * Runs every layer on the parent's own output, calling `onLayer` with the token mixer's input and output of each; both
 * are overwritten after the call returns. Returns the hidden states before the final norm, in the arena.
 */
export function denseForward(
  ctx: Context,
  backbone: Backbone,
  ids: Tensor,
  rows: RaggedRows,
  onLayer: LayerCapture = () => {},
): Tensor {
  const { hiddenSize, numLayers } = backbone.config;
  const x = ctx.arena.alloc([rows.numRows, hiddenSize]);
  backbone.embed(ctx, ids, rows.positions, x);
  ctx.arena.scope(() => {
    const input = ctx.arena.alloc(x.shape);
    const output = ctx.arena.alloc(x.shape);
    for (let layer = 0; layer < numLayers; layer++) {
      backbone.inputNorm(ctx, layer, x, input);
      backbone.fullAttention(layer).forwardDense(ctx, input, output, rows);
      ctx.arena.scope(() => onLayer(layer, input, output));
      ctx.ops.add(x, x, output);
      backbone.mlpBlock(ctx, layer, x);
    }
  });
  return x;
}
