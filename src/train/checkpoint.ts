// Exact checkpoints of a training run: named float32 tensors and a small JSON state in one safetensors file, written
// beside and renamed, the last two kept. Knows neither what is trained nor how.
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { SafetensorsFile, writeSafetensors } from "../checkpoint/safetensors.ts";
import { CheckpointError } from "../errors.ts";
import type { Ops } from "../ops/ops.ts";
import { bytesOf, type Tensor } from "../tensor/tensor.ts";

/** JSON values that describe the run; a checkpoint of other settings is not resumed from. */
export type RunSettings = Readonly<Record<string, unknown>>;

/** Where the run stands: whatever, besides the tensors, the next step depends on. */
export interface RunState {
  readonly step: number;
  readonly [key: string]: unknown;
}

const PATTERN = /^checkpoint\.(\d{10})\.safetensors$/;
const KEPT = 2;

/** Writes the state of a run after `state.step` steps. The previous checkpoint survives any failure. */
export function saveCheckpoint(
  ops: Ops,
  folder: string,
  tensors: ReadonlyMap<string, Tensor>,
  settings: RunSettings,
  state: RunState,
): void {
  const name = `checkpoint.${String(state.step).padStart(10, "0")}.safetensors`;
  const entries = [...tensors].map(([tensorName, tensor]) => ({
    name: tensorName,
    dtype: "F32" as const,
    shape: tensor.shape,
    bytes: () => {
      const bytes = new Uint8Array(bytesOf(tensor));
      ops.download(tensor, bytes);
      return bytes;
    },
  }));
  writeSafetensors(join(folder, name), entries, { settings: JSON.stringify(settings), state: JSON.stringify(state) });
  for (const old of checkpointFiles(folder).slice(KEPT)) rmSync(join(folder, old), { force: true });
}

/**
 * Restores the newest checkpoint that can be read into the tensors, or returns null where there is none. A damaged one
 * is passed over for the one before.
 * @throws CheckpointError if it was made with other settings or for other tensors
 */
export function restoreCheckpoint(
  ops: Ops,
  folder: string,
  tensors: ReadonlyMap<string, Tensor>,
  settings: RunSettings,
): RunState | null {
  for (const name of checkpointFiles(folder)) {
    const path = join(folder, name);
    let file: SafetensorsFile;
    try {
      file = new SafetensorsFile(path);
    } catch (error) {
      if (error instanceof CheckpointError) continue;
      throw error;
    }
    try {
      checkSettings(path, file.metadata.settings, settings);
      const state = JSON.parse(file.metadata.state ?? "null") as RunState | null;
      if (state === null) throw new CheckpointError(`Cannot resume from "${path}": it holds no state`);
      restoreTensors(ops, file, tensors);
      return state;
    } finally {
      file.close();
    }
  }
  return null;
}

/** Deletes the checkpoints of a finished run and what a killed one left half written. */
export function removeCheckpoints(folder: string): void {
  for (const name of checkpointFiles(folder)) rmSync(join(folder, name), { force: true });
  removeTemporaries(folder);
}

/** Deletes checkpoints and pools that a killed process left half written. */
export function removeTemporaries(folder: string): void {
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder)) {
    if (/^(checkpoint\.\d{10}|linear)\.safetensors\..*tmp$|^pool\.json\..*tmp$/.test(name))
      rmSync(join(folder, name), { force: true });
  }
}

/** Whether a run was interrupted here. */
export function hasCheckpoint(folder: string): boolean {
  return checkpointFiles(folder).length > 0;
}

/** Newest first. */
function checkpointFiles(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => PATTERN.test(name))
    .sort()
    .reverse();
}

function checkSettings(path: string, stored: string | undefined, settings: RunSettings): void {
  const difference = settingsDifference(JSON.parse(stored ?? "{}") as RunSettings, settings);
  if (difference === null) return;
  const { key, before, now } = difference;
  throw new CheckpointError(
    `Cannot resume from "${path}": ${key} was ${before}, now it is ${now}; start over with --restart or another --out`,
  );
}

/** The first setting in which a stored run and this one differ, as JSON; null where they agree. */
export function settingsDifference(stored: RunSettings, current: RunSettings) {
  const settled = JSON.parse(JSON.stringify(current)) as RunSettings;
  for (const key of new Set([...Object.keys(stored), ...Object.keys(settled)])) {
    const [before, now] = [JSON.stringify(stored[key]), JSON.stringify(settled[key])];
    if (before !== now) return { key, before, now };
  }
  return null;
}

function restoreTensors(ops: Ops, file: SafetensorsFile, tensors: ReadonlyMap<string, Tensor>): void {
  for (const [name, tensor] of tensors) {
    const { shape } = file.get(name);
    if (shape.join() !== tensor.shape.join()) {
      throw new CheckpointError(
        `Cannot resume from "${file.path}": tensor "${name}" is [${shape}], expected [${tensor.shape}]`,
      );
    }
    ops.upload(tensor, file.bytes(name));
  }
}
