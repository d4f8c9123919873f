// Parts of config.json that several families share: what none of them computes is refused, rope is read in its old and new
// form, sizes of the rms-norm decoders are read with their bounds.
import type { ConfigFields } from "../src/checkpoint/hf_config.ts";
import type { RopeConfig, RopeScaling } from "./config.ts";
import {
  HEAD_DIM,
  HEADS,
  HIDDEN,
  INTERMEDIATE,
  LAYERS,
  NORM_EPS,
  POSITIONS,
  ROPE_FACTOR,
  ROPE_THETA,
  VOCABULARY,
} from "./limits.ts";

/** Refuses settings that would change the mathematics. @throws CheckpointError naming the field. */
export function refuseForeignFeatures(fields: ConfigFields): void {
  fields.requireAbsentOr("quantization_config", [], "none: quantized weights are not supported");
  fields.requireAbsentOr("is_encoder_decoder", [false], "false");
  fields.requireAbsentOr("add_cross_attention", [false], "false");
  for (const name of ["num_experts", "num_local_experts", "n_routed_experts"]) {
    fields.requireAbsentOr(name, [0], "none: mixtures of experts are not supported");
  }
  for (const name of ["attn_logit_softcapping", "final_logit_softcapping", "clip_qkv", "attention_chunk_size"]) {
    fields.requireAbsentOr(name, [], "none");
  }
  for (const name of ["logit_scale", "logits_scaling", "residual_multiplier", "embedding_multiplier"]) {
    fields.requireAbsentOr(name, [1], "1");
  }
  fields.requireAbsentOr("partial_rotary_factor", [1], "1");
}

/** @throws CheckpointError if sliding windows are in use; Qwen's may stand there switched off. */
export function refuseSlidingWindow(fields: ConfigFields, hasSwitch: boolean): void {
  fields.requireAbsentOr("use_sliding_window", [false], "false: sliding windows are not supported");
  if (!hasSwitch) fields.requireAbsentOr("sliding_window", [], "none: sliding windows are not supported");
}

const SCALING_FIELDS = ["factor", "low_freq_factor", "high_freq_factor"] as const;

function parseScaling(fields: ConfigFields): RopeScaling | null {
  const typeName = fields.has("rope_type") ? "rope_type" : "type";
  const type = fields.oneOf(typeName, ["default", "llama3"], "default");
  if (type === "default") {
    for (const name of SCALING_FIELDS) fields.requireAbsentOr(name, [1], "none without a rope_type that uses it");
    return null;
  }
  const scaling = {
    factor: fields.number("factor", ROPE_FACTOR),
    lowFreqFactor: fields.number("low_freq_factor", { min: 1e-3, max: 1e6 }),
    highFreqFactor: fields.number("high_freq_factor", { min: 1e-3, max: 1e6 }),
    originalMaxPositions: fields.integer("original_max_position_embeddings", POSITIONS),
  };
  if (scaling.highFreqFactor <= scaling.lowFreqFactor) {
    fields.refuse("high_freq_factor", `more than low_freq_factor (${scaling.lowFreqFactor})`);
  }
  return scaling;
}

/**
 * Rope from `rope_parameters` (new: theta and scaling together) or from `rope_theta` and `rope_scaling` (old).
 * @throws CheckpointError naming the field, for types other than "default" and "llama3" too.
 */
export function parseRope(fields: ConfigFields): RopeConfig {
  const modern = fields.object("rope_parameters");
  const nested = modern ?? fields.object("rope_scaling");
  const owner = modern?.has("rope_theta") ? modern : fields;
  const theta = owner.number("rope_theta", ROPE_THETA, 10_000);
  nested?.requireAbsentOr("partial_rotary_factor", [1], "1");
  return { theta, scaling: nested ? parseScaling(nested) : null };
}

/** Sizes of a decoder with rms norms, rope and a gated MLP; the same keys in Llama, Qwen2 and Qwen3. */
export function parseDecoderSizes(fields: ConfigFields) {
  fields.oneOf("hidden_act", ["silu", "swish"]);
  const hiddenSize = fields.integer("hidden_size", HIDDEN);
  const numHeads = fields.integer("num_attention_heads", HEADS);
  const numKvHeads = fields.integer("num_key_value_heads", HEADS, numHeads);
  if (numHeads % numKvHeads !== 0) {
    fields.refuse("num_key_value_heads", `a divisor of num_attention_heads (${numHeads})`);
  }
  if (!fields.has("head_dim") && hiddenSize % numHeads !== 0) {
    fields.refuse("num_attention_heads", `a divisor of hidden_size (${hiddenSize})`);
  }
  return {
    vocabSize: fields.integer("vocab_size", VOCABULARY),
    hiddenSize,
    intermediateSize: fields.integer("intermediate_size", INTERMEDIATE),
    numLayers: fields.integer("num_hidden_layers", LAYERS),
    numHeads,
    numKvHeads,
    headDim: parseHeadDim(fields, hiddenSize / numHeads),
    maxPositions: fields.integer("max_position_embeddings", POSITIONS, 2048),
    normEps: fields.number("rms_norm_eps", NORM_EPS),
    tieWordEmbeddings: fields.boolean("tie_word_embeddings", false),
    rope: parseRope(fields),
  };
}

function parseHeadDim(fields: ConfigFields, fallback: number): number {
  const name = fields.has("head_dim") ? "head_dim" : "num_attention_heads";
  const headDim = fields.has("head_dim") ? fields.integer("head_dim", HEAD_DIM) : fallback;
  if (headDim % 8 !== 0 || headDim < HEAD_DIM.min || headDim > HEAD_DIM.max) {
    const wanted = `a multiple of 8 from ${HEAD_DIM.min} to ${HEAD_DIM.max}`;
    fields.refuse(name, name === "head_dim" ? wanted : `a head size (here ${headDim}) that is ${wanted}`);
  }
  return headDim;
}
