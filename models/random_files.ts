// Writes models and pools with random weights as the directories that a download and a conversion leave, so that everything
// that takes a folder can be measured before there is one. Loads nothing.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { writeDirectory, writeJson, writeWeights } from "../src/checkpoint/directory.ts";
import { bytesOfStored, widenBf16 } from "../src/checkpoint/safetensors.ts";
import type { TensorReader } from "../src/checkpoint/tensors.ts";
import type { Variant } from "./attention/mixer.ts";
import { linearShapeFor } from "./attention/shape.ts";
import type { ModelConfig } from "./config.ts";
import { identityOf, withCheckpoint } from "./load.ts";
import { savePool } from "./pool.ts";
import { randomBackbone, randomCounterparts } from "./random_tensors.ts";

/**
 * Writes config.json and weights; no tokenizer, so the model speaks token ids.
 * @throws RequestError if the directory is taken, CheckpointError if the disk refuses
 */
export function writeRandomModel(directory: string, config: ModelConfig, seed = 1): void {
  const tensors = randomBackbone(config, seed);
  const weights = [...tensors.names()].map((name) => {
    const { dtype, shape } = tensors.find(name)!;
    return { name, dtype, shape, bytes: () => bytesOf(tensors, name) };
  });
  writeDirectory(directory, (temporary) => {
    writeJson(join(temporary, "config.json"), config.raw);
    writeWeights(temporary, weights);
  });
}

/** Writes counterparts of every layer of the model in `modelDirectory`. @throws CheckpointError */
export function writeRandomPool(directory: string, modelDirectory: string, variant: Variant, seed = 1): void {
  const { config, backbone } = withCheckpoint(modelDirectory, (config, tensors) => {
    return { config, backbone: identityOf(config, tensors) };
  });
  const { numLayers } = config;
  const shape = linearShapeFor(config, variant);
  const tensors = randomCounterparts(shape, numLayers, seed);
  const values = (name: string) => {
    if (tensors.find(name)!.dtype !== "BF16") return tensors.float32(name);
    return widenBf16(new Uint16Array(bytesOf(tensors, name).buffer));
  };
  mkdirSync(directory, { recursive: true });
  savePool(directory, { shape, numLayers, backbone, details: { random_weights: true, seed } }, values);
}

function bytesOf(tensors: TensorReader, name: string): Uint8Array<ArrayBuffer> {
  const stored = tensors.find(name)!;
  if (stored.dtype === "F32") return new Uint8Array(tensors.float32(name).buffer as ArrayBuffer);
  const bytes = new Uint8Array(bytesOfStored(stored));
  tensors.readInto(name, 0, bytes);
  return bytes;
}
