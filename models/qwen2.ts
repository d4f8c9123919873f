// Qwen2 and Qwen2.5: config.json. Llama's layers (decoder.ts) with biases on q, k and v, never on o.
//   q = rope(Wq x + bq), k = rope(Wk x + bk), v = Wv x + bv;  o_h = softmax(q_h k_{h/G}ᵀ / √D) v_{h/G};  y = Wo o
import type { ConfigFields } from "../src/checkpoint/hf_config.ts";
import { parseDecoderSizes, refuseForeignFeatures, refuseSlidingWindow } from "./config_fields.ts";
import { decoderFamily } from "./decoder_family.ts";
import type { BackboneConfig } from "./family.ts";

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

/** Qwen2 and Qwen2.5. */
export const qwen2 = decoderFamily({ modelType: "qwen2", causalClass: "Qwen2ForCausalLM", parse });
