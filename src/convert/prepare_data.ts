// From paths to the rows of a conversion: reads documents, sets some aside, encodes, builds rows. Knows no kernels.
import { type Document, readDocuments } from "../data/documents.ts";
import {
  encodeDocuments,
  makeRowSet,
  measuringRows,
  numRows,
  type RowEncoder,
  type RowSet,
  rowIds,
  splitHeldout,
  trainingRows,
} from "../data/rows.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

/** Where the text comes from and the rows it becomes. */
export interface PrepareDataOptions {
  readonly data: readonly string[];
  /** Paths, or the share of the documents to set aside (0: none). */
  readonly heldout: readonly string[] | number;
  readonly tokenizer: Tokenizer | null;
  readonly vocabSize: number;
  readonly rowLength: number;
  /** Most ids to measure on; whole documents are left out beyond it. */
  readonly heldoutTokens?: number;
}

/** Rows to train on and rows to measure on. */
export interface PreparedData {
  readonly training: RowSet;
  readonly heldout: RowSet | null;
  readonly numDocuments: number;
  /** Training documents dropped because they are held out as well. */
  readonly numOverlapping: number;
}

const HELDOUT_TOKENS = 65_536;

/** Ids of texts as rows want them: with bos in front where the tokenizer adds it by default. */
export function rowEncoder(tokenizer: Tokenizer | null): RowEncoder | null {
  if (tokenizer === null) return null;
  const { bosId, eosId } = tokenizer;
  const adds = bosId !== null && tokenizer.encode("", "auto").includes(bosId);
  return {
    encode: (text) => tokenizer.encode(text, adds ? "always" : "never"),
    prefixId: adds ? bosId : null,
    separatorId: eosId,
  };
}

/** @throws SyntaxError for files that cannot be read, RangeError where no training text is left */
export function prepareData(options: PrepareDataOptions): PreparedData {
  const { tokenizer, vocabSize, rowLength } = options;
  const all = options.data.length === 0 ? [] : readDocuments(options.data);
  const split =
    typeof options.heldout === "number"
      ? splitHeldout(all, options.heldout)
      : { training: all, heldout: readDocuments(options.heldout) };
  const held = new Set(split.heldout.map(keyOf));
  const training = split.training.filter((document) => !held.has(keyOf(document)));
  if (all.length > 0 && training.length === 0) {
    throw new RangeError("Cannot convert: every training document is held out as well");
  }
  const encoder = rowEncoder(tokenizer);
  const heldoutRows = measuringRows(encodeDocuments(split.heldout, encoder, vocabSize), rowLength);
  return {
    training: trainingRows(encodeDocuments(training, encoder, vocabSize), rowLength, encoder),
    heldout: numRows(heldoutRows) === 0 ? null : firstIds(heldoutRows, options.heldoutTokens ?? HELDOUT_TOKENS),
    numDocuments: training.length,
    numOverlapping: split.training.length - training.length,
  };
}

function keyOf(document: Document): string {
  return "text" in document ? document.text : JSON.stringify(document.ids);
}

function firstIds(rows: RowSet, limit: number): RowSet {
  let count = 1;
  while (count < numRows(rows) && rows.starts[count + 1]! <= limit) count++;
  return makeRowSet(Array.from({ length: count }, (_, row) => rowIds(rows, row)));
}
