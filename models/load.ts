// From a checkpoint directory to a model in memory: configuration, check of every tensor, then weights. Also the training
// form of the same checkpoint, and its identity.
import { createHash } from "node:crypto";
import { CheckpointFiles } from "../src/checkpoint/checkpoint.ts";
import { bytesOfStored } from "../src/checkpoint/safetensors.ts";
import type { TensorReader } from "../src/checkpoint/tensors.ts";
import { CheckpointError } from "../src/errors.ts";
import type { Ops } from "../src/ops/ops.ts";
import { createLinearMixer } from "./attention/create.ts";
import { linearTensors } from "./attention/shape.ts";
import type { ModelConfig } from "./config.ts";
import type { LoadedModel, TrainableModel } from "./model.ts";
import { ParameterBlock, type ParameterSpec } from "./parameters.ts";
import { familyOf, readModelConfig } from "./parse_config.ts";
import { LINEAR_PREFIX } from "./train_layers.ts";
import { verifyTensors } from "./verify.ts";
import { type WeightDType, WeightLoader } from "./weights.ts";

/** How a checkpoint is loaded. */
export interface LoadOptions {
  /** How linear weights are held; default: as stored. */
  readonly dtype?: WeightDType;
  /** Longest context wanted; the rope table grows with it. Default 131,072 or what the model allows. */
  readonly maxContext?: number;
}

const DEFAULT_MAX_CONTEXT = 131_072;

/** Every tensor of a model under its canonical name, in the order of a forward pass. */
export function modelTensors(config: ModelConfig): ParameterSpec[] {
  const family = familyOf(config);
  const scoped = (prefix: string, specs: ParameterSpec[]) =>
    specs.map((spec) => ({ ...spec, name: prefix + spec.name }));
  return [
    ...family.firstTensors(config),
    ...config.linearLayers.flatMap((linear, i) => {
      const prefix = family.layerPrefix(i);
      const mixer = linear
        ? scoped(prefix + LINEAR_PREFIX, linearTensors(linear))
        : scoped(prefix + family.attentionPrefix, family.attentionTensors(config));
      return [...scoped(prefix, family.layerTensors(config)), ...mixer];
    }),
    ...family.lastTensors(config),
  ];
}

/** Names that FLA gives to the norm of a linear layer. */
const NORM_ALIAS = /\.linear_attn\.(g_norm_swish_gate|g_norm)\.weight$/;

/** @throws CheckpointError where a layer has both mixers, neither, or not the one that config.json says. */
function verifyMixers(reader: TensorReader, config: ModelConfig): void {
  const family = familyOf(config);
  const names = [...reader.names()].map((name) => family.canonicalName(name)).filter((name) => !family.isBuffer(name));
  const holds = (prefix: string) => names.some((name) => name.startsWith(prefix));
  config.linearLayers.forEach((linear, i) => {
    const prefix = family.layerPrefix(i);
    const full = holds(prefix + family.attentionPrefix);
    const other = holds(prefix + LINEAR_PREFIX);
    if (full !== other && other === (linear !== null)) return;
    const kinds = [family.attentionPrefix, LINEAR_PREFIX].map((kind) => `${prefix}${kind}*`);
    const found = full && other ? kinds.join(" and ") : full ? kinds[0] : other ? kinds[1] : "no token mixer's";
    const expected = linear ? kinds[1] : kinds[0];
    throw new CheckpointError(`Cannot load layer ${i}: it has ${found} tensors, expected ${expected} alone`);
  });
}

/** The checked tensors of a model. @throws CheckpointError naming the first one that is not as expected. */
export function verifyModel(reader: TensorReader, config: ModelConfig): TensorReader {
  const family = familyOf(config);
  const hybrid = config.linearLayers.some((linear) => linear !== null);
  if (hybrid) verifyMixers(reader, config);
  return verifyTensors(reader, modelTensors(config), {
    canonical: (name) => family.canonicalName(name).replace(NORM_ALIAS, ".linear_attn.o_norm.weight"),
    ignored: (name) => family.isBuffer(name) || (config.tieWordEmbeddings && name === "lm_head.weight"),
  });
}

/** Bytes of each tensor that enter the identity. */
const SAMPLE_BYTES = 4096;

/**
 * sha256 over the configuration's meaning and over every tensor's name, shape, dtype and first bytes. The same for a
 * checkpoint in one file or in shards; different for a fine-tuned sibling.
 */
export function identityOf(config: ModelConfig, tensors: TensorReader): string {
  const { raw: _raw, linearLayers: _linear, eosTokenIds: _eos, bosTokenId: _bos, ...meaning } = config;
  const hash = createHash("sha256").update(JSON.stringify(meaning));
  const { layerPrefix } = familyOf(config);
  const replaced = config.linearLayers.flatMap((linear, i) => (linear ? [layerPrefix(i) + LINEAR_PREFIX] : []));
  for (const name of [...tensors.names()].sort()) {
    if (replaced.some((prefix) => name.startsWith(prefix))) continue;
    const tensor = tensors.find(name)!;
    const sample = new Uint8Array(Math.min(SAMPLE_BYTES, bytesOfStored(tensor)));
    tensors.readInto(name, 0, sample);
    hash.update(`\n${name} ${tensor.dtype} [${tensor.shape}] `).update(sample);
  }
  return hash.digest("hex");
}

/** Runs `use` with the configuration and the checked tensors of a directory; closes the files afterwards. */
export function withCheckpoint<T>(directory: string, use: (config: ModelConfig, tensors: TensorReader) => T): T {
  const config = readModelConfig(directory);
  const files = new CheckpointFiles(directory);
  try {
    return use(config, verifyModel(files, config));
  } finally {
    files.close();
  }
}

function withContext(config: ModelConfig, wanted = DEFAULT_MAX_CONTEXT): ModelConfig {
  return config.rope ? { ...config, maxPositions: Math.min(config.maxPositions, wanted) } : config;
}

/** Loads a checkpoint, plain or hybrid. @throws CheckpointError before any kernel runs if it is not sound. */
export function loadModel(ops: Ops, directory: string, options: LoadOptions = {}): LoadedModel {
  return withCheckpoint(directory, (full, tensors) => {
    const config = withContext(full, options.maxContext);
    const family = familyOf(config);
    const weights = new WeightLoader(ops, tensors, options.dtype);
    const { backbone, mixers } = ops.allOrNothing(() => ({
      backbone: family.load(weights, config),
      mixers: config.linearLayers.map((shape, i) =>
        shape ? createLinearMixer(weights.scope(family.layerPrefix(i) + LINEAR_PREFIX), shape) : null,
      ),
    }));
    return {
      directory,
      config,
      backbone,
      mixers,
      layerTypes: config.linearLayers.map((shape) => (shape ? "linear_attention" : "full_attention")),
      identity: identityOf(full, tensors),
      free: () => {
        for (const mixer of mixers) mixer?.free();
        backbone.free();
      },
    };
  });
}

/** A new training form of a configuration; every parameter is zero until written. */
export function createTrainable(ops: Ops, config: ModelConfig): TrainableModel {
  return familyOf(config).trainable(ops, new ParameterBlock(ops, modelTensors(config)), config);
}

/** Loads a checkpoint for training: float32 masters of every tensor. @throws CheckpointError as loadModel. */
export function loadTrainable(
  ops: Ops,
  directory: string,
  options: Pick<LoadOptions, "maxContext"> = {},
): TrainableModel {
  return withCheckpoint(directory, (full, tensors) => {
    const model = createTrainable(ops, withContext(full, options.maxContext));
    for (const name of model.params.names()) model.params.write(name, tensors.float32(name));
    return model;
  });
}
