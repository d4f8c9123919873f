// The pools that a conversion writes: what their description says of how they were made, and whether a folder already holds
// the very pool that is asked for.
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import type { LoadedModel } from "../../models/model.ts";
import { isWholePool, readPoolInfo, savePool } from "../../models/pool.ts";
import { CheckpointError } from "../errors.ts";
import { type RunSettings, settingsDifference } from "../train/checkpoint.ts";
import type { Student } from "./student.ts";

/** Held-out error of all layers and variants after a number of steps. */
export interface Mark {
  readonly step: number;
  readonly tokens: number;
  /** [layer][variant] */
  readonly unexplained: number[][];
}

/** The `details` of pool.json. */
export interface PoolDetails {
  readonly tokens: number;
  readonly seconds: number;
  /** Held-out unexplained variance per layer at the end; null where nothing was held out. */
  readonly unexplained: readonly number[] | null;
  /** The same along the way, the start first. */
  readonly history: readonly { readonly tokens: number; readonly unexplained: readonly number[] }[];
  /** Everything that the weights depend on. */
  readonly recipe: RunSettings;
  readonly source: string;
}

/** A pool on disk and how it was made. */
export interface PoolSummary extends PoolDetails {
  readonly variant: Variant;
  readonly folder: string;
}

/** Writes one variant's pool. @throws CheckpointError where the disk refuses */
export function writePool(
  folder: string,
  students: readonly Student[],
  model: LoadedModel,
  details: Omit<PoolDetails, "source" | "unexplained">,
): PoolSummary {
  mkdirSync(folder, { recursive: true });
  const { shape, variant } = students[0]!;
  const complete = { ...details, unexplained: details.history.at(-1)?.unexplained ?? null, source: model.directory };
  const info = { shape, numLayers: students.length, backbone: model.identity, details: { ...complete } };
  savePool(folder, info, (name) => {
    const [, layer, parameter] = /^linear\.(\d+)\.(.+)$/.exec(name)!;
    return students[Number(layer)]!.mixer.params.read(parameter!);
  });
  return { ...complete, variant, folder };
}

/**
 * The pool in a folder if it is whole and was made with these settings, null if there is none.
 * @throws CheckpointError if it was made with other settings or cannot be read
 */
export function finishedPool(folder: string, settings: RunSettings): PoolSummary | null {
  if (!existsSync(join(folder, "pool.json")) || !isWholePool(folder)) return null;
  const { shape, details } = readPoolInfo(folder);
  const stored = details as unknown as PoolDetails;
  const difference = settingsDifference(stored.recipe ?? {}, settings);
  if (difference !== null) {
    const { key, before, now } = difference;
    throw new CheckpointError(
      `Cannot convert into "${folder}": it holds a pool whose ${key} is ${before}, now it is ${now}; ` +
        "use --restart to replace it or another --out",
    );
  }
  return { ...stored, variant: shape.variant, folder };
}
