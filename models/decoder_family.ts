// What families whose backbone is the decoder of decoder.ts have in common: their tensors by name, and how they are built.
// Llama, Qwen2 and Qwen3 add how they read config.json.
import { Decoder, decoderLayerPrefix } from "./decoder.ts";
import type { BackboneConfig, Family } from "./family.ts";
import type { ParameterSpec } from "./parameters.ts";
import { TrainableDecoder } from "./train_decoder.ts";

/** Tensors before the layers. */
function firstTensors({ vocabSize: V, hiddenSize: C }: BackboneConfig): ParameterSpec[] {
  return [{ name: "model.embed_tokens.weight", shape: [V, C] }];
}

/** Tensors of one layer but its token mixer. */
function layerTensors({ hiddenSize: C, intermediateSize: F, mlpBias }: BackboneConfig): ParameterSpec[] {
  const linear = (name: string, out: number, inputs: number): ParameterSpec[] => [
    { name: `mlp.${name}.weight`, shape: [out, inputs] },
    ...(mlpBias ? [{ name: `mlp.${name}.bias`, shape: [out] }] : []),
  ];
  return [
    { name: "input_layernorm.weight", shape: [C] },
    { name: "post_attention_layernorm.weight", shape: [C] },
    ...linear("gate_proj", F, C),
    ...linear("up_proj", F, C),
    ...linear("down_proj", C, F),
  ];
}

/** Tensors after the layers. */
function lastTensors({ vocabSize: V, hiddenSize: C, tieWordEmbeddings }: BackboneConfig): ParameterSpec[] {
  const head = { name: "lm_head.weight", shape: [V, C] };
  return [{ name: "model.norm.weight", shape: [C] }, ...(tieWordEmbeddings ? [] : [head])];
}

/** Tensors of q, k, v, o with the family's biases. */
function attentionProjections(config: BackboneConfig): ParameterSpec[] {
  const { hiddenSize: C, numHeads, numKvHeads, headDim, qkvBias, oBias } = config;
  const linear = (name: string, out: number, inputs: number, bias: boolean): ParameterSpec[] => [
    { name: `${name}.weight`, shape: [out, inputs] },
    ...(bias ? [{ name: `${name}.bias`, shape: [out] }] : []),
  ];
  return [
    ...linear("q_proj", numHeads * headDim, C, qkvBias),
    ...linear("k_proj", numKvHeads * headDim, C, qkvBias),
    ...linear("v_proj", numKvHeads * headDim, C, qkvBias),
    ...linear("o_proj", C, numHeads * headDim, oBias),
  ];
}

/** Gains of the per-head norms. */
function headNormTensors({ headDim, qkNorm }: BackboneConfig): ParameterSpec[] {
  return qkNorm ? ["q_norm.weight", "k_norm.weight"].map((name) => ({ name, shape: [headDim] })) : [];
}

/** The family of a decoder, from what tells one from another. */
export function decoderFamily(variation: Pick<Family, "modelType" | "causalClass" | "parse">): Family {
  return {
    ...variation,
    layerPrefix: decoderLayerPrefix,
    attentionPrefix: "self_attn.",
    firstTensors,
    layerTensors,
    lastTensors,
    attentionTensors: (config) => [...attentionProjections(config), ...headNormTensors(config)],
    canonicalName: (name) => name,
    isBuffer: (name) => name.endsWith(".rotary_emb.inv_freq"),
    load: (weights, config) => new Decoder(weights, config),
    trainable: (ops, params, config) => new TrainableDecoder(ops, params, config),
  };
}
