// The decoder block that Llama, Qwen2 and Qwen3 have in common, serving form: rms norms, gated MLP, final norm, head.
//   h = x + Attn(rms(x; input_layernorm));  y = h + Wdown( silu(Wgate n) ⊙ Wup n ),  n = rms(h; post_attention_layernorm)
// What differs, the attention, is the families' own.
import { CheckpointError } from "../src/errors.ts";
import type { Ops, PackedLinear } from "../src/ops/ops.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { bytesOf } from "../src/tensor/tensor.ts";
import type { FullAttention } from "./attention/full.ts";
import type { Context } from "./attention/mixer.ts";
import type { ModelConfig } from "./config.ts";
import type { BackboneConfig } from "./family.ts";
import { Linear } from "./linear.ts";
import type { Backbone } from "./model.ts";
import type { ParameterSpec } from "./parameters.ts";
import { createRopeTable } from "./rope.ts";
import type { WeightLoader } from "./weights.ts";

/** Prefix of a layer's tensors. */
export function decoderLayerPrefix(layer: number): string {
  return `model.layers.${layer}.`;
}

/** Tensors before the layers. */
export function decoderFirstTensors({ vocabSize: V, hiddenSize: C }: BackboneConfig): ParameterSpec[] {
  return [{ name: "model.embed_tokens.weight", shape: [V, C] }];
}

/** Tensors of one layer but its token mixer. */
export function decoderLayerTensors({ hiddenSize: C, intermediateSize: F, mlpBias }: BackboneConfig): ParameterSpec[] {
  const linear = (name: string, out: number, inputs: number): ParameterSpec[] => [
    { name: `mlp.${name}.weight`, shape: [out, inputs] },
    ...(mlpBias ? [{ name: `mlp.${name}.bias`, shape: [out] }] : []),
  ];
  return [
    { name: "input_layernorm.weight", shape: [C] },
    { name: "post_attention_layernorm.weight", shape: [C] },
    ...linear("gate_proj", F, C),
    ...linear("up_proj", F, C),
    ...linear("down_proj", C, F),
  ];
}

/** Tensors after the layers. */
export function decoderLastTensors({
  vocabSize: V,
  hiddenSize: C,
  tieWordEmbeddings,
}: BackboneConfig): ParameterSpec[] {
  const head = { name: "lm_head.weight", shape: [V, C] };
  return [{ name: "model.norm.weight", shape: [C] }, ...(tieWordEmbeddings ? [] : [head])];
}

/** Tensors of q, k, v, o with the family's biases. */
export function attentionProjections(config: BackboneConfig): ParameterSpec[] {
  const { hiddenSize: C, numHeads, numKvHeads, headDim, qkvBias, oBias } = config;
  const linear = (name: string, out: number, inputs: number, bias: boolean): ParameterSpec[] => [
    { name: `${name}.weight`, shape: [out, inputs] },
    ...(bias ? [{ name: `${name}.bias`, shape: [out] }] : []),
  ];
  return [
    ...linear("q_proj", numHeads * headDim, C, qkvBias),
    ...linear("k_proj", numKvHeads * headDim, C, qkvBias),
    ...linear("v_proj", numKvHeads * headDim, C, qkvBias),
    ...linear("o_proj", C, numHeads * headDim, oBias),
  ];
}

interface Layer {
  readonly inputNorm: Tensor;
  /** null where a stand-alone hybrid has a linear layer. */
  readonly attention: FullAttention | null;
  readonly postNorm: Tensor;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

/** Builds the attention of one layer from its tensors. */
export type AttentionLoader = (weights: WeightLoader, config: ModelConfig, ropeTable: Tensor) => FullAttention;

export class Decoder implements Backbone {
  readonly config: ModelConfig;
  readonly #ops: Ops;
  readonly #ropeTable: Tensor;
  /** The head's packed weight where embeddings are tied. */
  readonly #embedding: Tensor | PackedLinear;
  readonly #layers: readonly Layer[];
  readonly #norm: Tensor;
  readonly #head: Linear;

  constructor(weights: WeightLoader, config: ModelConfig, attention: AttentionLoader) {
    this.config = config;
    this.#ops = weights.ops;
    this.#ropeTable = createRopeTable(weights.ops, config.rope!, config.headDim, config.maxPositions);
    const tied = config.tieWordEmbeddings;
    this.#head = new Linear(weights.packed(tied ? "model.embed_tokens.weight" : "lm_head.weight"), null);
    this.#embedding = tied ? this.#head.weight : weights.table("model.embed_tokens.weight");
    this.#norm = weights.vector("model.norm.weight");
    this.#layers = config.linearLayers.map((linear, i) => {
      const layer = weights.scope(decoderLayerPrefix(i));
      return {
        inputNorm: layer.vector("input_layernorm.weight"),
        attention: linear ? null : attention(layer.scope("self_attn."), config, this.#ropeTable),
        postNorm: layer.vector("post_attention_layernorm.weight"),
        gate: layer.linear("mlp.gate_proj"),
        up: layer.linear("mlp.up_proj"),
        down: layer.linear("mlp.down_proj"),
      };
    });
  }

  embed(ctx: Context, ids: Tensor, _positions: Tensor, y: Tensor): void {
    ctx.ops.embedding(y, ids, this.#embedding);
  }

  inputNorm(ctx: Context, layer: number, x: Tensor, y: Tensor): void {
    ctx.ops.rmsNorm(y, x, this.#layers[layer]!.inputNorm, this.config.normEps);
  }

  mlpBlock(ctx: Context, layer: number, x: Tensor): void {
    const { postNorm, gate, up, down } = this.#layers[layer]!;
    ctx.arena.scope(() => {
      const n = ctx.arena.alloc(x.shape);
      ctx.ops.rmsNorm(n, x, postNorm, this.config.normEps);
      const g = gate.apply(ctx, n); // [N,F]
      const u = up.apply(ctx, n); // [N,F]
      const h = ctx.arena.alloc(g.shape);
      ctx.ops.siluMul(h, g, u);
      down.into(ctx, h, x, x);
    });
  }

  finalNorm(ctx: Context, x: Tensor, y: Tensor): void {
    ctx.ops.rmsNorm(y, x, this.#norm, this.config.normEps);
  }

  head(ctx: Context, h: Tensor, logits: Tensor): void {
    this.#head.into(ctx, h, logits);
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
      for (const norm of [inputNorm, postNorm]) ops.free(norm);
    }
    if (!("out" in this.#embedding)) ops.free(this.#embedding);
    this.#head.free(ops);
    ops.free(this.#norm);
    ops.free(this.#ropeTable);
  }
}
