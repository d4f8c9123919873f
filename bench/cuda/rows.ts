// Rows of the commands that a run starts, as far as the page reads them; the files keep all of each.

interface Rate {
  readonly mean: number;
  readonly deviation: number;
}

export interface DecodeRow {
  readonly hybrid: string;
  readonly numLinear: number;
  readonly batch: number;
  readonly largest: boolean;
  readonly context: number;
  readonly meanContext: number;
  readonly lastContext: number;
  readonly kvBytes: number;
  readonly tokensPerSecond: Rate;
  readonly share: number;
  readonly limit: number;
  readonly speedup: number | null;
  readonly boundSpeedup: number | null;
}

export interface PrefillRow {
  readonly hybrid: string;
  readonly numLinear: number;
  readonly context: number;
  readonly tokensPerSecond: Rate;
  readonly flopsPerSecond: number;
  readonly limit: number;
  readonly share: number;
}

export interface PeerRow {
  readonly mode: string;
  readonly batch: number;
  readonly context: number;
  readonly torch: string;
  readonly transformers: string;
  readonly tokensPerSecond?: Rate;
  readonly error?: string;
}

export interface KernelRow {
  /** Absent in the processor's own cases. */
  readonly name?: string;
  readonly bestSeconds: number;
  readonly bytesPerSecond: number;
  readonly flopsPerSecond: number;
  readonly bound: string;
  readonly share: number;
}

/** A hybrid's rows of one sequence, by which its step is a line over the context. */
export function decodeRows(rows: readonly DecodeRow[], hybrid: string): DecodeRow[] {
  return rows.filter((row) => row.hybrid === hybrid && row.batch === 1 && !row.largest);
}
