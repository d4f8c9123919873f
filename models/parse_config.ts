// config.json -> ModelConfig: picks the family, lets it read its part, and reads what hybrids add (layers.md section 11).
import { join } from "node:path";
import { ConfigFields, type JsonObject, readJsonObject } from "../src/checkpoint/hf_config.ts";
import { CheckpointError } from "../src/errors.ts";
import type { LinearShape, Variant } from "./attention/mixer.ts";
import { DEFAULT_BLOCK, shapeProblem, VARIANTS } from "./attention/shape.ts";
import type { Architecture, ModelConfig } from "./config.ts";
import type { BackboneConfig, Family } from "./family.ts";
import { GATE_NORMALIZER, GATE_RANK, HEAD_DIM, HEADS, LAYERS, NORM_EPS, TOKEN_ID } from "./limits.ts";
import { families } from "./registry.ts";

/** `model_type` of a stand-alone hybrid. */
export const HYBRID_MODEL_TYPE = "graft_hybrid";
/** The class that a stand-alone hybrid names in `architectures`. */
export const HYBRID_CLASS = "GraftHybridForCausalLM";

const ARCHITECTURES = Object.keys(families) as Architecture[];

/** @throws CheckpointError naming the field that cannot be used. */
export function readModelConfig(directory: string): ModelConfig {
  return parseModelConfig(readJsonObject(join(directory, "config.json")));
}

/** @throws CheckpointError naming the field that cannot be used. */
export function parseModelConfig(raw: JsonObject): ModelConfig {
  const fields = new ConfigFields(raw);
  const hybrid = raw.model_type === HYBRID_MODEL_TYPE;
  const typeName = hybrid ? "base_model_type" : "model_type";
  const family = families[fields.oneOf(typeName, ARCHITECTURES)];
  requireClass(fields, hybrid ? HYBRID_CLASS : family.causalClass);
  const backbone = family.parse(fields);
  return {
    ...backbone,
    linearLayers: hybrid ? parseLinearLayers(fields, backbone) : allFull(fields, backbone.numLayers),
    bosTokenId: fields.has("bos_token_id") ? fields.integer("bos_token_id", TOKEN_ID) : null,
    eosTokenIds: parseTokenIds(fields, "eos_token_id"),
    raw,
  };
}

/** The family of a configuration. */
export function familyOf(config: Pick<ModelConfig, "architecture">): Family {
  return families[config.architecture];
}

function requireClass(fields: ConfigFields, wanted: string): void {
  if (!fields.has("architectures")) return;
  const names = fields.array("architectures", 8);
  if (!names.includes(wanted)) fields.refuse("architectures", `one that holds "${wanted}"`);
}

function parseTokenIds(fields: ConfigFields, name: string): number[] {
  if (!Array.isArray(fields.values[name])) return fields.has(name) ? [fields.integer(name, TOKEN_ID)] : [];
  const ids = fields.array(name, 64);
  const sound = (id: unknown): id is number =>
    typeof id === "number" && Number.isInteger(id) && id >= 0 && id <= TOKEN_ID.max;
  return ids.every(sound) ? [...ids] : fields.refuse(name, "token ids");
}

/** A plain checkpoint may list its layer types as long as all are full attention. */
function allFull(fields: ConfigFields, numLayers: number): null[] {
  if (fields.has("layer_types")) {
    const types = fields.array("layer_types", LAYERS.max);
    if (types.length !== numLayers || types.some((t) => t !== "full_attention")) {
      fields.refuse("layer_types", `${numLayers} times "full_attention"`);
    }
  }
  return new Array<null>(numLayers).fill(null);
}

function parseLinearLayers(fields: ConfigFields, backbone: BackboneConfig): (LinearShape | null)[] {
  const { numLayers } = backbone;
  const types = fields.array("layer_types", LAYERS.max);
  const known = types.every((t) => t === "full_attention" || t === "linear_attention");
  if (types.length !== numLayers || !known) {
    fields.refuse("layer_types", `${numLayers} entries of "full_attention" or "linear_attention"`);
  }
  return types.map((type, i) =>
    type === "linear_attention" ? linearLayer(fieldsOfLayer(fields, numLayers, i), backbone, i) : null,
  );
}

/** The fields of layer i: a `linear_*` value that is a list has one entry per layer. */
function fieldsOfLayer(fields: ConfigFields, numLayers: number, layer: number): ConfigFields {
  const values: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fields.values)) {
    if (!name.startsWith("linear_")) continue;
    if (Array.isArray(value) && value.length !== numLayers) {
      throw new CheckpointError(`Cannot use config.json: ${name} has ${value.length} entries, expected ${numLayers}`);
    }
    values[name] = Array.isArray(value) ? value[layer] : value;
  }
  return new ConfigFields(values);
}

/** What the linear keys leave to the backbone. */
type Surroundings = Pick<BackboneConfig, "hiddenSize" | "numHeads">;

function linearLayer(fields: ConfigFields, backbone: Surroundings, layer: number): LinearShape {
  const variant: Variant = fields.oneOf("linear_attn_variant", VARIANTS);
  const numKeyHeads = fields.integer("linear_num_key_heads", HEADS);
  const shape: LinearShape = {
    variant,
    hiddenSize: backbone.hiddenSize,
    numQueryHeads: variant === "gla" ? fields.integer("linear_num_query_heads", HEADS, backbone.numHeads) : numKeyHeads,
    numKeyHeads,
    numValueHeads: fields.integer("linear_num_value_heads", HEADS),
    keyHeadDim: fields.integer("linear_key_head_dim", HEAD_DIM),
    valueHeadDim: fields.integer("linear_value_head_dim", HEAD_DIM),
    convKernel: fields.integer("linear_conv_kernel_dim", { min: 0, max: 4 }, variant === "gla" ? 0 : 4),
    convBias: fields.boolean("linear_conv_bias", false),
    outputGate: fields.boolean("linear_use_output_gate", true),
    qkvBias: fields.boolean("linear_qkv_bias", false),
    oBias: fields.boolean("linear_o_bias", false),
    normEps: fields.number("linear_norm_eps", NORM_EPS, 1e-5),
    gateLowRank: fields.integer("linear_gate_low_rank_dim", GATE_RANK, 16),
    gateNormalizer: fields.number("linear_gate_logit_normalizer", GATE_NORMALIZER, 16),
    allowNegEigval: fields.boolean("linear_allow_neg_eigval", false),
    dconvReduction: fields.integer("linear_dconv_generator_reduction", { min: 1, max: 1 << 18 }, 8),
    block: DEFAULT_BLOCK,
  };
  const problem = shapeProblem(shape);
  if (problem) throw new CheckpointError(`Cannot use config.json: linear layer ${layer} (${variant}): ${problem}`);
  return shape;
}

/** The `linear_*` keys of one shape, as config.json spells them. */
export function linearKeys(shape: LinearShape): Record<string, unknown> {
  return {
    linear_attn_variant: shape.variant,
    linear_num_query_heads: shape.numQueryHeads,
    linear_num_key_heads: shape.numKeyHeads,
    linear_num_value_heads: shape.numValueHeads,
    linear_key_head_dim: shape.keyHeadDim,
    linear_value_head_dim: shape.valueHeadDim,
    linear_conv_kernel_dim: shape.convKernel,
    linear_conv_bias: shape.convBias,
    linear_use_output_gate: shape.outputGate,
    linear_qkv_bias: shape.qkvBias,
    linear_o_bias: shape.oBias,
    linear_norm_eps: shape.normEps,
    linear_gate_low_rank_dim: shape.gateLowRank,
    linear_gate_logit_normalizer: shape.gateNormalizer,
    linear_allow_neg_eigval: shape.allowNegEigval,
    linear_dconv_generator_reduction: shape.dconvReduction,
  };
}

/** A linear shape from its `linear_*` keys alone, as pool.json holds them. @throws CheckpointError naming the key. */
export function parseLinearShape(keys: JsonObject, hiddenSize: number): LinearShape {
  return linearLayer(new ConfigFields(keys), { hiddenSize, numHeads: 0 }, 0);
}
