// Qwen3: Llama's block with an rms norm on every head of q and k before rope; heads times head size need not be the hidden
// size. The block around the attention is decoder.ts.
//   q = rope(rms(Wq x; q_norm)), k = rope(rms(Wk x; k_norm)), v = Wv x;  o_h = softmax(q_h k_{h/G}ᵀ / √D) v_{h/G};  y = Wo o
import type { ConfigFields } from "../src/checkpoint/hf_config.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { FullAttention } from "./attention/full.ts";
import type { ModelConfig } from "./config.ts";
import { parseDecoderSizes, refuseForeignFeatures, refuseSlidingWindow } from "./config_fields.ts";
import {
  attentionProjections,
  Decoder,
  decoderFirstTensors,
  decoderLastTensors,
  decoderLayerPrefix,
  decoderLayerTensors,
} from "./decoder.ts";
import type { BackboneConfig, Family } from "./family.ts";
import type { ParameterSpec } from "./parameters.ts";
import { TrainableDecoder } from "./train_decoder.ts";
import type { WeightLoader } from "./weights.ts";

function parse(fields: ConfigFields): BackboneConfig {
  refuseForeignFeatures(fields);
  refuseSlidingWindow(fields, true);
  const bias = fields.boolean("attention_bias", false);
  return {
    architecture: "qwen3",
    ...parseDecoderSizes(fields),
    qkvBias: bias,
    oBias: bias,
    mlpBias: false,
    qkNorm: true,
  };
}

function attentionTensors(config: BackboneConfig): ParameterSpec[] {
  return [
    ...attentionProjections(config),
    { name: "q_norm.weight", shape: [config.headDim] },
    { name: "k_norm.weight", shape: [config.headDim] },
  ];
}

function attention(weights: WeightLoader, config: ModelConfig, ropeTable: Tensor): FullAttention {
  const sizes = { numQueryHeads: config.numHeads, numKvHeads: config.numKvHeads, headDim: config.headDim };
  return new FullAttention(weights.ops, sizes, {
    q: weights.linear("q_proj"),
    k: weights.linear("k_proj"),
    v: weights.linear("v_proj"),
    o: weights.linear("o_proj"),
    headNorms: { q: weights.vector("q_norm.weight"), k: weights.vector("k_norm.weight"), eps: config.normEps },
    ropeTable,
  });
}

export const qwen3: Family = {
  modelType: "qwen3",
  causalClass: "Qwen3ForCausalLM",
  parse,
  layerPrefix: decoderLayerPrefix,
  attentionPrefix: "self_attn.",
  firstTensors: decoderFirstTensors,
  layerTensors: decoderLayerTensors,
  lastTensors: decoderLastTensors,
  attentionTensors,
  canonicalName: (name) => name,
  isBuffer: (name) => name.endsWith(".rotary_emb.inv_freq"),
  load: (weights, config) => new Decoder(weights, config, attention),
  trainable: (ops, params, config) => new TrainableDecoder(ops, params, config),
};
