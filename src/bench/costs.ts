// What a model costs by arithmetic: parameters, bytes that a decode step must read, multiply-adds of a prefill. Measured
// rates become shares of the machine's limits by these numbers. Measures nothing.
import type { LinearShape, StateSpec, TokenMixer } from "../../models/attention/mixer.ts";
import { linearTensors } from "../../models/attention/shape.ts";
import type { ModelConfig } from "../../models/config.ts";
import { modelTensors } from "../../models/load.ts";
import type { LoadedModel } from "../../models/model.ts";
import type { ParameterSpec } from "../../models/parameters.ts";
import { familyOf } from "../../models/parse_config.ts";
import type { StateDtype } from "../ops/ops.ts";

/** One layer's token mixer as loaded; `shape` is null for full attention. */
export interface LayerMixer {
  readonly mixer: TokenMixer;
  readonly shape: LinearShape | null;
}

export interface ModelCosts {
  /** Parameters of the backbone with these mixers; tied embeddings count once. */
  readonly numParams: number;
  /** Bytes of linear weights in memory. */
  readonly weightBytes: number;
  /** Of those, the bytes that every step reads: all but an embedding table that is not also the head. */
  readonly readBytes: number;
  /** k and v of one token of one sequence, in all full-attention layers. */
  readonly kvBytesPerToken: number;
  /** Recurrent and convolution states of one sequence, in all linear layers. */
  readonly stateBytes: number;
  /** The recurrent matrices alone: what a textbook step reads once and writes once. */
  readonly matrixBytes: number;
  /** Of the states of one sequence, what a step moves on average over a block of tokens. */
  readonly stateTraffic: number;
  /** Floating-point operations of prompts of `T` tokens each, the head for the last token of each only. */
  prefillFlops(numSequences: number, T: number): number;
}

/** Types of what a sequence keeps. */
export interface CacheTypes {
  readonly kvDtype: "f32" | "bf16";
  readonly stateDtype: StateDtype;
}

/** @param mixers one per layer, the model's own or a pool's */
export function costsOf(model: LoadedModel, mixers: readonly LayerMixer[], types: CacheTypes): ModelCosts {
  const { config, backbone } = model;
  const own = config.linearLayers.map((linear, i) => (linear ? null : backbone.fullAttention(i)));
  const aroundMixers = backbone.weightBytes() - sum(own.map((mixer) => mixer?.weightBytes() ?? 0));
  const weightBytes = aroundMixers + sum(mixers.map(({ mixer }) => mixer.weightBytes()));
  const specs = mixers.map(({ mixer }) => mixer.stateSpec());
  const perToken = sum(mixers.map(({ shape }) => mixerFlops(config, shape))) + layerFlops(config);
  const headFlops = 2 * config.vocabSize * config.hiddenSize;
  const numFull = mixers.filter(({ shape }) => shape === null).length;
  // Token t sees t + 1 keys: q·k and p·v, two operations each per channel.
  const attention = (T: number) => numFull * 4 * config.numHeads * config.headDim * ((T * (T + 1)) / 2);
  return {
    numParams: paramsOf(config, mixers),
    weightBytes,
    readBytes: weightBytes - (config.tieWordEmbeddings ? 0 : embeddingBytes(config, weightBytes)),
    kvBytesPerToken: sum(specs.map((spec) => spec.kvBytesPerToken[types.kvDtype])),
    stateBytes: 4 * sum(specs.map((spec) => spec.recurrentFloats[types.stateDtype] + spec.convFloats)),
    matrixBytes: sum(mixers.map(({ shape }) => matrixBytes(shape, types))),
    stateTraffic: sum(mixers.map(({ shape }, i) => stateTraffic(shape, specs[i]!, types))),
    prefillFlops: (numSequences, T) => numSequences * (T * perToken + attention(T) + headFlops),
  };
}

/** Dk x Dv of every state of one layer. */
function matrixBytes(shape: LinearShape | null, { stateDtype }: CacheTypes): number {
  if (shape === null) return 0;
  const heads = shape.variant === "gla" ? shape.numKeyHeads : shape.numValueHeads;
  return heads * shape.keyHeadDim * shape.valueHeadDim * (stateDtype === "f32" ? 4 : 2);
}

/**
 * A step reads the matrices and those rows of the block that have come so far, on average half of them; it writes one row,
 * and the matrices once per block; windows of convolutions are read and written.
 */
function stateTraffic(shape: LinearShape | null, spec: StateSpec, types: CacheTypes): number {
  if (shape === null) return 0;
  const matrices = matrixBytes(shape, types);
  const rows = 4 * spec.recurrentFloats[types.stateDtype] - matrices;
  const { block } = shape;
  return matrices * (1 + 1 / block) + (rows * (block + 1)) / (2 * block) + 8 * spec.convFloats;
}

/** Parameters of a configuration. */
export function configParams(config: ModelConfig): number {
  return sum(modelTensors(config).map(elements));
}

function paramsOf(config: ModelConfig, mixers: readonly LayerMixer[]): number {
  const size = (shape: LinearShape | null) => sum(mixerTensors(config, shape).map(elements));
  return configParams(config) + sum(mixers.map(({ shape }, i) => size(shape) - size(config.linearLayers[i]!)));
}

/** Bytes of the embedding table, whose elements are as wide as the other weights'. */
function embeddingBytes(config: ModelConfig, weightBytes: number): number {
  const width = weightBytes / configParams(config) < 3 ? 2 : 4;
  return config.vocabSize * config.hiddenSize * width;
}

function mixerTensors(config: ModelConfig, shape: LinearShape | null): ParameterSpec[] {
  return shape ? linearTensors(shape) : familyOf(config).attentionTensors(config);
}

/** Per token, of the projections and, in linear layers, of the state. */
function mixerFlops(config: ModelConfig, shape: LinearShape | null): number {
  const projections = 2 * sum(mixerTensors(config, shape).filter(isMatrix).map(elements));
  if (shape === null) return projections;
  const { variant, numQueryHeads, numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim } = shape;
  // gla writes k vᵀ and reads with q; the delta rule also reads with k before it writes.
  const passes = variant === "gla" ? numKeyHeads + numQueryHeads : 3 * numValueHeads;
  return projections + 2 * passes * keyHeadDim * valueHeadDim;
}

function layerFlops(config: ModelConfig): number {
  const tensors = familyOf(config).layerTensors(config);
  return 2 * config.numLayers * sum(tensors.filter(isMatrix).map(elements));
}

function isMatrix({ shape }: ParameterSpec): boolean {
  return shape.length === 2;
}

function elements({ shape }: ParameterSpec): number {
  return shape.reduce((a, b) => a * b, 1);
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
