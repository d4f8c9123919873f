// Sets of code points, and how their members are written as bytes: plain UTF-8, or UTF-8 inside a JSON string.

/** Flat pairs lo, hi of code points: sorted, disjoint, not adjacent. Surrogates are no code points of text. */
export type CodeSet = readonly number[];

export const MAX_CODE = 0x10ffff;
const SURROGATES = [0xd800, 0xdfff] as const;

/** The set of the given pairs, in any order and overlapping. */
export function codeSet(pairs: readonly number[]): CodeSet {
  const ranges: [number, number][] = [];
  for (let i = 0; i < pairs.length; i += 2) ranges.push([pairs[i]!, pairs[i + 1]!]);
  ranges.sort((a, b) => a[0] - b[0]);
  const set: number[] = [];
  for (const [lo, hi] of ranges) {
    const last = set.length - 1;
    if (last > 0 && lo <= set[last]! + 1) set[last] = Math.max(set[last]!, hi);
    else set.push(lo, hi);
  }
  return set;
}

/** Everything that is not in the set. */
export function complement(set: CodeSet): CodeSet {
  const out: number[] = [];
  let next = 0;
  for (let i = 0; i < set.length; i += 2) {
    if (set[i]! > next) out.push(next, set[i]! - 1);
    next = set[i + 1]! + 1;
  }
  if (next <= MAX_CODE) out.push(next, MAX_CODE);
  return out;
}

/** The members in [from, to]. */
export function clip(set: CodeSet, from: number, to: number): CodeSet {
  const out: number[] = [];
  for (let i = 0; i < set.length; i += 2) {
    const [lo, hi] = [Math.max(set[i]!, from), Math.min(set[i + 1]!, to)];
    if (lo <= hi) out.push(lo, hi);
  }
  return out;
}

/** A sequence of byte ranges: flat pairs lo, hi, one pair per byte. */
export type ByteRanges = readonly number[];

/** UTF-8 of every member, as sequences of byte ranges. */
export function utf8Ranges(set: CodeSet): ByteRanges[] {
  const out: ByteRanges[] = [];
  const [low, high] = SURROGATES;
  for (const part of [clip(set, 0, low - 1), clip(set, high + 1, MAX_CODE)]) {
    for (let i = 0; i < part.length; i += 2) splitByLength(part[i]!, part[i + 1]!, out);
  }
  return out;
}

const LENGTH_LIMITS = [0x7f, 0x7ff, 0xffff, MAX_CODE];

function splitByLength(lo: number, hi: number, out: ByteRanges[]): void {
  let from = lo;
  for (const [i, limit] of LENGTH_LIMITS.entries()) {
    if (from > limit) continue;
    const to = Math.min(hi, limit);
    splitByBytes(encode(from, i + 1), encode(to, i + 1), [], out);
    from = to + 1;
    if (from > hi) return;
  }
}

/** Splits so that within each part every byte ranges independently of the others. */
function splitByBytes(lo: readonly number[], hi: readonly number[], front: number[], out: ByteRanges[]): void {
  const [a, ...loRest] = lo as [number, ...number[]];
  const [b, ...hiRest] = hi as [number, ...number[]];
  if (loRest.length === 0) {
    out.push([...front, a, b]);
    return;
  }
  const lowest = loRest.map(() => 0x80);
  const highest = loRest.map(() => 0xbf);
  if (a === b) {
    splitByBytes(loRest, hiRest, [...front, a, a], out);
    return;
  }
  const loWhole = loRest.every((byte) => byte === 0x80);
  const hiWhole = hiRest.every((byte) => byte === 0xbf);
  if (!loWhole) splitByBytes(loRest, highest, [...front, a, a], out);
  const [from, to] = [loWhole ? a : a + 1, hiWhole ? b : b - 1];
  if (from <= to) out.push([...front, from, to, ...lowest.flatMap((byte, i) => [byte, highest[i]!])]);
  if (!hiWhole) splitByBytes(lowest, hiRest, [...front, b, b], out);
}

function encode(code: number, length: number): number[] {
  if (length === 1) return [code];
  const lead = [0, 0, 0xc0, 0xe0, 0xf0][length]!;
  const tail = Array.from({ length: length - 1 }, (_, i) => 0x80 | ((code >> (6 * (length - 2 - i))) & 0x3f));
  return [lead | (code >> (6 * (length - 1))), ...tail];
}

const SHORT_ESCAPES: Readonly<Record<number, string>> = {
  8: "\\b",
  9: "\\t",
  10: "\\n",
  12: "\\f",
  13: "\\r",
  34: '\\"',
  92: "\\\\",
};

/** Members that JSON writes as an escape, each with the one spelling that JSON.stringify uses. */
export function jsonEscapes(set: CodeSet): string[] {
  const out: string[] = [];
  for (const part of [clip(set, 0, 0x1f), clip(set, 0x22, 0x22), clip(set, 0x5c, 0x5c)]) {
    for (let i = 0; i < part.length; i += 2) {
      for (let code = part[i]!; code <= part[i + 1]!; code++) {
        out.push(SHORT_ESCAPES[code] ?? `\\u00${code.toString(16).padStart(2, "0")}`);
      }
    }
  }
  return out;
}

/** Members that stand for themselves as one byte inside a JSON string. */
export function jsonPlainAscii(set: CodeSet): CodeSet {
  return [...clip(set, 0x20, 0x21), ...clip(set, 0x23, 0x5b), ...clip(set, 0x5d, 0x7f)];
}
