// Writes a stand-alone hybrid as a Hugging Face directory, from a backbone and pools (layers.md section 11).
import { join } from "node:path";
import { copyCompanions, writeDirectory, writeJson, writeWeights } from "../src/checkpoint/directory.ts";
import type { JsonObject } from "../src/checkpoint/hf_config.ts";
import { bytesOfStored, type TensorToWrite } from "../src/checkpoint/safetensors.ts";
import type { TensorReader } from "../src/checkpoint/tensors.ts";
import { RequestError } from "../src/errors.ts";
import type { LinearShape, Variant } from "./attention/mixer.ts";
import type { ModelConfig } from "./config.ts";
import { identityOf, modelTensors, withCheckpoint } from "./load.ts";
import type { ParameterSpec } from "./parameters.ts";
import { familyOf, HYBRID_CLASS, HYBRID_MODEL_TYPE, linearKeys } from "./parse_config.ts";
import { type PoolInfo, requireSameBackbone, withPool } from "./pool.ts";
import { LINEAR_PREFIX } from "./train_layers.ts";

/** What a stand-alone hybrid is made of. */
export interface HybridExport {
  readonly modelDirectory: string;
  /** Directory of the pool of every variant that `layers` names. */
  readonly pools: ReadonlyMap<Variant, string>;
  /** Variant per layer; null = the backbone's own full attention. */
  readonly layers: readonly (Variant | null)[];
  readonly outDirectory: string;
  /** Stored as the `graft` object of config.json: task, metric, order of replacement. */
  readonly notes?: JsonObject;
  /** Bytes per weight file; default 5 GB. */
  readonly shardBytes?: number;
}

interface OpenPool {
  readonly info: PoolInfo;
  readonly tensors: TensorReader;
}

/** Runs `use` with all pools open. */
function withPools<T>(
  pools: readonly (readonly [Variant, string])[],
  use: (open: ReadonlyMap<Variant, OpenPool>) => T,
  opened: ReadonlyMap<Variant, OpenPool> = new Map(),
): T {
  const [first, ...rest] = pools;
  if (!first) return use(opened);
  const [variant, directory] = first;
  return withPool(directory, (info, tensors) =>
    withPools(rest, use, new Map([...opened, [variant, { info, tensors }]])),
  );
}

/** One value for all linear layers where they agree, else a list with null in full layers. */
function mergedKeys(layers: readonly (LinearShape | null)[]): JsonObject {
  const keys = layers.map((shape) => (shape ? linearKeys(shape) : null));
  const first = keys.find((k) => k !== null);
  if (!first) return {};
  const merged: Record<string, unknown> = {};
  for (const name of Object.keys(first)) {
    const values = keys.map((k) => k?.[name] ?? null);
    const agree = values.every((value, i) => keys[i] === null || value === first[name]);
    merged[name] = agree ? first[name] : values;
  }
  return merged;
}

/** config.json of a hybrid over the source config. */
export function hybridConfig(
  config: ModelConfig,
  layers: readonly (LinearShape | null)[],
  notes: JsonObject,
): JsonObject {
  return {
    ...config.raw,
    architectures: [HYBRID_CLASS],
    model_type: HYBRID_MODEL_TYPE,
    base_model_type: config.architecture,
    layer_types: layers.map((shape) => (shape ? "linear_attention" : "full_attention")),
    ...mergedKeys(layers),
    graft: notes,
  };
}

function stored(reader: TensorReader, name: string, as: ParameterSpec): TensorToWrite {
  const tensor = { name: as.name, dtype: reader.find(name)!.dtype, shape: as.shape };
  return {
    ...tensor,
    bytes: () => {
      const out = new Uint8Array(bytesOfStored(tensor));
      reader.readInto(name, 0, out);
      return out;
    },
  };
}

function requireLayers({ layers, pools }: HybridExport, config: ModelConfig): void {
  const fail = (reason: string): never => {
    throw new RequestError("invalid_hybrid", `Cannot export: ${reason}`);
  };
  if (config.linearLayers.some((shape) => shape !== null)) fail("the model is a hybrid already");
  if (layers.length !== config.numLayers) fail(`${layers.length} layers named, the model has ${config.numLayers}`);
  for (const variant of layers) {
    if (variant && !pools.has(variant)) fail(`a layer uses ${variant}, but no pool of that variant is given`);
  }
}

function requirePool(variant: Variant, pool: OpenPool, directory: string, config: ModelConfig, identity: string): void {
  requireSameBackbone({ directory, backbone: pool.info.backbone }, identity);
  if (pool.info.shape.variant !== variant || pool.info.numLayers !== config.numLayers) {
    const found = `${pool.info.numLayers} layers of ${pool.info.shape.variant}`;
    throw new RequestError("invalid_pool", `Cannot use pool "${directory}": it holds ${found}, expected ${variant}`);
  }
}

/**
 * Writes a stand-alone hybrid that loadModel() reads back to the same logits.
 * @throws RequestError if layers and pools do not fit the model or the directory is taken; CheckpointError if a file is
 * not sound or the disk refuses. Nothing half-written stays.
 */
export function exportHybrid(request: HybridExport): void {
  withCheckpoint(request.modelDirectory, (config, tensors) => {
    requireLayers(request, config);
    const identity = identityOf(config, tensors);
    const used = [...request.pools].filter(([variant]) => request.layers.includes(variant));
    withPools(used, (pools) => {
      for (const [variant, directory] of used) requirePool(variant, pools.get(variant)!, directory, config, identity);
      const linearLayers = request.layers.map((variant) => (variant ? pools.get(variant)!.info.shape : null));
      const { layerPrefix } = familyOf(config);
      const weights = modelTensors({ ...config, linearLayers }).map((spec) => {
        const layer = request.layers.findIndex((_, i) => spec.name.startsWith(layerPrefix(i) + LINEAR_PREFIX));
        if (layer < 0) return stored(tensors, spec.name, spec);
        const name = spec.name.slice(layerPrefix(layer).length + LINEAR_PREFIX.length);
        return stored(pools.get(request.layers[layer]!)!.tensors, `linear.${layer}.${name}`, spec);
      });
      writeDirectory(request.outDirectory, (directory) => {
        writeJson(join(directory, "config.json"), hybridConfig(config, linearLayers, request.notes ?? {}));
        writeWeights(directory, weights, request.shardBytes);
        copyCompanions(request.modelDirectory, directory);
      });
    });
  });
}
