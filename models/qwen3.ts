// Qwen3: config.json. Llama's layers (decoder.ts) with an rms norm on every head of q and k before rope; heads times head
// size need not be the hidden size.
//   q = rope(rms(Wq x; q_norm)), k = rope(rms(Wk x; k_norm)), v = Wv x;  o_h = softmax(q_h k_{h/G}ᵀ / √D) v_{h/G};  y = Wo o
import type { ConfigFields } from "../src/checkpoint/hf_config.ts";
import { parseDecoderSizes, refuseForeignFeatures, refuseSlidingWindow } from "./config_fields.ts";
import { decoderFamily } from "./decoder_family.ts";
import type { BackboneConfig } from "./family.ts";

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

/** Qwen3. */
export const qwen3 = decoderFamily({ modelType: "qwen3", causalClass: "Qwen3ForCausalLM", parse });
