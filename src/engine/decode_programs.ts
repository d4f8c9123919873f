// Finds the program of a decode batch by its structure, and keeps the few that were used last.
import type { Batch } from "./batch.ts";
import { DecodeProgram, type ProgramParts } from "./decode_program.ts";

/** Each takes tables for its rows, and a recording. */
export const MAX_PROGRAMS = 32;
/** Contexts up to this length count as equally long. */
const SHORT_CONTEXT = 512;

interface Kept {
  readonly program: DecodeProgram;
  /** Identities of the hybrids in it. */
  readonly identities: ReadonlySet<string>;
}

/** The programs of one engine. */
export class DecodePrograms {
  readonly #parts: ProgramParts;
  readonly #maxPrograms: number;
  /** By structure, the least recently used first. */
  readonly #kept = new Map<string, Kept>();
  #last: DecodeProgram | null = null;

  constructor(parts: ProgramParts, maxPrograms = MAX_PROGRAMS) {
    this.#parts = parts;
    this.#maxPrograms = maxPrograms;
  }

  /** The program of a batch with one plain row per sequence, its tables at that batch. */
  seat(batch: Batch): DecodeProgram {
    const following = this.follow(batch);
    if (following !== null) return following;
    const longest = this.#longest(batch);
    const spans = spansOf(batch);
    const key = `${longest}|${spans.map(([identity, count]) => `${identity}*${count}`).join("|")}`;
    let kept = this.#kept.get(key);
    if (kept === undefined) {
      const identities = new Set(spans.map(([identity]) => identity));
      kept = { program: new DecodeProgram(this.#parts, batch, longest), identities };
    } else this.#kept.delete(key);
    this.#kept.set(key, kept);
    if (this.#kept.size > this.#maxPrograms) this.#drop(this.#kept.keys().next().value!);
    // Only the last one is followed; another would keep hold of sequences that have ended.
    if (this.#last !== kept.program) this.#last?.vacate();
    this.#last = kept.program;
    this.#last.seat(batch);
    return this.#last;
  }

  /** The last program, where its tables stand at this batch without anything being sent; else null. */
  follow(batch: Batch): DecodeProgram | null {
    const last = this.#last;
    if (last === null || last.longest !== this.#longest(batch) || !last.standsAt(batch)) return null;
    return last;
  }

  /** Drops what was recorded with the weights of a hybrid that leaves the memory. */
  forget(identity: string): void {
    for (const [key, { identities }] of [...this.#kept]) if (identities.has(identity)) this.#drop(key);
  }

  /** Nobody knows what of the steps under way was done. */
  vacate(): void {
    for (const { program } of this.#kept.values()) program.vacate();
  }

  close(): void {
    for (const key of [...this.#kept.keys()]) this.#drop(key);
  }

  #drop(key: string): void {
    const { program } = this.#kept.get(key)!;
    this.#kept.delete(key);
    if (program === this.#last) this.#last = null;
    program.close();
  }

  /** A bound for rows that attend, and for a while: launches are sized by it. */
  #longest({ chunks }: Batch): number {
    let longest = 0;
    for (const { start, sequence } of chunks) {
      if (sequence.hybrid.numFull > 0) longest = Math.max(longest, start + 1);
    }
    return Math.max(longest, Math.min(roundedUp(longest), this.#parts.memory.maxPositions));
  }
}

/** In quarters of the power of two below. */
function roundedUp(length: number): number {
  if (length <= SHORT_CONTEXT) return SHORT_CONTEXT;
  const quarter = 2 ** (Math.floor(Math.log2(length - 1)) - 2);
  return Math.ceil(length / quarter) * quarter;
}

/** The hybrids of consecutive rows and their numbers of rows. */
function spansOf({ chunks }: Batch): [identity: string, count: number][] {
  const spans: [string, number][] = [];
  let before: unknown = null;
  for (const { sequence } of chunks) {
    if (sequence.hybrid === before) spans.at(-1)![1]++;
    else spans.push([sequence.hybrid.identity, 1]);
    before = sequence.hybrid;
  }
  return spans;
}
