// What a backbone family brings: how it reads config.json, which tensors it expects, and how it is built.
import type { ConfigFields } from "../src/checkpoint/hf_config.ts";
import type { Ops } from "../src/ops/ops.ts";
import type { Architecture, ModelConfig } from "./config.ts";
import type { Backbone, TrainableModel } from "./model.ts";
import type { ParameterSet, ParameterSpec } from "./parameters.ts";
import type { WeightLoader } from "./weights.ts";

/** A family's part of the configuration: all but what hybrids and the tokenizer add. */
export type BackboneConfig = Omit<ModelConfig, "linearLayers" | "bosTokenId" | "eosTokenIds" | "raw">;

/** One backbone family. */
export interface Family {
  readonly modelType: Architecture;
  /** The class that `architectures` names, where it names one. */
  readonly causalClass: string;
  /** @throws CheckpointError naming the field that cannot be used. */
  parse(fields: ConfigFields): BackboneConfig;
  /** Prefix of a layer's tensors, with the dot. */
  layerPrefix(layer: number): string;
  /** Prefix of the softmax attention inside a layer, with the dot. */
  readonly attentionPrefix: string;
  /** Tensors before the layers, of one layer without its token mixer (names without prefix), and after the layers. */
  firstTensors(config: BackboneConfig): ParameterSpec[];
  layerTensors(config: BackboneConfig): ParameterSpec[];
  lastTensors(config: BackboneConfig): ParameterSpec[];
  /** Tensors of one softmax attention, without prefix. */
  attentionTensors(config: BackboneConfig): ParameterSpec[];
  /** Translates stored names to the expected ones. */
  canonicalName(name: string): string;
  /** Buffers that checkpoints may carry and nothing reads. */
  isBuffer(name: string): boolean;
  load(weights: WeightLoader, config: ModelConfig): Backbone;
  /** @param params every tensor of the model, linear layers included. */
  trainable(ops: Ops, params: ParameterSet, config: ModelConfig): TrainableModel;
}
