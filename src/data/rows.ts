// Training rows of token ids. Every row begins as a prompt does at evaluation: with the prefix token where the tokenizer
// has one. Knows documents and a tokenizer's ids, no model.
import { CounterRandom, streamOf } from "../tensor/random.ts";
import type { Document } from "./documents.ts";

/** Rows end to end: row r is ids[starts[r] .. starts[r+1]). */
export interface RowSet {
  readonly ids: Int32Array;
  readonly starts: Int32Array;
}

/** What building rows needs of a tokenizer. */
export interface RowEncoder {
  /** Ids of a text with the prefix (bos) in front where the tokenizer has one, nothing else added. */
  encode(text: string): readonly number[];
  /** bos, or null: rows then begin with the document's own first id. */
  readonly prefixId: number | null;
  /** Goes between texts that share a row when there is no prefix token (eos), or null. */
  readonly separatorId: number | null;
}

/** Number of rows of a set. */
export function numRows(rows: RowSet): number {
  return rows.starts.length - 1;
}

/** Ids of row r (a view). */
export function rowIds(rows: RowSet, r: number): Int32Array {
  return rows.ids.subarray(rows.starts[r]!, rows.starts[r + 1]!);
}

/** Copies rows end to end. */
export function makeRowSet(rows: readonly ArrayLike<number>[]): RowSet {
  const starts = new Int32Array(rows.length + 1);
  for (let r = 0; r < rows.length; r++) starts[r + 1] = starts[r]! + rows[r]!.length;
  const ids = new Int32Array(starts[rows.length]!);
  for (let r = 0; r < rows.length; r++) ids.set(rows[r]!, starts[r]!);
  return { ids, starts };
}

/**
 * Ids of every document as it is read at evaluation.
 * @throws RangeError for a text without a tokenizer, or an id outside the vocabulary
 */
export function encodeDocuments(
  documents: readonly Document[],
  encoder: RowEncoder | null,
  vocabSize: number,
): Int32Array[] {
  return documents.map((document, index) => {
    if ("text" in document && encoder === null) {
      throw new RangeError(`Cannot use document ${index}: it is text and the model has no tokenizer, expected ids`);
    }
    const ids = Int32Array.from("text" in document ? encoder!.encode(document.text) : document.ids);
    const outside = ids.find((id) => id >= vocabSize);
    if (outside !== undefined) {
      throw new RangeError(
        `Cannot use document ${index}: token id ${outside} is outside the vocabulary of ${vocabSize}`,
      );
    }
    return ids;
  });
}

/**
 * The training rows of encoded documents. The first rowLength ids of each document are a row, filled from the documents
 * after it where it is shorter; what remains of the long ones is joined and cut into rows with the prefix in front.
 * Documents of ids (encoder null) are not joined: a short one is a short row.
 */
export function trainingRows(documents: readonly Int32Array[], rowLength: number, encoder: RowEncoder | null): RowSet {
  if (!Number.isInteger(rowLength) || rowLength < 2) {
    throw new RangeError(`Cannot build rows: row length is ${rowLength}, expected at least 2`);
  }
  const rows: Int32Array[] = [];
  for (let d = 0; d < documents.length; d++) {
    rows.push(encoder === null ? documents[d]!.subarray(0, rowLength) : filledRow(documents, d, rowLength, encoder));
  }
  const prefix = encoder?.prefixId ?? null;
  const body = prefix === null ? rowLength : rowLength - 1;
  let row = new Int32Array(rowLength);
  let used = 0;
  for (const document of documents) {
    for (let i = rowLength; i < document.length; i++) {
      if (used === 0 && prefix !== null) row[0] = prefix;
      row[rowLength - body + used++] = document[i]!;
      if (used === body) {
        rows.push(row);
        row = new Int32Array(rowLength);
        used = 0;
      }
    }
    if (encoder === null && used > 0) {
      rows.push(row.slice(0, used));
      used = 0;
    }
  }
  return makeRowSet(rows);
}

function filledRow(
  documents: readonly Int32Array[],
  first: number,
  rowLength: number,
  encoder: RowEncoder,
): Int32Array {
  const row = new Int32Array(rowLength);
  let used = 0;
  for (let step = 0; used < rowLength; step++) {
    const document = documents[(first + step) % documents.length]!;
    const room = document.subarray(0, rowLength - used);
    row.set(room, used);
    used += room.length;
    if (used < rowLength && encoder.prefixId === null && encoder.separatorId !== null)
      row[used++] = encoder.separatorId;
  }
  return row;
}

/** Rows for measuring: each document from its start, cut to rowLength. */
export function measuringRows(documents: readonly Int32Array[], rowLength: number): RowSet {
  return makeRowSet(documents.map((document) => document.subarray(0, rowLength)).filter((row) => row.length > 1));
}

/**
 * Order in which rows are visited: a fresh permutation each epoch, a function of (seed, epoch) alone, so that a position
 * is all that a resumed run needs.
 */
export class RowOrder {
  readonly #numRows: number;
  readonly #seed: number;
  #epoch = -1;
  readonly #order: Int32Array;

  constructor(rows: number, seed: number) {
    this.#numRows = rows;
    this.#seed = seed;
    this.#order = new Int32Array(rows);
  }

  /** Row at the given position of the endless sequence. @throws RangeError where there are no rows */
  at(position: number): number {
    if (this.#numRows === 0) throw new RangeError("Cannot order rows: there are none");
    const epoch = Math.floor(position / this.#numRows);
    if (epoch !== this.#epoch) this.#shuffle(epoch);
    return this.#order[position % this.#numRows]!;
  }

  #shuffle(epoch: number): void {
    const random = new CounterRandom(this.#seed, streamOf(`rows.${epoch}`));
    const order = this.#order;
    for (let i = 0; i < order.length; i++) order[i] = i;
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(random.uniform(i) * (i + 1));
      const swap = order[i]!;
      order[i] = order[j]!;
      order[j] = swap;
    }
    this.#epoch = epoch;
  }
}

/** Splits documents into a training and a held-out part, every 1/fraction-th one held out. */
export function splitHeldout<T>(documents: readonly T[], fraction: number): { training: T[]; heldout: T[] } {
  const training: T[] = [];
  const heldout: T[] = [];
  documents.forEach((document, i) => {
    const held = Math.floor((i + 1) * fraction) > Math.floor(i * fraction);
    (held ? heldout : training).push(document);
  });
  return { training, heldout };
}
