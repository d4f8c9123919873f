// GPT-2, top to bottom: config.json, tensors, forward pass. LayerNorm with bias, learned positions, one matrix for q, k and
// v, gelu MLP. Linear layers are stored [in, out] (Conv1D).
//   x = wte[id] + wpe[pos];  h = x + Attn(ln_1 x);  y = h + Wproj gelu(Wfc ln_2 h);  logits = head(ln_f y)
import type { ConfigFields } from "../src/checkpoint/hf_config.ts";
import { CheckpointError } from "../src/errors.ts";
import type { Ops, PackedLinear, RowNorm } from "../src/ops/ops.ts";
import { bytesOf, type Tensor } from "../src/tensor/tensor.ts";
import { FullAttention } from "./attention/full.ts";
import type { Context } from "./attention/mixer.ts";
import type { ModelConfig } from "./config.ts";
import { refuseForeignFeatures, refuseSlidingWindow } from "./config_fields.ts";
import type { BackboneConfig, Family } from "./family.ts";
import { HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, LAYERS, NORM_EPS, POSITIONS, VOCABULARY } from "./limits.ts";
import { Linear, Projections } from "./linear.ts";
import type { Backbone } from "./model.ts";
import type { ParameterSpec } from "./parameters.ts";
import { TrainableGpt2 } from "./train_gpt2.ts";
import type { WeightLoader } from "./weights.ts";

function parse(fields: ConfigFields): BackboneConfig {
  refuseForeignFeatures(fields);
  refuseSlidingWindow(fields, false);
  fields.oneOf("activation_function", ["gelu_new", "gelu_pytorch_tanh"], "gelu_new");
  fields.requireAbsentOr("scale_attn_weights", [true], "true");
  fields.requireAbsentOr("scale_attn_by_inverse_layer_idx", [false], "false");
  const hiddenSize = fields.integer("n_embd", HIDDEN);
  const numHeads = fields.integer("n_head", HEADS);
  const headDim = hiddenSize / numHeads;
  if (headDim % 8 !== 0 || headDim < HEAD_DIM.min || headDim > HEAD_DIM.max) {
    const range = `a multiple of 8 from ${HEAD_DIM.min} to ${HEAD_DIM.max}`;
    fields.refuse("n_head", `a divisor of n_embd (${hiddenSize}) that leaves a head size of ${range}`);
  }
  return {
    architecture: "gpt2",
    vocabSize: fields.integer("vocab_size", VOCABULARY),
    hiddenSize,
    intermediateSize: fields.integer("n_inner", INTERMEDIATE, 4 * hiddenSize),
    numLayers: fields.integer("n_layer", LAYERS),
    numHeads,
    numKvHeads: numHeads,
    headDim,
    maxPositions: fields.integer("n_positions", POSITIONS),
    normEps: fields.number("layer_norm_epsilon", NORM_EPS, 1e-5),
    tieWordEmbeddings: fields.boolean("tie_word_embeddings", true),
    qkvBias: true,
    oBias: true,
    mlpBias: true,
    qkNorm: false,
    rope: null,
  };
}

function conv1d(name: string, inputs: number, out: number): ParameterSpec[] {
  return [
    { name: `${name}.weight`, shape: [inputs, out], conv1d: true },
    { name: `${name}.bias`, shape: [out] },
  ];
}

function layerNorm(name: string, size: number): ParameterSpec[] {
  return [
    { name: `${name}.weight`, shape: [size] },
    { name: `${name}.bias`, shape: [size] },
  ];
}

function layerPrefix(layer: number): string {
  return `transformer.h.${layer}.`;
}

interface Layer {
  readonly norm1: RowNorm;
  readonly attention: FullAttention | null;
  readonly norm2: RowNorm;
  readonly expand: Projections;
  readonly contract: Linear;
}

class Gpt2 implements Backbone {
  readonly config: ModelConfig;
  readonly #ops: Ops;
  readonly #tokens: Tensor | PackedLinear;
  readonly #positions: Tensor;
  readonly #layers: readonly Layer[];
  readonly #norm: RowNorm;
  readonly #head: Projections;

  constructor(weights: WeightLoader, config: ModelConfig) {
    this.config = config;
    this.#ops = weights.ops;
    const tied = config.tieWordEmbeddings;
    const head = new Linear(weights.packed(tied ? "transformer.wte.weight" : "lm_head.weight"), null);
    this.#head = new Projections(weights.ops, [{ linear: head }]);
    this.#tokens = tied ? head.weight : weights.table("transformer.wte.weight");
    this.#positions = weights.table("transformer.wpe.weight");
    this.#layers = config.linearLayers.map((linear, i) => loadLayer(weights.scope(layerPrefix(i)), config, !linear));
    this.#norm = loadNorm(weights, "transformer.ln_f", config);
  }

  embed(ctx: Context, ids: Tensor, positions: Tensor, y: Tensor): void {
    ctx.arena.scope(() => {
      const p = ctx.arena.alloc(y.shape);
      ctx.ops.embedding(y, ids, this.#tokens);
      ctx.ops.embedding(p, positions, this.#positions);
      ctx.ops.add(y, y, p);
    });
  }

  inputNorm(layer: number): RowNorm {
    return this.#layers[layer]!.norm1;
  }

  mlpBlock(ctx: Context, layer: number, x: Tensor): void {
    const { norm2, expand, contract } = this.#layers[layer]!;
    ctx.arena.scope(() => {
      const [h] = expand.apply(ctx, x, norm2) as [Tensor]; // [N,F]
      contract.into(ctx, h, x, x);
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
    const tokens = "out" in this.#tokens ? 0 : bytesOf(this.#tokens);
    return this.#layers.reduce(
      (sum, { attention, expand, contract }) =>
        sum + (attention?.weightBytes() ?? 0) + expand.bytes() + contract.bytes(),
      tokens + bytesOf(this.#positions) + this.#head.bytes(),
    );
  }

  free(): void {
    const ops = this.#ops;
    const freeNorm = ({ weight, bias }: RowNorm) => {
      ops.free(weight);
      if (bias) ops.free(bias);
    };
    for (const { norm1, attention, norm2, expand, contract } of this.#layers) {
      attention?.free();
      expand.free();
      contract.free(ops);
      for (const norm of [norm1, norm2]) freeNorm(norm);
    }
    if (!("out" in this.#tokens)) ops.free(this.#tokens);
    ops.free(this.#positions);
    this.#head.free();
    freeNorm(this.#norm);
  }
}

function loadNorm(weights: WeightLoader, name: string, { normEps }: ModelConfig): RowNorm {
  return { weight: weights.vector(`${name}.weight`), bias: weights.vector(`${name}.bias`), eps: normEps };
}

function loadLayer(weights: WeightLoader, config: ModelConfig, attends: boolean): Layer {
  return {
    norm1: loadNorm(weights, "ln_1", config),
    attention: attends ? loadGpt2Attention(weights.scope("attn."), config) : null,
    norm2: loadNorm(weights, "ln_2", config),
    expand: new Projections(weights.ops, [{ linear: weights.conv1d("mlp.c_fc")[0]!, activation: "gelu_tanh" }]),
    contract: weights.conv1d("mlp.c_proj")[0]!,
  };
}

/** GPT-2's attention; the thirds of c_attn become q, k and v. */
export function loadGpt2Attention(
  weights: WeightLoader,
  config: Pick<ModelConfig, "numHeads" | "headDim">,
): FullAttention {
  const sizes = { numQueryHeads: config.numHeads, numKvHeads: config.numHeads, headDim: config.headDim };
  const [q, k, v] = weights.conv1d("c_attn", 3) as [Linear, Linear, Linear];
  const o = weights.conv1d("c_proj")[0]!;
  return new FullAttention(weights.ops, sizes, { q, k, v, o, headNorms: null, ropeTable: null });
}

/** GPT-2. */
export const gpt2: Family = {
  modelType: "gpt2",
  causalClass: "GPT2LMHeadModel",
  parse,
  layerPrefix,
  attentionPrefix: "attn.",
  firstTensors: ({ vocabSize: V, hiddenSize: C, maxPositions: P }) => [
    { name: "transformer.wte.weight", shape: [V, C] },
    { name: "transformer.wpe.weight", shape: [P, C] },
  ],
  layerTensors: ({ hiddenSize: C, intermediateSize: F }) => [
    ...layerNorm("ln_1", C),
    ...layerNorm("ln_2", C),
    ...conv1d("mlp.c_fc", C, F),
    ...conv1d("mlp.c_proj", F, C),
  ],
  lastTensors: ({ vocabSize: V, hiddenSize: C, tieWordEmbeddings }) => [
    ...layerNorm("transformer.ln_f", C),
    ...(tieWordEmbeddings ? [] : [{ name: "lm_head.weight", shape: [V, C] }]),
  ],
  attentionTensors: ({ hiddenSize: C }) => [...conv1d("c_attn", C, 3 * C), ...conv1d("c_proj", C, C)],
  canonicalName: (name) => (/^(transformer|lm_head)\./.test(name) ? name : `transformer.${name}`),
  isBuffer: (name) => /\.attn\.(bias|masked_bias)$/.test(name),
  load: (weights, config) => new Gpt2(weights, config),
  trainable: (_ops, params, config) => new TrainableGpt2(params, config),
};
