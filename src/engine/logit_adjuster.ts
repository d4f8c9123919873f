// Applies what sequences want of their logits before a token is drawn: penalties, biases and constraints of a whole batch
// in one kernel call. Rows of sequences that want nothing are neither looked at nor listed.
import type { Ops } from "../ops/ops.ts";
import { ADJUSTMENT_WORDS } from "../ops/sampling_ops.ts";
import { type Tensor, view } from "../tensor/tensor.ts";
import type { Sequence } from "./sequence.ts";
import { StepTables } from "./step_tables.ts";

/** Whose row of logits it is. */
export type AdjustedSequence = Pick<Sequence, "adjustments" | "constraint">;

const NO_ERRORS: ReadonlyMap<number, Error> = new Map();

/** Owns the memory that adjustments cross to the device in. */
export class LogitAdjuster {
  readonly #ops: Ops;
  readonly #tables: StepTables;

  constructor(ops: Ops) {
    this.#ops = ops;
    this.#tables = new StepTables(ops, 1 << 12);
  }

  /**
   * Changes logits [N, V] in place, row i for sequences[i]. Returns the errors that constraints threw, by row; such a row
   * is left with no token to draw.
   */
  apply(logits: Tensor, sequences: readonly AdjustedSequence[]): ReadonlyMap<number, Error> {
    let numEntries = 0;
    let numMasks = 0;
    for (const { adjustments, constraint } of sequences) {
      if (adjustments !== null) numEntries += adjustments.size;
      if (constraint !== null) numMasks++;
    }
    if (numEntries + numMasks === 0) return NO_ERRORS;
    const N = sequences.length;
    const maskWords = Math.ceil(logits.shape[1]! / 32);
    this.#tables.begin(2 * N + 1 + numEntries * ADJUSTMENT_WORDS + numMasks * maskWords);
    const [entries, entryStart] = this.#entries(sequences, numEntries);
    const masks = numMasks > 0 ? this.#tables.take(numMasks * maskWords) : null;
    const maskRows = numMasks > 0 ? this.#tables.take(N) : null;
    const errors = masks && maskRows ? writeMasks(sequences, masks, maskRows, maskWords) : NO_ERRORS;
    this.#tables.send();
    this.#ops.adjustLogits(logits, {
      entries,
      entryStart,
      masks: masks === null ? null : view(masks.tensor, 0, [numMasks, maskWords]),
      maskRows: maskRows?.tensor ?? null,
    });
    return errors;
  }

  close(): void {
    this.#tables.close();
  }

  #entries(sequences: readonly AdjustedSequence[], count: number): [Tensor | null, Tensor] {
    const entries = this.#tables.take(count * ADJUSTMENT_WORDS);
    const starts = this.#tables.take(sequences.length + 1);
    let start = 0;
    sequences.forEach(({ adjustments }, i) => {
      starts.view[starts.at + i] = start;
      if (adjustments === null) return;
      adjustments.copyTo(entries.view, entries.at + start * ADJUSTMENT_WORDS);
      start += adjustments.size;
    });
    starts.view[starts.at + sequences.length] = start;
    return [count > 0 ? entries.tensor : null, starts.tensor];
  }
}

interface Table {
  readonly view: Int32Array;
  readonly at: number;
}

function writeMasks(
  sequences: readonly AdjustedSequence[],
  masks: Table,
  maskRows: Table,
  maskWords: number,
): ReadonlyMap<number, Error> {
  const { buffer, byteOffset } = masks.view;
  let errors: Map<number, Error> | null = null;
  let next = 0;
  sequences.forEach(({ constraint }, i) => {
    maskRows.view[maskRows.at + i] = constraint === null ? -1 : next;
    if (constraint === null) return;
    const mask = new Uint32Array(buffer, byteOffset + 4 * (masks.at + next++ * maskWords), maskWords).fill(0);
    try {
      if (!constraint.allow(mask)) mask.fill(0);
    } catch (error) {
      mask.fill(0);
      errors ??= new Map();
      errors.set(i, error instanceof Error ? error : new Error(String(error)));
    }
  });
  return errors ?? NO_ERRORS;
}
