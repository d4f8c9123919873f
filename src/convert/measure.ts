// Held-out unexplained variance of every student: Σ‖target - output‖² / Σ‖target‖² over all positions of the held-out rows,
// inputs and targets from one pass of the parent.
import type { Context } from "../../models/attention/mixer.ts";
import type { Backbone } from "../../models/model.ts";
import type { RowSet } from "../data/rows.ts";
import { batchesInOrder, RowBatcher, runParent } from "./parent.ts";
import type { ErrorSums, Student } from "./student.ts";

/** Unexplained variance, one value per student, in the order of `students[layer]`. */
export function measureUnexplained(
  ctx: Context,
  backbone: Backbone,
  students: readonly (readonly Student[])[],
  rows: RowSet,
  capacity: number,
): number[][] {
  const sums = sumErrors(ctx, backbone, students, rows, capacity);
  return sums.map((ofLayer) => ofLayer.map(({ error, target }) => error / target));
}

/** The error sums of every student over the rows, from one pass of the parent in batches of about `capacity` ids. */
export function sumErrors(
  ctx: Context,
  backbone: Backbone,
  students: readonly (readonly Student[])[],
  rows: RowSet,
  capacity: number,
): ErrorSums[][] {
  const sums: ErrorSums[][] = students.map((ofLayer) => ofLayer.map(() => ({ error: 0, target: 0, output: 0 })));
  const batches = batchesInOrder(rows, capacity, capacity);
  const largest = Math.max(...batches.map((batch) => batch.reduce((n, row) => n + lengthOf(rows, row), 0)));
  const batcher = new RowBatcher(ctx.ops, largest, capacity);
  try {
    for (const batch of batches) {
      const loaded = batcher.load(rows, batch);
      runParent(ctx, backbone, loaded, (layer, x, y) => {
        students[layer]!.forEach((student, i) => {
          student.measure(ctx, x, y, loaded.rows, sums[layer]![i]!);
        });
      });
    }
  } finally {
    batcher.free();
  }
  return sums;
}

function lengthOf(rows: RowSet, row: number): number {
  return rows.starts[row + 1]! - rows.starts[row]!;
}
