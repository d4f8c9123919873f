// What every part of the comparison with the independent PyTorch run needs: models, rows, engines, the reference's figures.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import { loadModel } from "../../models/load.ts";
import type { LoadedModel } from "../../models/model.ts";
import { loadPool } from "../../models/pool.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { Ops } from "../../src/ops/ops.ts";

export const VARIANTS: readonly Variant[] = ["gla", "gdn", "jet"];

export interface Setting {
  readonly ops: Ops;
  /** Folder of the real data. */
  readonly data: string;
  /** Where pools are made. */
  readonly work: string;
  readonly reference: Reference;
  readonly log: (line: string) => void;
}

/** The parts of dtr_reference.json that are compared. */
export interface Reference {
  readonly distillation: Readonly<
    Record<string, { readonly rows_begin_with_bos: Readonly<Record<string, ReferenceRun>> }>
  >;
  readonly perplexity: Readonly<
    Record<string, { readonly rows_begin_with_bos: Readonly<Record<string, { readonly perplexity_ascii89: Figures }>> }>
  >;
  readonly search: Readonly<
    Record<string, { readonly rows_begin_with_bos: Readonly<Record<string, Readonly<Record<string, Searches>>>> }>
  >;
}

type Figures = Readonly<Record<string, number>>;
type Searches = Readonly<Record<string, ReferenceSearch>>;

interface ReferenceRun {
  readonly heldout_relative_error_final: readonly number[];
  readonly heldout_relative_error_after_tokens: Readonly<Record<string, readonly number[]>>;
}

export interface ReferenceSearch {
  readonly greedy_rounds: readonly {
    readonly chosen_layer: number;
    readonly score: number;
    readonly report_score: number;
  }[];
}

export function readReference(data: string): Reference {
  return JSON.parse(readFileSync(join(data, "dtr_reference.json"), "utf8")) as Reference;
}

export interface Opened {
  readonly model: LoadedModel;
  readonly engine: Engine;
  close(): void;
}

/** A model of the data folder with an engine and, where they exist, its pools. */
export function open(setting: Setting, name: string, poolFolders: readonly string[]): Opened {
  const model = loadModel(setting.ops, join(setting.data, name));
  const engine = createEngine(setting.ops, model);
  const pools = poolFolders.map((folder) => loadPool(setting.ops, folder));
  for (const pool of pools) engine.addPool(pool);
  return {
    model,
    engine,
    close() {
      engine.close();
      for (const pool of pools) pool.free();
      model.free();
    },
  };
}

/** All subsets of 0..n-1, the empty one first. */
export function subsets(n: number): number[][] {
  return Array.from({ length: 2 ** n }, (_, mask) =>
    Array.from({ length: n }, (_, i) => i).filter((i) => (mask >> i) & 1),
  );
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
