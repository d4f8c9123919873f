// Reads one softmax attention from a checkpoint as init.ts wants it: every projection [out, in], GPT-2's thirds apart.
import type { TensorReader } from "../src/checkpoint/tensors.ts";
import type { AttentionSource, Projection } from "./attention/init.ts";
import type { ModelConfig } from "./config.ts";
import { transpose } from "./parameters.ts";
import { familyOf } from "./parse_config.ts";

/** @param tensors the checked tensors of the checkpoint, see withCheckpoint(). */
export function readAttentionSource(tensors: TensorReader, config: ModelConfig, layer: number): AttentionSource {
  const family = familyOf(config);
  return attentionSource(tensors, config, family.layerPrefix(layer) + family.attentionPrefix);
}

/** Attention whose tensors begin with `prefix`, under the names of any family. */
export function attentionSource(
  tensors: TensorReader,
  sizes: Pick<ModelConfig, "hiddenSize" | "numHeads" | "numKvHeads" | "headDim">,
  prefix: string,
): AttentionSource {
  const { hiddenSize, numHeads, numKvHeads, headDim } = sizes;
  const optional = (name: string) => (tensors.find(prefix + name) ? tensors.float32(prefix + name) : null);
  const read = (name: string): Projection => ({
    weight: tensors.float32(`${prefix}${name}.weight`),
    bias: optional(`${name}.bias`),
  });
  const projections = tensors.find(`${prefix}c_attn.weight`)
    ? fusedProjections(read("c_attn"), read("c_proj"), hiddenSize)
    : { q: read("q_proj"), k: read("k_proj"), v: read("v_proj"), o: read("o_proj") };
  const norms = { qNorm: optional("q_norm.weight"), kNorm: optional("k_norm.weight") };
  return { hiddenSize, numHeads, numKvHeads, headDim, ...projections, ...norms };
}

/** GPT-2: c_attn [C, 3C] and c_proj [C, C], stored [in, out]. */
function fusedProjections(qkv: Projection, o: Projection, C: number) {
  const rows = transpose(qkv.weight, C, 3 * C);
  const third = (i: number): Projection => ({
    weight: rows.subarray(i * C * C, (i + 1) * C * C),
    bias: qkv.bias?.subarray(i * C, (i + 1) * C) ?? null,
  });
  return { q: third(0), k: third(1), v: third(2), o: { weight: transpose(o.weight, C, C), bias: o.bias } };
}
