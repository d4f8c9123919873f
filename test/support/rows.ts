// Ragged rows and labels for training forms, laid out on the device.
import type { RaggedRows } from "../../models/attention/mixer.ts";
import type { Ops } from "../../src/ops/ops.ts";

/** Uploads the layout of whole sequences; seqStart holds the first row of each and the number of rows. */
export function createRows(ops: Ops, seqStart: readonly number[]): RaggedRows {
  const starts = Int32Array.from(seqStart);
  const positions = new Int32Array(starts.at(-1) ?? 0);
  for (let s = 0; s + 1 < starts.length; s++) {
    for (let row = starts[s]!; row < starts[s + 1]!; row++) positions[row] = row - starts[s]!;
  }
  return {
    seqStart: ops.fromArray([starts.length], starts),
    positions: ops.fromArray([positions.length], positions),
    numSeqs: starts.length - 1,
    numRows: positions.length,
  };
}

/** Labels for next-token prediction: row i predicts row i+1 of its sequence; last rows predict nothing (-100). */
export function shiftLabels(labels: Int32Array, seqStart: readonly number[]): Int32Array {
  const shifted = new Int32Array(labels.length).fill(-100);
  for (let s = 0; s + 1 < seqStart.length; s++) {
    for (let row = seqStart[s]!; row + 1 < seqStart[s + 1]!; row++) shifted[row] = labels[row + 1]!;
  }
  return shifted;
}
