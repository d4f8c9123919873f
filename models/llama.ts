// Llama 1, 2 and 3.x: config.json. Its layers are decoder.ts, its attention is
//   q = rope(Wq x), k = rope(Wk x), v = Wv x;  o_h = softmax(q_h k_{h/G}ᵀ / √D) v_{h/G};  y = Wo o
import type { ConfigFields } from "../src/checkpoint/hf_config.ts";
import { parseDecoderSizes, refuseForeignFeatures, refuseSlidingWindow } from "./config_fields.ts";
import { decoderFamily } from "./decoder_family.ts";
import type { BackboneConfig } from "./family.ts";

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

/** Llama 1, 2 and 3.x. */
export const llama = decoderFamily({ modelType: "llama", causalClass: "LlamaForCausalLM", parse });
