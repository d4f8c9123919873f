// Qwen2 and Qwen2.5: Llama's block with biases on q, k and v (never on o). The block around the attention is decoder.ts.
//   q = rope(Wq x + bq), k = rope(Wk x + bk), v = Wv x + bv;  o_h = softmax(q_h k_{h/G}ᵀ / √D) v_{h/G};  y = Wo o
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
import { TrainableDecoder } from "./train_decoder.ts";
import type { WeightLoader } from "./weights.ts";

function parse(fields: ConfigFields): BackboneConfig {
  refuseForeignFeatures(fields);
  refuseSlidingWindow(fields, true);
  fields.requireAbsentOr("attention_bias", [true], "true: Qwen2 has biases on q, k and v");
  return {
    architecture: "qwen2",
    ...parseDecoderSizes(fields),
    qkvBias: true,
    oBias: false,
    mlpBias: false,
    qkNorm: false,
  };
}

function attention(weights: WeightLoader, config: ModelConfig, ropeTable: Tensor): FullAttention {
  const sizes = { numQueryHeads: config.numHeads, numKvHeads: config.numKvHeads, headDim: config.headDim };
  return new FullAttention(weights.ops, sizes, {
    q: weights.linear("q_proj"),
    k: weights.linear("k_proj"),
    v: weights.linear("v_proj"),
    o: weights.linear("o_proj"),
    headNorms: null,
    ropeTable,
  });
}

export const qwen2: Family = {
  modelType: "qwen2",
  causalClass: "Qwen2ForCausalLM",
  parse,
  layerPrefix: decoderLayerPrefix,
  attentionPrefix: "self_attn.",
  firstTensors: decoderFirstTensors,
  layerTensors: decoderLayerTensors,
  lastTensors: decoderLastTensors,
  attentionTensors: attentionProjections,
  canonicalName: (name) => name,
  isBuffer: (name) => name.endsWith(".rotary_emb.inv_freq"),
  load: (weights, config) => new Decoder(weights, config, attention),
  trainable: (ops, params, config) => new TrainableDecoder(ops, params, config),
};
