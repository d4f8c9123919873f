// The decoder block that Llama, Qwen2 and Qwen3 have in common, serving form: rms norms, gated MLP, final norm, head.
//   h = x + Attn(rms(x; input_layernorm));  y = h + Wdown( silu(Wgate n) ⊙ Wup n ),  n = rms(h; post_attention_layernorm)
// What differs between the families is decoder_family.ts and their own files.
import { CheckpointError } from "../src/errors.ts";
import type { Ops, PackedLinear, RowNorm } from "../src/ops/ops.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { bytesOf } from "../src/tensor/tensor.ts";
import { FullAttention } from "./attention/full.ts";
import type { Context } from "./attention/mixer.ts";
import type { ModelConfig } from "./config.ts";
import { Linear, Projections } from "./linear.ts";
import type { Backbone } from "./model.ts";
import { createRopeTable } from "./rope.ts";
import type { WeightLoader } from "./weights.ts";

/** Prefix of a layer's tensors. */
export function decoderLayerPrefix(layer: number): string {
  return `model.layers.${layer}.`;
}

interface Layer {
  readonly inputNorm: RowNorm;
  /** null where a stand-alone hybrid has a linear layer. */
  readonly attention: FullAttention | null;
  readonly postNorm: RowNorm;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

/** The attention of one layer from its tensors. */
function loadAttention(weights: WeightLoader, config: ModelConfig, ropeTable: Tensor): FullAttention {
  const sizes = { numQueryHeads: config.numHeads, numKvHeads: config.numKvHeads, headDim: config.headDim };
  return new FullAttention(weights.ops, sizes, {
    q: weights.linear("q_proj"),
    k: weights.linear("k_proj"),
    v: weights.linear("v_proj"),
    o: weights.linear("o_proj"),
    headNorms: config.qkNorm
      ? { q: weights.vector("q_norm.weight"), k: weights.vector("k_norm.weight"), eps: config.normEps }
      : null,
    ropeTable,
  });
}

/** Serving form of the whole model but its linear token mixers. */
export class Decoder implements Backbone {
  readonly config: ModelConfig;
  readonly #ops: Ops;
  readonly #ropeTable: Tensor;
  /** The head's packed weight where embeddings are tied. */
  readonly #embedding: Tensor | PackedLinear;
  readonly #layers: readonly Layer[];
  readonly #norm: RowNorm;
  readonly #head: Projections;

  constructor(weights: WeightLoader, config: ModelConfig) {
    this.config = config;
    this.#ops = weights.ops;
    this.#ropeTable = createRopeTable(weights.ops, config.rope!, config.headDim, config.maxPositions);
    const tied = config.tieWordEmbeddings;
    const head = new Linear(weights.packed(tied ? "model.embed_tokens.weight" : "lm_head.weight"), null);
    const rmsNorm = (from: WeightLoader, name: string): RowNorm => {
      return { weight: from.vector(name), bias: null, eps: config.normEps };
    };
    this.#head = new Projections(weights.ops, [{ linear: head }]);
    this.#embedding = tied ? head.weight : weights.table("model.embed_tokens.weight");
    this.#norm = rmsNorm(weights, "model.norm.weight");
    this.#layers = config.linearLayers.map((linear, i) => {
      const layer = weights.scope(decoderLayerPrefix(i));
      return {
        inputNorm: rmsNorm(layer, "input_layernorm.weight"),
        attention: linear ? null : loadAttention(layer.scope("self_attn."), config, this.#ropeTable),
        postNorm: rmsNorm(layer, "post_attention_layernorm.weight"),
        gate: layer.linear("mlp.gate_proj"),
        up: layer.linear("mlp.up_proj"),
        down: layer.linear("mlp.down_proj"),
      };
    });
  }

  embed(ctx: Context, ids: Tensor, _positions: Tensor, y: Tensor): void {
    ctx.ops.embedding(y, ids, this.#embedding);
  }

  inputNorm(layer: number): RowNorm {
    return this.#layers[layer]!.inputNorm;
  }

  mlpBlock(ctx: Context, layer: number, x: Tensor): void {
    const { postNorm, gate, up, down } = this.#layers[layer]!;
    ctx.arena.scope(() => {
      const h = ctx.arena.alloc([x.shape[0]!, gate.weight.out]); // [N,F]
      ctx.ops.gatedLinear(h, x, postNorm, gate.weight, up.weight);
      down.into(ctx, h, x, x);
    });
  }

  head(ctx: Context, x: Tensor, logits: Tensor): void {
    this.#head.into(ctx, x, this.#norm, [logits]);
  }

  fullAttention(layer: number): FullAttention {
    const attention = this.#layers[layer]?.attention;
    if (!attention)
      throw new CheckpointError(`Cannot use full attention in layer ${layer}: this checkpoint has none there`);
    return attention;
  }

  weightBytes(): number {
    const embedding = "out" in this.#embedding ? 0 : bytesOf(this.#embedding);
    return this.#layers.reduce(
      (sum, { attention, gate, up, down }) =>
        sum + (attention?.weightBytes() ?? 0) + gate.bytes() + up.bytes() + down.bytes(),
      embedding + this.#head.bytes(),
    );
  }

  free(): void {
    const ops = this.#ops;
    for (const { inputNorm, attention, postNorm, gate, up, down } of this.#layers) {
      attention?.free();
      for (const linear of [gate, up, down]) linear.free(ops);
      for (const norm of [inputNorm, postNorm]) ops.free(norm.weight);
    }
    if (!("out" in this.#embedding)) ops.free(this.#embedding);
    this.#head.free();
    ops.free(this.#norm.weight);
    ops.free(this.#ropeTable);
  }
}
