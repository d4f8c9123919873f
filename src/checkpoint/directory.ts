// Writing a whole directory so that it appears complete or not at all: a temporary neighbour, flushed, then renamed.
// Also the sharded writer of weight files. Knows no architecture.
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { CheckpointError, RequestError } from "../errors.ts";
import { flush, replaceFile } from "../store/files.ts";
import { bytesOfStored, type TensorToWrite, writeSafetensors } from "./safetensors.ts";

/** Files beside the weights that belong to a model and are copied with it. */
const COMPANIONS = [
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
  "chat_template.json",
  "generation_config.json",
];

const DEFAULT_SHARD_BYTES = 5_000_000_000;

/** @throws RequestError unless a directory may be written to `target`: it does not exist or is an empty one */
export function requireFree(target: string): void {
  const present = statSync(target, { throwIfNoEntry: false });
  if (present !== undefined && !present.isDirectory()) {
    throw new RequestError("already_exists", `Cannot write the folder "${target}": a file is in the way`);
  }
  if (present !== undefined && readdirSync(target).length > 0) {
    throw new RequestError("already_exists", `Cannot write "${target}": it exists and is not empty`);
  }
}

/**
 * Calls `fill` with an empty directory and moves it to `target` when it is complete.
 * @throws RequestError if `target` exists and is not an empty directory; CheckpointError if writing fails (nothing stays).
 */
export function writeDirectory(target: string, fill: (directory: string) => void): void {
  const path = resolve(target);
  requireFree(target);
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
  rmSync(temporary, { recursive: true, force: true });
  try {
    mkdirSync(temporary, { recursive: true });
    fill(temporary);
    for (const name of readdirSync(temporary)) flush(join(temporary, name));
    flush(temporary);
    renameSync(temporary, path);
    flush(dirname(path));
  } catch (cause) {
    rmSync(temporary, { recursive: true, force: true });
    if (cause instanceof CheckpointError || cause instanceof RequestError || cause instanceof RangeError) throw cause;
    throw new CheckpointError(`Cannot write "${target}": ${(cause as Error).message}`, { cause });
  }
}

/** Writes indented JSON with a final newline over `path`. @throws CheckpointError; the old file survives any failure. */
export function writeJson(path: string, value: unknown): void {
  try {
    replaceFile(path, (sink) => sink.write(`${JSON.stringify(value, null, 2)}\n`));
  } catch (cause) {
    throw new CheckpointError(`Cannot write "${path}": ${(cause as Error).message}`, { cause });
  }
}

/** Copies tokenizer and generation files from one model directory to another, as far as they exist. */
export function copyCompanions(from: string, to: string): void {
  for (const name of COMPANIONS) {
    if (existsSync(join(from, name))) copyFileSync(join(from, name), join(to, name));
  }
}

/** Consecutive tensors in groups of at most `limit` bytes; a larger tensor has a group of its own. */
function groupBySize(tensors: readonly TensorToWrite[], limit: number): TensorToWrite[][] {
  const groups: TensorToWrite[][] = [[]];
  let used = 0;
  for (const tensor of tensors) {
    const bytes = bytesOfStored(tensor);
    if (used > 0 && used + bytes > limit) {
      groups.push([]);
      used = 0;
    }
    groups.at(-1)!.push(tensor);
    used += bytes;
  }
  return groups;
}

/** Writes model.safetensors, or shards with an index where the tensors exceed `shardBytes`. */
export function writeWeights(
  directory: string,
  tensors: readonly TensorToWrite[],
  shardBytes: number = DEFAULT_SHARD_BYTES,
): void {
  const groups = groupBySize(tensors, shardBytes);
  if (groups.length === 1) {
    writeSafetensors(join(directory, "model.safetensors"), tensors);
    return;
  }
  const number = (i: number) => String(i).padStart(5, "0");
  const map: Record<string, string> = {};
  groups.forEach((group, i) => {
    const name = `model-${number(i + 1)}-of-${number(groups.length)}.safetensors`;
    writeSafetensors(join(directory, name), group);
    for (const tensor of group) map[tensor.name] = name;
  });
  const total = tensors.reduce((sum, tensor) => sum + bytesOfStored(tensor), 0);
  writeJson(join(directory, "model.safetensors.index.json"), { metadata: { total_size: total }, weight_map: map });
}
