// config.json of every family, and every way in which one is refused: one line that names the field.
import { describe, expect, test } from "bun:test";
import { linearShapeFor } from "../../models/attention/shape.ts";
import { parseModelConfig } from "../../models/parse_config.ts";
import { inverseFrequencies } from "../../models/rope.ts";
import { CheckpointError } from "../../src/errors.ts";
import { type Config, tinyGpt2, tinyHybrid, tinyLlama, tinyQwen2, tinyQwen3 } from "../support/checkpoints.ts";
import { goldenFiles, relativeError } from "../support/golden.ts";

const llama3 = {
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

describe("parseModelConfig()", () => {
  test("reads Llama 1 without rope_theta, head_dim and key/value heads", () => {
    const { rope_theta: _t, head_dim: _d, num_key_value_heads: _k, ...old } = tinyLlama;
    const config = parseModelConfig(old);
    expect(config.rope).toEqual({ theta: 10_000, scaling: null });
    expect([config.numKvHeads, config.headDim]).toEqual([4, 8]);
  });

  test("reads llama3 scaling in its old and its new form alike", () => {
    const old = { ...tinyLlama, rope_theta: 5e5, rope_scaling: { rope_type: "llama3", ...llama3 } };
    const older = { ...tinyLlama, rope_theta: 5e5, rope_scaling: { type: "llama3", ...llama3 } };
    const { rope_theta: _, ...rest } = tinyLlama;
    const modern = { ...rest, rope_parameters: { rope_type: "llama3", rope_theta: 5e5, ...llama3 } };
    const expected = {
      theta: 5e5,
      scaling: { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 },
    };
    for (const config of [old, older, modern]) expect(parseModelConfig(config).rope).toEqual(expected);
  });

  test("reads biases, norms and ties of the families", () => {
    const flags = (config: Config) => {
      const { qkvBias, oBias, qkNorm, tieWordEmbeddings } = parseModelConfig(config);
      return { qkvBias, oBias, qkNorm, tieWordEmbeddings };
    };
    expect(flags(tinyLlama)).toEqual({ qkvBias: false, oBias: false, qkNorm: false, tieWordEmbeddings: false });
    expect(flags(tinyQwen2)).toEqual({ qkvBias: true, oBias: false, qkNorm: false, tieWordEmbeddings: true });
    expect(flags(tinyQwen3)).toEqual({ qkvBias: false, oBias: false, qkNorm: true, tieWordEmbeddings: false });
    expect(flags(tinyGpt2)).toEqual({ qkvBias: true, oBias: true, qkNorm: false, tieWordEmbeddings: true });
  });

  test("reads a hybrid whose linear values differ between layers", () => {
    const config = parseModelConfig({
      ...tinyHybrid,
      layer_types: ["linear_attention", "linear_attention"],
      linear_attn_variant: ["gla", "jet"],
      linear_num_key_heads: [2, 4],
      linear_num_value_heads: [2, 4],
    });
    expect(config.linearLayers.map((l) => [l?.variant, l?.numQueryHeads, l?.numKeyHeads, l?.convKernel])).toEqual([
      ["gla", 4, 2, 0],
      ["jet", 4, 4, 4],
    ]);
  });

  test("keeps several end-of-text ids", () => {
    expect(parseModelConfig({ ...tinyLlama, eos_token_id: [2, 7] }).eosTokenIds).toEqual([2, 7]);
    expect(parseModelConfig({ ...tinyLlama, eos_token_id: null }).eosTokenIds).toEqual([]);
  });
});

/** What is wrong, with the field that the message must name. */
const refusals: [field: string, config: Config][] = [
  ["model_type", { ...tinyLlama, model_type: "mistral" }],
  ["model_type", { ...tinyLlama, model_type: undefined }],
  ["model_type", { ...tinyLlama, model_type: "__proto__" }],
  ["architectures", { ...tinyLlama, architectures: ["LlamaForSequenceClassification"] }],
  ["architectures", { ...tinyLlama, architectures: "LlamaForCausalLM" }],
  ["hidden_act", { ...tinyLlama, hidden_act: "relu" }],
  ["hidden_act", { ...tinyLlama, hidden_act: undefined }],
  ["num_hidden_layers", { ...tinyLlama, num_hidden_layers: 1e9 }],
  ["num_hidden_layers", { ...tinyLlama, num_hidden_layers: 0 }],
  ["num_hidden_layers", { ...tinyLlama, num_hidden_layers: 2.5 }],
  ["num_hidden_layers", { ...tinyLlama, num_hidden_layers: "2" }],
  ["num_attention_heads", { ...tinyLlama, num_attention_heads: 0 }],
  ["num_attention_heads", { ...tinyLlama, num_attention_heads: 5, num_key_value_heads: 5, head_dim: undefined }],
  ["num_key_value_heads", { ...tinyLlama, num_key_value_heads: 3 }],
  ["head_dim", { ...tinyLlama, head_dim: 12 }],
  ["head_dim", { ...tinyLlama, head_dim: 264 }],
  ["num_attention_heads", { ...tinyLlama, head_dim: undefined, hidden_size: 40, num_attention_heads: 10 }],
  ["hidden_size", { ...tinyLlama, hidden_size: 1e12 }],
  ["hidden_size", { ...tinyLlama, hidden_size: -32 }],
  ["intermediate_size", { ...tinyLlama, intermediate_size: 1 << 30 }],
  ["vocab_size", { ...tinyLlama, vocab_size: 1e10 }],
  ["max_position_embeddings", { ...tinyLlama, max_position_embeddings: 1e9 }],
  ["rms_norm_eps", { ...tinyLlama, rms_norm_eps: 0 }],
  ["rms_norm_eps", { ...tinyLlama, rms_norm_eps: undefined }],
  ["rope_theta", { ...tinyLlama, rope_theta: -1 }],
  ["rope_scaling.rope_type", { ...tinyLlama, rope_scaling: { rope_type: "yarn", factor: 4 } }],
  ["rope_scaling.type", { ...tinyLlama, rope_scaling: { type: "linear", factor: 2 } }],
  ["rope_scaling.factor", { ...tinyLlama, rope_scaling: { factor: 2 } }],
  ["rope_scaling.factor", { ...tinyLlama, rope_scaling: { ...llama3, rope_type: "llama3", factor: 0 } }],
  [
    "rope_scaling.high_freq_factor",
    { ...tinyLlama, rope_scaling: { ...llama3, rope_type: "llama3", high_freq_factor: 1 } },
  ],
  ["rope_scaling", { ...tinyLlama, rope_scaling: "llama3" }],
  ["tie_word_embeddings", { ...tinyLlama, tie_word_embeddings: "yes" }],
  ["quantization_config", { ...tinyLlama, quantization_config: { bits: 4 } }],
  ["sliding_window", { ...tinyLlama, sliding_window: 4096 }],
  ["use_sliding_window", { ...tinyQwen2, use_sliding_window: true, sliding_window: 4096 }],
  ["layer_types", { ...tinyQwen2, layer_types: ["full_attention", "sliding_attention"] }],
  ["layer_types", { ...tinyQwen2, layer_types: ["full_attention"] }],
  ["partial_rotary_factor", { ...tinyLlama, partial_rotary_factor: 0.5 }],
  ["num_local_experts", { ...tinyLlama, num_local_experts: 8 }],
  ["eos_token_id", { ...tinyLlama, eos_token_id: "two" }],
  ["eos_token_id", { ...tinyLlama, eos_token_id: [1, -4] }],
  ["bos_token_id", { ...tinyLlama, bos_token_id: -1 }],
  ["activation_function", { ...tinyGpt2, activation_function: "relu" }],
  ["n_head", { ...tinyGpt2, n_head: 3 }],
  ["n_positions", { ...tinyGpt2, n_positions: undefined }],
  ["scale_attn_by_inverse_layer_idx", { ...tinyGpt2, scale_attn_by_inverse_layer_idx: true }],
  ["base_model_type", { ...tinyHybrid, base_model_type: "graft_hybrid" }],
  ["architectures", { ...tinyHybrid, architectures: ["LlamaForCausalLM"] }],
  ["layer_types", { ...tinyHybrid, layer_types: undefined }],
  ["layer_types", { ...tinyHybrid, layer_types: ["linear_attention"] }],
  ["linear_attn_variant", { ...tinyHybrid, linear_attn_variant: "mamba" }],
  ["linear_attn_variant", { ...tinyHybrid, linear_attn_variant: ["gla", null] }],
  ["linear_attn_variant", { ...tinyHybrid, linear_attn_variant: ["gla"] }],
  ["linear_num_key_heads", { ...tinyHybrid, linear_num_key_heads: undefined }],
  ["numQueryHeads", { ...tinyHybrid, linear_num_key_heads: 3, linear_num_value_heads: 3 }],
  ["linear_key_head_dim", { ...tinyHybrid, linear_key_head_dim: 4 }],
  ["keyHeadDim", { ...tinyHybrid, linear_key_head_dim: 20 }],
  ["linear_conv_kernel_dim", { ...tinyHybrid, linear_conv_kernel_dim: 9 }],
  ["convKernel", { ...tinyHybrid, linear_conv_kernel_dim: 1 }],
  ["linear_gate_low_rank_dim", { ...tinyHybrid, linear_gate_low_rank_dim: 0 }],
];

describe("parseModelConfig() refuses, naming the field,", () => {
  refusals.forEach(([field, config], i) => {
    test(`${field} (case ${i})`, () => {
      const run = () => parseModelConfig(JSON.parse(JSON.stringify(config)) as Config);
      expect(run).toThrow(CheckpointError);
      expect(run).toThrow(field);
      expect(run).not.toThrow(/\n/);
    });
  });
});

describe("inverseFrequencies()", () => {
  for (const golden of goldenFiles("rope")) {
    test(`matches ${golden.name}`, () => {
      const scaling = golden.hyperparameters.rope_scaling as Config | undefined;
      const theta = golden.hyperparameters.rope_theta;
      const rope = parseModelConfig({ ...tinyLlama, rope_theta: theta, rope_scaling: scaling ?? null }).rope!;
      const expected = golden.f32("inv_freq");
      expect(relativeError(inverseFrequencies(rope, expected.length * 2), expected)).toBeLessThan(1e-6);
    });
  }
});

describe("linearShapeFor()", () => {
  const config = parseModelConfig(tinyQwen2);

  test("keeps the key/value heads for gla and takes all heads for gdn and jet", () => {
    const heads = (["gla", "gdn", "jet"] as const).map((variant) => {
      const { numQueryHeads, numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim } = linearShapeFor(config, variant);
      return [numQueryHeads, numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim];
    });
    expect(heads).toEqual([
      [4, 2, 2, 8, 8],
      [4, 4, 4, 8, 8],
      [4, 4, 4, 8, 8],
    ]);
  });

  test("follows the source's biases", () => {
    expect(linearShapeFor(config, "gdn").qkvBias).toBe(true);
    expect(linearShapeFor(parseModelConfig(tinyGpt2), "gdn").oBias).toBe(true);
  });

  test("refuses an override that does not fit", () => {
    expect(() => linearShapeFor(config, "jet", { convKernel: 0 })).toThrow("convKernel is 0, expected 2, 3 or 4");
    expect(() => linearShapeFor(config, "gla", { keyHeadDim: 12 })).toThrow("keyHeadDim is 12");
  });
});
