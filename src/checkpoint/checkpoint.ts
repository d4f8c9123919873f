// The weight files of a checkpoint directory, one or sharded, as one set of tensors. Trusts neither the index nor the file
// names in it. Knows no architecture.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { describe, printable, readJsonObject } from "./hf_config.ts";
import { SafetensorsFile } from "./safetensors.ts";
import type { StoredTensor, TensorReader } from "./tensors.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
/** The largest published checkpoints have a few hundred shards. */
const MAX_SHARDS = 4096;
/** A plain file name: no folder, no parent, nothing hidden. */
const SHARD_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.safetensors$/;

/** The opened weight files of one directory. Close it when done. */
export class CheckpointFiles implements TensorReader {
  readonly directory: string;
  readonly #files: readonly SafetensorsFile[];
  readonly #owner: ReadonlyMap<string, SafetensorsFile>;

  /** @throws CheckpointError if there are no weights, or the index and the shards contradict each other. */
  constructor(directory: string) {
    this.directory = directory;
    const files: SafetensorsFile[] = [];
    try {
      this.#owner = existsSync(join(directory, SINGLE)) ? openSingle(directory, files) : openShards(directory, files);
    } catch (error) {
      for (const file of files) file.close();
      throw error;
    }
    this.#files = files;
  }

  names(): Iterable<string> {
    return this.#owner.keys();
  }

  find(name: string): StoredTensor | undefined {
    return this.#owner.get(name)?.entries.get(name);
  }

  readInto(name: string, offset: number, out: Uint8Array): void {
    this.#fileOf(name).readInto(name, offset, out);
  }

  float32(name: string): Float32Array {
    return this.#fileOf(name).float32(name);
  }

  close(): void {
    for (const file of this.#files) file.close();
  }

  #fileOf(name: string): SafetensorsFile {
    const file = this.#owner.get(name);
    if (!file) throw new CheckpointError(`Cannot find tensor "${name}" in "${this.directory}"`);
    return file;
  }
}

function openSingle(directory: string, files: SafetensorsFile[]): Map<string, SafetensorsFile> {
  const file = new SafetensorsFile(join(directory, SINGLE));
  files.push(file);
  return new Map([...file.entries.keys()].map((name) => [name, file]));
}

/** The index's map from tensor to shard. @throws CheckpointError for anything but plain file names. */
function readWeightMap(path: string): Map<string, string> {
  const { weight_map: map } = readJsonObject(path);
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new CheckpointError(`Cannot use "${path}": weight_map is ${describe(map)}, expected an object`);
  }
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || !SHARD_NAME.test(shard)) {
      const where = `weight_map["${printable(name)}"] is ${describe(shard)}`;
      throw new CheckpointError(`Cannot use "${path}": ${where}, expected the name of a .safetensors file beside it`);
    }
  }
  return new Map(Object.entries(map as Record<string, string>));
}

function openShards(directory: string, files: SafetensorsFile[]): Map<string, SafetensorsFile> {
  const index = join(directory, INDEX);
  if (!existsSync(index)) {
    const old = existsSync(join(directory, "pytorch_model.bin")) ? " (pytorch_model.bin is not supported)" : "";
    throw new CheckpointError(`Cannot find weights: "${directory}" has neither ${SINGLE} nor ${INDEX}${old}`);
  }
  const map = readWeightMap(index);
  const shards = [...new Set(map.values())].sort();
  if (shards.length > MAX_SHARDS) {
    throw new CheckpointError(
      `Cannot use "${index}": it names ${shards.length} shards, expected at most ${MAX_SHARDS}`,
    );
  }
  const owner = new Map<string, SafetensorsFile>();
  for (const shard of shards) {
    const file = new SafetensorsFile(join(directory, shard));
    files.push(file);
    for (const name of file.entries.keys()) {
      const listed = map.get(name);
      if (listed !== shard) {
        const said = listed === undefined ? "does not list it" : `places it in "${listed}"`;
        throw new CheckpointError(`Cannot load tensor "${printable(name)}": "${shard}" holds it, but ${INDEX} ${said}`);
      }
      owner.set(name, file);
    }
  }
  for (const [name, shard] of map) {
    if (!owner.has(name)) {
      throw new CheckpointError(
        `Cannot load tensor "${printable(name)}": ${INDEX} places it in "${shard}", which lacks it`,
      );
    }
  }
  return owner;
}
