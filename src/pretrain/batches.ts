// Turns the generated documents into training steps: whole documents end to end, each begun by the begin mark and ended
// by the end mark, labels shifted by one. Knows no device memory.

import { document } from "./corpus/corpus.ts";
import type { Text } from "./corpus/grammar.ts";
import { beginId, endId, maxPositions, type Recipe } from "./recipe.ts";

/** Added to the seed for documents that are only measured on. */
const heldOutOffset = 1_000_003;

/** Anything that turns text into ids without special tokens around it. */
export type Encode = (text: string) => readonly number[];

/** Rows of several documents; a row's label is the id that follows it, -100 where nothing does. */
export interface Batch {
  readonly ids: Int32Array;
  readonly labels: Int32Array;
  readonly positions: Int32Array;
  /** First row of each document, and the number of rows. */
  readonly seqStart: Int32Array;
}

/** Where the stream of documents stands; all that the next step depends on. */
export interface StreamState {
  readonly nextDocument: number;
  readonly tokensSeen: number;
}

/** A document as ids with its marks; the first `given` ids are not predicted. */
export interface EncodedDocument {
  readonly ids: readonly number[];
  readonly given: number;
}

/** Lays documents end to end. */
export function layOut(documents: readonly EncodedDocument[]): Batch {
  const numRows = documents.reduce((sum, { ids }) => sum + ids.length, 0);
  const ids = new Int32Array(numRows);
  const labels = new Int32Array(numRows).fill(-100);
  const positions = new Int32Array(numRows);
  const seqStart = new Int32Array(documents.length + 1);
  let row = 0;
  documents.forEach((document, s) => {
    seqStart[s] = row;
    document.ids.forEach((id, i) => {
      ids[row + i] = id;
      positions[row + i] = i;
      if (i >= document.given) labels[row + i - 1] = id;
    });
    row += document.ids.length;
  });
  seqStart[documents.length] = row;
  return { ids, labels, positions, seqStart };
}

/** Ids with both marks; the parts of a text meet at a space, where the tokenizer cuts in any case. */
export function encodeDocument(encode: Encode, { given, learned }: Text): EncodedDocument {
  const first = given === "" ? [] : encode(given);
  const rest = encode(given === "" ? learned : ` ${learned}`);
  return { ids: [beginId, ...first, ...rest, endId].slice(0, maxPositions), given: 1 + first.length };
}

/** The next step's documents and where the stream stands after them. */
export function nextBatch(recipe: Recipe, encode: Encode, at: StreamState): { batch: Batch; after: StreamState } {
  const documents: EncodedDocument[] = [];
  const progress = Math.min(1, at.tokensSeen / recipe.tokens);
  let rows = 0;
  while (rows < recipe.tokensPerStep) {
    const text = document(recipe.seed, at.nextDocument + documents.length, progress);
    const encoded = encodeDocument(encode, text);
    documents.push(encoded);
    rows += encoded.ids.length;
  }
  const after = { nextDocument: at.nextDocument + documents.length, tokensSeen: at.tokensSeen + rows };
  return { batch: layOut(documents), after };
}

/** Documents of a stream that training never sees, every word of them predicted, in batches of about a step's size. */
export function heldOutBatches(recipe: Recipe, encode: Encode, count: number): Batch[] {
  const batches: Batch[] = [];
  let part: EncodedDocument[] = [];
  let rows = 0;
  for (let i = 0; i < count; i++) {
    const encoded = encodeDocument(encode, document(recipe.seed + heldOutOffset, i));
    part.push({ ids: encoded.ids, given: 1 });
    rows += encoded.ids.length;
    if (rows < recipe.tokensPerStep && i + 1 < count) continue;
    batches.push(layOut(part));
    part = [];
    rows = 0;
  }
  return batches;
}
