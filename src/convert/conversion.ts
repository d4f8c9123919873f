// The training state of one conversion: all students, their optimisers, where in the data they are. Makes steps, saves and
// restores itself exactly. Knows neither pools nor reports.
import type { Context, Variant } from "../../models/attention/mixer.ts";
import type { LoadedModel } from "../../models/model.ts";
import { makeRowSet, numRows, RowOrder, type RowSet, rowIds } from "../data/rows.ts";
import type { Ops } from "../ops/ops.ts";
import { Arena } from "../tensor/arena.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type RunSettings,
  type RunState,
  removeTemporaries,
  restoreCheckpoint,
  saveCheckpoint,
} from "../train/checkpoint.ts";
import { learningRate, type Schedule } from "../train/schedule.ts";
import { createStudents } from "./create_student.ts";
import { initialiseGates } from "./gate_init.ts";
import { measureUnexplained } from "./measure.ts";
import { RowBatcher, runParent } from "./parent.ts";
import { type Recipe, scheduleOf } from "./recipe.ts";
import type { Student } from "./student.ts";

/** Rows that calibrate the output gates: enough tokens to determine C directions. */
const CALIBRATION_TOKENS_PER_CHANNEL = 64;

/** One run: students of every layer and variant, and how far they are. */
export class Conversion {
  /** By layer, then in the order of the recipe's variants. */
  readonly students: readonly (readonly Student[])[];
  /** Steps done. */
  step = 0;
  readonly #ctx: Context;
  readonly #model: LoadedModel;
  readonly #recipe: Recipe;
  readonly #schedule: Schedule;
  readonly #training: RowSet;
  readonly #order: RowOrder;
  readonly #batcher: RowBatcher;
  readonly #capacity: number;

  constructor(ops: Ops, model: LoadedModel, recipe: Recipe, training: RowSet) {
    this.#ctx = { ops, arena: new Arena(ops) };
    this.#model = model;
    this.#recipe = recipe;
    this.#schedule = scheduleOf(recipe);
    this.#training = training;
    this.#order = new RowOrder(numRows(training), recipe.seed);
    this.#capacity = recipe.rowsPerStep * recipe.rowLength;
    this.#batcher = new RowBatcher(ops, this.#capacity, recipe.rowsPerStep);
    this.students = createStudents(ops, model, recipe);
  }

  /** Sets what depends on data before the first step. */
  calibrate(): void {
    if (this.#recipe.gateInit !== "ridge" || numRows(this.#training) === 0) return;
    const wanted = this.#model.config.hiddenSize * CALIBRATION_TOKENS_PER_CHANNEL;
    const rows: number[] = [];
    for (let ids = 0; ids < wanted && rows.length < numRows(this.#training); ) {
      const row = this.#order.at(rows.length);
      rows.push(row);
      ids += rowIds(this.#training, row).length;
    }
    initialiseGates(
      this.#ctx,
      this.#model.backbone,
      this.students,
      makeRowSet(rows.map((row) => rowIds(this.#training, row))),
      this.#capacity,
    );
  }

  /** One update of every student. */
  trainStep(): void {
    const { rowsPerStep } = this.#recipe;
    const first = this.step * rowsPerStep;
    const chosen = Array.from({ length: rowsPerStep }, (_, i) => this.#order.at(first + i));
    const batch = this.#batcher.load(this.#training, chosen);
    const rate = learningRate(this.#schedule, this.step);
    runParent(this.#ctx, this.#model.backbone, batch, (layer, x, y) => {
      for (const student of this.students[layer]!) student.train(this.#ctx, x, y, batch.rows, rate);
    });
    this.step++;
  }

  /** Unexplained variance on rows, by layer and variant. */
  measure(rows: RowSet): number[][] {
    return measureUnexplained(this.#ctx, this.#model.backbone, this.students, rows, Math.max(this.#capacity, 2048));
  }

  /** @throws RangeError naming the first counterpart that is beyond repair: nothing of this run is worth keeping */
  checkFinite(): void {
    const lost = this.students.flat().find((student) => !student.isFinite());
    if (lost === undefined) return;
    throw new RangeError(
      `Cannot go on converting: layer ${lost.layer} (${lost.variant}) has diverged at step ${this.step}, ` +
        "its weights are no longer numbers; try a lower --learning-rate",
    );
  }

  /** Mean relative error of the last batch over all students. */
  lastError(): number {
    const errors = this.students.flat().map((student) => student.lastError());
    return errors.reduce((sum, error) => sum + error, 0) / errors.length;
  }

  save(folder: string, settings: RunSettings, extra: Readonly<Record<string, unknown>>): void {
    saveCheckpoint(this.#ctx.ops, folder, this.#tensors(), settings, { ...extra, step: this.step });
  }

  /** @returns the extra state saved with the newest checkpoint, or null where there is none. @throws CheckpointError */
  restore(folder: string, settings: RunSettings): RunState | null {
    removeTemporaries(folder);
    const state = restoreCheckpoint(this.#ctx.ops, folder, this.#tensors(), settings);
    if (state === null) return null;
    this.step = state.step;
    for (const student of this.students.flat()) student.optimizer.steps = state.step;
    return state;
  }

  studentsOf(variant: Variant): Student[] {
    return this.students.map((ofLayer) => ofLayer.find((student) => student.variant === variant)!);
  }

  /** Most scratch memory in use at once, and what parameters, gradients and moments take. */
  memoryBytes(): { scratch: number; students: number } {
    const floats = this.students.flat().reduce((sum, student) => sum + 4 * student.optimizer.m.shape[0]!, 0);
    return { scratch: this.#ctx.arena.peakBytes, students: 4 * floats };
  }

  free(): void {
    for (const student of this.students.flat()) student.free();
    this.#batcher.free();
    this.#ctx.arena.close();
  }

  #tensors(): Map<string, Tensor> {
    const tensors = new Map<string, Tensor>();
    for (const { layer, variant, mixer, optimizer } of this.students.flat()) {
      tensors.set(`${variant}.${layer}.values`, mixer.params.values);
      tensors.set(`${variant}.${layer}.m`, optimizer.m);
      tensors.set(`${variant}.${layer}.v`, optimizer.v);
    }
    return tensors;
  }
}
