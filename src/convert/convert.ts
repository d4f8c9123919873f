// Blockwise local distillation from start to pool: resume or begin, train with one pass of the parent per batch, measure on
// held-out text, checkpoint, write the pools. Knows neither texts nor the command line.
import { createHash } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import type { Variant } from "../../models/attention/mixer.ts";
import type { LoadedModel } from "../../models/model.ts";
import { numRows, type RowSet } from "../data/rows.ts";
import { RequestError } from "../errors.ts";
import type { Ops } from "../ops/ops.ts";
import { tryLock } from "../store/lock.ts";
import { hasCheckpoint, removeCheckpoints, removeTemporaries } from "../train/checkpoint.ts";
import { noProgress, type Progress } from "../train/progress.ts";
import { Conversion } from "./conversion.ts";
import { finishedPool, type Mark, type PoolSummary, writePool } from "./pool_files.ts";
import type { Recipe } from "./recipe.ts";

/** What a conversion needs. */
export interface ConvertOptions {
  readonly ops: Ops;
  readonly model: LoadedModel;
  readonly recipe: Recipe;
  readonly training: RowSet;
  /** null: nothing is measured. */
  readonly heldout: RowSet | null;
  /** Where checkpoints lie while the conversion runs. */
  readonly folder: string;
  /** Folder of each variant's pool. */
  readonly poolFolder: (variant: Variant) => string;
  /** Seconds between checkpoints (default 60). */
  readonly checkpointSeconds?: number;
  /** Forgets an earlier run in the same folders; its pools stay until the new ones replace them. */
  readonly restart?: boolean;
  readonly progress?: Progress;
}

/** What a conversion brought, and what it took. */
export interface ConvertResult {
  readonly pools: readonly PoolSummary[];
  /** Steps that an earlier process had done. */
  readonly resumedSteps: number;
  /** Whether the pools were there already, made with the same settings. */
  readonly alreadyMade: boolean;
  readonly seconds: number;
  readonly tokensPerSecond: number;
  readonly scratchBytes: number;
  readonly studentBytes: number;
}

/** The run was told to stop; its state is saved. */
export class ConvertCancelled extends Error {
  override name = "ConvertCancelled";
}

/** Shares of the budget after which the error is measured on held-out text. */
const MARKS = [0, 1 / 8, 1 / 4, 1 / 2, 3 / 4];
const REPORT_SECONDS = 0.5;

/** State saved beside the tensors. */
interface Saved {
  history: Mark[];
  seconds: number;
}

/**
 * Trains and writes the pools. Killed at any point and started again it ends with the same bytes in the same files.
 * @throws ConvertCancelled when told to stop; CheckpointError where the folders hold a run with other settings;
 * RequestError where another process converts into the same folder
 */
export async function convert(options: ConvertOptions): Promise<ConvertResult> {
  const path = join(options.folder, "convert.lock");
  const lock = tryLock(path);
  if (lock === null) {
    throw new RequestError("busy", `Cannot convert into "${options.folder}": another conversion is writing there`);
  }
  try {
    return await convertLocked(options);
  } finally {
    rmSync(path, { force: true });
    lock.release();
  }
}

async function convertLocked(options: ConvertOptions): Promise<ConvertResult> {
  const { ops, model, recipe, training, folder, poolFolder } = options;
  const settings = { ...recipe, backbone: model.identity, rows: fingerprint(training) };
  if (recipe.steps > 0 && numRows(training) === 0) throw new RangeError("Cannot convert: there is no training text");
  if (options.restart === true) removeCheckpoints(folder);
  // Pools that are to be replaced stay until then, so a run that has begun does not ask what they are.
  if (options.restart !== true && !hasCheckpoint(folder)) {
    const finished = recipe.variants.map((variant) => finishedPool(poolFolder(variant), settings));
    if (finished.every((pool) => pool !== null)) return finishedResult(finished, recipe);
  }
  for (const variant of recipe.variants) removeTemporaries(poolFolder(variant));
  const conversion = new Conversion(ops, model, recipe, training);
  try {
    const restored = conversion.restore(folder, settings);
    const saved: Saved = restored === null ? { history: [], seconds: 0 } : (restored as unknown as Saved);
    if (restored === null) conversion.calibrate();
    const resumedSteps = conversion.step;
    const trained = await train(conversion, options, settings, saved);
    conversion.checkFinite();
    const pools = recipe.variants.map((variant, i) =>
      writePool(poolFolder(variant), conversion.studentsOf(variant), model, {
        tokens: tokensOf(recipe, recipe.steps),
        seconds: Math.round(trained.seconds * 10) / 10,
        history: markOf(trained.history, i),
        recipe: settings,
      }),
    );
    removeCheckpoints(folder);
    const { scratch, students } = conversion.memoryBytes();
    const tokens = (recipe.steps - resumedSteps) * recipe.rowsPerStep * recipe.rowLength;
    return {
      pools,
      resumedSteps,
      alreadyMade: false,
      seconds: trained.seconds,
      tokensPerSecond: trained.stepSeconds > 0 ? tokens / trained.stepSeconds : 0,
      scratchBytes: scratch,
      studentBytes: students,
    };
  } finally {
    conversion.free();
  }
}

interface Trained extends Saved {
  /** Seconds of this process spent on steps alone. */
  readonly stepSeconds: number;
}

async function train(
  conversion: Conversion,
  options: ConvertOptions,
  settings: Readonly<Record<string, unknown>>,
  saved: Saved,
): Promise<Trained> {
  const { recipe, folder } = options;
  const { history } = saved;
  const marks = new Set(MARKS.map((share) => Math.round(share * recipe.steps)).filter((step) => step < recipe.steps));
  const start = performance.now();
  const elapsed = () => saved.seconds + (performance.now() - start) / 1000;
  const interval = 1000 * (options.checkpointSeconds ?? 60);
  const save = () => {
    conversion.checkFinite();
    conversion.save(folder, settings, { history, seconds: elapsed() });
  };
  let stepSeconds = 0;
  let nextReport = 0;
  let nextSave = start + interval;
  while (conversion.step < recipe.steps) {
    if (marks.has(conversion.step)) measure(conversion, options, history);
    const before = performance.now();
    conversion.trainStep();
    const now = performance.now();
    stepSeconds += (now - before) / 1000;
    if (now >= nextReport || conversion.step === recipe.steps) {
      await report(conversion, options, save);
      nextReport = now + 1000 * REPORT_SECONDS;
    }
    if (now >= nextSave && conversion.step < recipe.steps) {
      save();
      nextSave = performance.now() + interval;
    }
  }
  measure(conversion, options, history);
  return { history, seconds: elapsed(), stepSeconds };
}

/** Tells how far the run is. @throws ConvertCancelled, after saving, when it is to stop */
async function report(conversion: Conversion, { recipe, progress = noProgress }: ConvertOptions, save: () => void) {
  conversion.checkFinite();
  const [done, total] = [tokensOf(recipe, conversion.step), tokensOf(recipe, recipe.steps)];
  progress.progress(done, total, "tokens", { error: conversion.lastError() });
  // Lets signals and timers in between steps that otherwise never leave the thread.
  await new Promise<void>((resolve) => setImmediate(resolve));
  if (!progress.cancelled()) return;
  save();
  throw new ConvertCancelled("Conversion cancelled");
}

/** Adds the error on held-out text at this step to the history, once. */
function measure(conversion: Conversion, options: ConvertOptions, history: Mark[]): void {
  const { heldout, recipe, progress = noProgress } = options;
  if (heldout === null || history.some((mark) => mark.step === conversion.step)) return;
  const unexplained = conversion.measure(heldout);
  conversion.checkFinite();
  const tokens = tokensOf(recipe, conversion.step);
  history.push({ step: conversion.step, tokens, unexplained });
  const all = unexplained.flat();
  const mean = all.reduce((sum, value) => sum + value, 0) / all.length;
  progress.event("measured", { tokens, mean, unexplained });
}

function tokensOf(recipe: Recipe, steps: number): number {
  return steps * recipe.rowsPerStep * recipe.rowLength;
}

/** One variant's part of the history. */
function markOf(history: readonly Mark[], variant: number): { tokens: number; unexplained: number[] }[] {
  return history.map(({ tokens, unexplained }) => ({
    tokens,
    unexplained: unexplained.map((layer) => layer[variant]!),
  }));
}

/** sha256 over the rows that are trained on. */
function fingerprint(rows: RowSet): string {
  const hash = createHash("sha256");
  for (const part of [rows.starts, rows.ids])
    hash.update(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  return hash.digest("hex");
}

function finishedResult(pools: readonly PoolSummary[], recipe: Recipe): ConvertResult {
  const { steps: resumedSteps } = recipe;
  return { pools, resumedSteps, alreadyMade: true, seconds: 0, tokensPerSecond: 0, scratchBytes: 0, studentBytes: 0 };
}
