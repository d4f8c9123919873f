// What the training forms of all backbones share: the token mixer of each layer, and the head with its loss.
import type { Tensor } from "../src/tensor/tensor.ts";
import { createTrainableLinear } from "./attention/create.ts";
import type { Context, TrainableMixer } from "./attention/mixer.ts";
import { TrainableFullAttention } from "./attention/train_full.ts";
import type { ModelConfig } from "./config.ts";
import type { ParameterSet } from "./parameters.ts";

/** Prefix of a linear layer's tensors inside a layer, in every family. */
export const LINEAR_PREFIX = "linear_attn.";

/** The token mixer of layer i, full or linear as the config says. */
export function trainableMixer(
  params: ParameterSet,
  config: ModelConfig,
  i: number,
  names: { layer: string; attention: string },
  ropeTable: Tensor | null,
): TrainableMixer {
  const linear = config.linearLayers[i];
  if (linear) return createTrainableLinear(params.scope(names.layer + LINEAR_PREFIX), linear);
  const sizes = { numQueryHeads: config.numHeads, numKvHeads: config.numKvHeads, headDim: config.headDim };
  const options = { sizes, ropeTable, normEps: config.normEps };
  return new TrainableFullAttention(params.scope(names.layer + names.attention), options);
}

/** What a pass over labelled rows gave. */
export interface LossResult {
  /** Mean over the labels that count; 0 where none does. */
  readonly loss: number;
  /** Labels that are not -100. */
  readonly count: number;
}

/**
 * Cross-entropy, mean over the rows whose label is not -100. Overwrites `logits`[N,V] with the gradient of
 * scale × loss.
 */
export function crossEntropyInPlace(ctx: Context, logits: Tensor, labels: Int32Array, scale = 1): LossResult {
  const count = labels.reduce((sum, label) => sum + (label === -100 ? 0 : 1), 0);
  return ctx.arena.scope(() => {
    const device = ctx.arena.alloc([labels.length], "i32");
    const losses = ctx.arena.alloc([labels.length]);
    ctx.ops.upload(device, labels);
    ctx.ops.crossEntropy(losses, logits, logits, device, count > 0 ? scale / count : 0);
    const loss = ctx.ops.toFloat32(losses).reduce((sum, x) => sum + x, 0);
    return { loss: count > 0 ? loss / count : 0, count };
  });
}

/** A zeroed tensor of the same shape in the arena. */
export function zerosLike(ctx: Context, t: Tensor): Tensor {
  const zeros = ctx.arena.alloc(t.shape);
  ctx.ops.zero(zeros);
  return zeros;
}

/** a + b in a new tensor. */
export function sum(ctx: Context, a: Tensor, b: Tensor): Tensor {
  const y = ctx.arena.alloc(a.shape);
  ctx.ops.add(y, a, b);
  return y;
}
