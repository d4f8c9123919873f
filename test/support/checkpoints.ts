// Small checkpoints for tests, made here: a config.json of any family, random weights of exactly the tensors it needs.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { modelTensors } from "../../models/load.ts";
import { parseModelConfig } from "../../models/parse_config.ts";
import { type SafetensorsDType, type TensorToWrite, writeSafetensors } from "../../src/checkpoint/safetensors.ts";
import { CounterRandom, streamOf } from "../../src/tensor/random.ts";

/** Calls `use` with a new directory and removes it afterwards. */
export async function withTemporary<T>(use: (directory: string) => T | Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "graft-test-"));
  try {
    return await use(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export type Config = Record<string, unknown>;

/** A Llama of two layers, grouped query heads. */
export const tinyLlama: Config = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  vocab_size: 40,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
};

/** A Qwen2 with tied embeddings, otherwise as tinyLlama. */
export const tinyQwen2: Config = {
  ...tinyLlama,
  architectures: ["Qwen2ForCausalLM"],
  model_type: "qwen2",
  tie_word_embeddings: true,
};

/** A Qwen3 whose heads are wider than the hidden size. */
export const tinyQwen3: Config = {
  ...tinyLlama,
  architectures: ["Qwen3ForCausalLM"],
  model_type: "qwen3",
  head_dim: 16,
};

/** A GPT-2 of two layers. */
export const tinyGpt2: Config = {
  architectures: ["GPT2LMHeadModel"],
  model_type: "gpt2",
  activation_function: "gelu_new",
  n_embd: 32,
  n_head: 2,
  n_layer: 2,
  n_positions: 64,
  vocab_size: 40,
  layer_norm_epsilon: 1e-5,
};

/** `linear_*` keys of a gla layer for tinyLlama. */
export const linearGla: Config = {
  linear_attn_variant: "gla",
  linear_num_query_heads: 4,
  linear_num_key_heads: 2,
  linear_num_value_heads: 2,
  linear_key_head_dim: 8,
  linear_value_head_dim: 8,
};

/** tinyLlama with layer 1 replaced by gla. */
export const tinyHybrid: Config = {
  ...tinyLlama,
  architectures: ["GraftHybridForCausalLM"],
  model_type: "graft_hybrid",
  base_model_type: "llama",
  layer_types: ["full_attention", "linear_attention"],
  ...linearGla,
};

/** Values of one tensor as little-endian bytes of a dtype. */
function bytesOf(values: Float32Array, dtype: SafetensorsDType): Uint8Array {
  if (dtype === "F16") return new Uint8Array(Float16Array.from(values).buffer);
  if (dtype === "BF16") {
    const bits = new Uint32Array(values.buffer);
    return new Uint8Array(Uint16Array.from(bits, (b) => (b + 0x7fff + ((b >>> 16) & 1)) >>> 16).buffer);
  }
  return new Uint8Array(values.buffer);
}

/** Random tensors of a configuration, in checkpoint orientation. */
export function randomTensors(config: Config, dtype: SafetensorsDType = "F32"): TensorToWrite[] {
  return modelTensors(parseModelConfig(config)).map(({ name, shape }) => ({
    name,
    shape,
    dtype,
    bytes: () => {
      const count = shape.reduce((a, b) => a * b, 1);
      const values = new CounterRandom(11, streamOf(name)).normals(count, 0.1);
      const norm = /norm|ln_/.test(name) && name.endsWith(".weight");
      return bytesOf(norm ? values.map((x) => x + 1) : values, dtype);
    },
  }));
}

/** Writes a whole model directory. */
export function writeCheckpoint(directory: string, config: Config, tensors = randomTensors(config)): string {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "config.json"), JSON.stringify(config));
  writeSafetensors(join(directory, "model.safetensors"), tensors);
  return directory;
}
