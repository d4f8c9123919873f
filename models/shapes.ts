// Sizes of well-known models by name, as their public config.json files give them: for measuring speed without a checkpoint.
// Knows no weights; models/random_model.ts draws some.
import type { JsonObject } from "../src/checkpoint/hf_config.ts";
import { RequestError } from "../src/errors.ts";
import type { ModelConfig } from "./config.ts";
import { parseModelConfig } from "./parse_config.ts";

// The bundled model's. Its config.json is a file in the executable, so it cannot be a module as well.
const tiny: JsonObject = {
  architectures: ["Qwen3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0,
  bos_token_id: 0,
  eos_token_id: 1,
  head_dim: 32,
  hidden_act: "silu",
  hidden_size: 96,
  initializer_range: 0.02,
  intermediate_size: 192,
  max_position_embeddings: 512,
  model_type: "qwen3",
  num_attention_heads: 4,
  num_hidden_layers: 10,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 10000,
  sliding_window: null,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  use_cache: true,
  use_sliding_window: false,
  vocab_size: 1103,
};

const llama32Rope: JsonObject = {
  rope_type: "llama3",
  factor: 32,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

const llama32: JsonObject = {
  model_type: "llama",
  hidden_act: "silu",
  vocab_size: 128_256,
  intermediate_size: 8192,
  num_key_value_heads: 8,
  max_position_embeddings: 131_072,
  rms_norm_eps: 1e-5,
  rope_theta: 500_000,
  rope_scaling: llama32Rope,
  tie_word_embeddings: true,
};

const smollm2: JsonObject = {
  model_type: "llama",
  hidden_act: "silu",
  vocab_size: 49_152,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-5,
  rope_theta: 100_000,
  tie_word_embeddings: true,
};

const qwen: JsonObject = {
  hidden_act: "silu",
  vocab_size: 151_936,
  rms_norm_eps: 1e-6,
  rope_theta: 1_000_000,
  tie_word_embeddings: true,
};

/** config.json by shape name. */
const shapes: Readonly<Record<string, JsonObject>> = {
  tiny,
  "smollm2-135m": {
    ...smollm2,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
  },
  "smollm2-360m": {
    ...smollm2,
    hidden_size: 960,
    intermediate_size: 2560,
    num_hidden_layers: 32,
    num_attention_heads: 15,
    num_key_value_heads: 5,
  },
  "qwen2.5-0.5b": {
    ...qwen,
    model_type: "qwen2",
    hidden_size: 896,
    intermediate_size: 4864,
    num_hidden_layers: 24,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    max_position_embeddings: 32_768,
  },
  "qwen3-0.6b": {
    ...qwen,
    model_type: "qwen3",
    hidden_size: 1024,
    intermediate_size: 3072,
    num_hidden_layers: 28,
    num_attention_heads: 16,
    num_key_value_heads: 8,
    head_dim: 128,
    max_position_embeddings: 40_960,
  },
  "llama-3.2-1b": { ...llama32, hidden_size: 2048, num_hidden_layers: 16, num_attention_heads: 32, head_dim: 64 },
  "qwen2.5-1.5b": {
    ...qwen,
    model_type: "qwen2",
    hidden_size: 1536,
    intermediate_size: 8960,
    num_hidden_layers: 28,
    num_attention_heads: 12,
    num_key_value_heads: 2,
    max_position_embeddings: 131_072,
  },
  "llama-3.2-3b": { ...llama32, hidden_size: 3072, num_hidden_layers: 28, num_attention_heads: 24, head_dim: 128 },
  "llama-3.1-8b": {
    ...llama32,
    hidden_size: 4096,
    intermediate_size: 14_336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    head_dim: 128,
    rope_scaling: { ...llama32Rope, factor: 8 },
    tie_word_embeddings: false,
  },
};

/** Smallest first. */
export const shapeNames: readonly string[] = Object.keys(shapes);

/** @param maxPositions longest context, where it shall not be the model's own. @throws RequestError for an unknown name. */
export function shapeConfig(name: string, maxPositions?: number): ModelConfig {
  const raw = Object.hasOwn(shapes, name) ? shapes[name] : undefined;
  if (raw === undefined) {
    throw new RequestError("unknown_shape", `Cannot find shape "${name}", expected ${shapeNames.join(" | ")}`);
  }
  return parseModelConfig(maxPositions === undefined ? raw : { ...raw, max_position_embeddings: maxPositions });
}
