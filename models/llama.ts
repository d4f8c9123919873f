// Llama 1, 2 and 3.x: config.json and attention. The block around the attention is decoder.ts.
//   q = rope(Wq x), k = rope(Wk x), v = Wv x;  o_h = softmax(q_h k_{h/G}ᵀ / √D) v_{h/G};  y = Wo o
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
  refuseSlidingWindow(fields, false);
  const bias = fields.boolean("attention_bias", false);
  return {
    architecture: "llama",
    ...parseDecoderSizes(fields),
    qkvBias: bias,
    oBias: bias,
    mlpBias: fields.boolean("mlp_bias", false),
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

export const llama: Family = {
  modelType: "llama",
  causalClass: "LlamaForCausalLM",
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
