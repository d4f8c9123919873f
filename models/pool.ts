// A pool: one linear counterpart per layer of a backbone, all of one variant and shape. On disk a directory with pool.json
// and linear.safetensors (tensors `linear.{i}.<name>`). Knows nothing of how the weights were trained.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { writeJson } from "../src/checkpoint/directory.ts";
import { ConfigFields, type JsonObject, readJsonObject } from "../src/checkpoint/hf_config.ts";
import { SafetensorsFile, writeSafetensors } from "../src/checkpoint/safetensors.ts";
import type { TensorReader } from "../src/checkpoint/tensors.ts";
import { CheckpointError } from "../src/errors.ts";
import type { Ops } from "../src/ops/ops.ts";
import { createLinearMixer } from "./attention/create.ts";
import type { LinearShape } from "./attention/mixer.ts";
import { linearTensors } from "./attention/shape.ts";
import { Counterpart } from "./counterpart.ts";
import { HIDDEN, LAYERS } from "./limits.ts";
import type { LinearPool } from "./model.ts";
import type { ParameterSpec } from "./parameters.ts";
import { linearKeys, parseLinearShape } from "./parse_config.ts";
import { verifyTensors } from "./verify.ts";
import { type WeightDType, WeightLoader } from "./weights.ts";

const DESCRIPTION = "pool.json";
/** Tensors of a pool. */
export const POOL_WEIGHTS = "linear.safetensors";
const VERSION = 1;
/** Of each tensor's first bytes pool.json keeps a hash: training changes them all. */
const SAMPLE_BYTES = 256;

/** What pool.json says. */
export interface PoolInfo {
  readonly shape: LinearShape;
  readonly numLayers: number;
  /** Identity of the backbone, see identityOf(). */
  readonly backbone: string;
  /** Free for the maker: errors per layer, recipe, tokens. */
  readonly details: JsonObject;
}

/** What pool.json says once it is written. */
export interface StoredPoolInfo extends PoolInfo {
  /** Hash over the beginnings of the weights; null in a pool of an earlier version. */
  readonly sample: string | null;
}

/** Tensors of all layers of a pool. */
export function poolTensors({ shape, numLayers }: Pick<PoolInfo, "shape" | "numLayers">): ParameterSpec[] {
  const layer = linearTensors(shape);
  return Array.from({ length: numLayers }, (_, i) =>
    layer.map((spec) => ({ ...spec, name: `linear.${i}.${spec.name}` })),
  ).flat();
}

/**
 * Writes a pool; `values` yields a tensor's values by its full name, one at a time.
 * @throws CheckpointError if the disk refuses; an earlier pool there survives.
 */
export function savePool(directory: string, info: PoolInfo, values: (name: string) => Float32Array): void {
  const sample = createHash("sha256");
  const tensors = poolTensors(info).map(({ name, shape }) => ({
    name,
    shape,
    dtype: "F32" as const,
    bytes: () => {
      const array = values(name);
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      sample.update(bytes.subarray(0, SAMPLE_BYTES));
      return bytes;
    },
  }));
  writeSafetensors(join(directory, POOL_WEIGHTS), tensors, { backbone: info.backbone });
  writeJson(join(directory, DESCRIPTION), {
    format: "graft_pool",
    version: VERSION,
    backbone: info.backbone,
    num_layers: info.numLayers,
    hidden_size: info.shape.hiddenSize,
    shape: linearKeys(info.shape),
    details: info.details,
    weights_sample: sample.digest("hex"),
  });
}

/** @throws CheckpointError naming the field that cannot be used. */
export function readPoolInfo(directory: string): StoredPoolInfo {
  const path = join(directory, DESCRIPTION);
  const raw = readJsonObject(path);
  if (raw.format !== "graft_pool" || raw.version !== VERSION || typeof raw.backbone !== "string") {
    throw new CheckpointError(`Cannot use "${path}": it is no description of a pool (version ${VERSION})`);
  }
  try {
    const fields = new ConfigFields(raw);
    const hiddenSize = fields.integer("hidden_size", HIDDEN);
    const shape = fields.object("shape") ?? fields.refuse("shape", "an object");
    return {
      shape: parseLinearShape(shape.values, hiddenSize),
      numLayers: fields.integer("num_layers", LAYERS),
      backbone: raw.backbone,
      details: fields.object("details")?.values ?? {},
      sample: typeof raw.weights_sample === "string" ? raw.weights_sample : null,
    };
  } catch (cause) {
    if (!(cause instanceof CheckpointError)) throw cause;
    throw new CheckpointError(cause.message.replace("config.json", `"${path}"`), { cause });
  }
}

/** Whether weights and description of a pool are of the same conversion. @throws CheckpointError where one is damaged */
export function isWholePool(directory: string): boolean {
  if (!existsSync(join(directory, POOL_WEIGHTS))) return false;
  const info = readPoolInfo(directory);
  const file = new SafetensorsFile(join(directory, POOL_WEIGHTS));
  try {
    return belongTogether(info, verifyTensors(file, poolTensors(info)));
  } finally {
    file.close();
  }
}

/** Killed while it replaces a pool, a process may leave new weights beside the old description, which knows other ones. */
function belongTogether(info: StoredPoolInfo, tensors: TensorReader): boolean {
  if (info.sample === null) return true;
  const sample = createHash("sha256");
  for (const { name, shape } of poolTensors(info)) {
    const head = new Uint8Array(
      Math.min(
        SAMPLE_BYTES,
        shape.reduce((bytes, size) => bytes * size, 4),
      ),
    );
    tensors.readInto(name, 0, head);
    sample.update(head);
  }
  return sample.digest("hex") === info.sample;
}

/** Runs `use` with the description and the checked tensors of a pool; closes the file afterwards. */
export function withPool<T>(directory: string, use: (info: PoolInfo, tensors: TensorReader) => T): T {
  const { file, info, tensors } = openChecked(directory);
  try {
    return use(info, tensors);
  } finally {
    file.close();
  }
}

function openChecked(directory: string) {
  const info = readPoolInfo(directory);
  const file = new SafetensorsFile(join(directory, POOL_WEIGHTS));
  try {
    const tensors = verifyTensors(file, poolTensors(info));
    if (belongTogether(info, tensors)) return { file, info, tensors };
    throw new CheckpointError(
      `Cannot use pool "${directory}": ${POOL_WEIGHTS} and ${DESCRIPTION} are of different conversions; convert again`,
    );
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Loads every counterpart of a pool. @throws CheckpointError if the pool is not sound. */
export function loadPool(ops: Ops, directory: string, options: { readonly dtype?: WeightDType } = {}): LinearPool {
  return withPool(directory, ({ shape, numLayers, backbone }, tensors) => {
    const weights = new WeightLoader(ops, tensors, options.dtype);
    const mixers = ops.allOrNothing(() =>
      Array.from({ length: numLayers }, (_, i) => createLinearMixer(weights.scope(`linear.${i}.`), shape)),
    );
    const free = () => {
      for (const mixer of mixers) mixer.free();
    };
    return { directory, variant: shape.variant, shape, mixers, backbone, free };
  });
}

/**
 * Opens a pool without reading its weights: each counterpart is a LoadableMixer. The file stays open, so that a pool
 * converted anew does not mix with this one. @throws CheckpointError if the pool is not sound
 */
export function openPool(ops: Ops, directory: string, options: { readonly dtype?: WeightDType } = {}): LinearPool {
  const { file, info, tensors } = openChecked(directory);
  const { shape, numLayers, backbone } = info;
  const source = { ops, directory, shape, file, tensors, dtype: options.dtype };
  const mixers = Array.from({ length: numLayers }, (_, layer) => new Counterpart(source, layer));
  const free = () => {
    for (const mixer of mixers) mixer.unload();
    file.close();
  };
  return { directory, variant: shape.variant, shape, mixers, backbone, stamp: file.stamp, free };
}

/** @throws CheckpointError unless the pool was made for the backbone. */
export function requireSameBackbone(pool: { directory: string; backbone: string }, identity: string): void {
  if (pool.backbone === identity) return;
  const [found, wanted] = [pool.backbone.slice(0, 12), identity.slice(0, 12)];
  throw new CheckpointError(
    `Cannot use pool "${pool.directory}": it was made for backbone ${found}, expected ${wanted}`,
  );
}
