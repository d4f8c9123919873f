// Whether a configuration takes every plain text, as the inside of an unbounded JSON string does: then thousands of tokens
// need not be looked at one by one.
import { DEAD, type GrammarMachine } from "./machine.ts";

/** Beyond so many configurations at one character the answer is taken to be no. */
const MAX_WIDTH = 48;

/** Bytes of UTF-8 by what they lead to: from each state, ranges lo, hi and the next state; 0 is between characters. */
const UTF8: readonly (readonly (readonly [number, number, number])[])[] = [
  [
    [0x20, 0x21, 0],
    [0x23, 0x5b, 0],
    [0x5d, 0x7f, 0],
    [0xc2, 0xdf, 1],
    [0xe0, 0xe0, 4],
    [0xe1, 0xec, 2],
    [0xed, 0xed, 5],
    [0xee, 0xef, 2],
    [0xf0, 0xf0, 6],
    [0xf1, 0xf3, 3],
    [0xf4, 0xf4, 7],
  ],
  [[0x80, 0xbf, 0]],
  [[0x80, 0xbf, 1]],
  [[0x80, 0xbf, 2]],
  [[0xa0, 0xbf, 1]],
  [[0x80, 0x9f, 1]],
  [[0x90, 0xbf, 2]],
  [[0x80, 0x8f, 2]],
];

/** The same by classes of bytes, each pair once. */
type ClassMoves = readonly (readonly (readonly [byteClass: number, next: number])[])[];

const known = new WeakMap<GrammarMachine, ClassMoves>();

function movesOf(machine: GrammarMachine): ClassMoves {
  let moves = known.get(machine);
  if (moves === undefined) {
    moves = UTF8.map((ranges) => {
      const pairs = new Map<number, readonly [number, number]>();
      for (const [lo, hi, next] of ranges) {
        for (let byte = lo; byte <= hi; byte++)
          pairs.set(machine.classOf[byte]! * 8 + next, [machine.classOf[byte]!, next]);
      }
      return [...pairs.values()];
    });
    known.set(machine, moves);
  }
  return moves;
}

/** Whether every text of up to maxChars characters without quotes, backslashes and controls may follow. */
export function containsPlainText(machine: GrammarMachine, from: number, maxChars: number): boolean {
  const moves = movesOf(machine);
  const seen = new Set([from]);
  let border: readonly number[] = [from];
  for (let chars = 0; chars < maxChars && border.length > 0; chars++) {
    const reached = new Set<number>();
    for (const id of border) if (!afterOne(machine, moves, id, reached)) return false;
    // What has been seen earlier, with more characters to come, is answered already.
    border = [...reached].filter((id) => !seen.has(id));
    if (border.length > MAX_WIDTH) return false;
    for (const id of border) seen.add(id);
  }
  return true;
}

/** Collects where every single plain character leads; false where one leads nowhere. */
function afterOne(machine: GrammarMachine, moves: ClassMoves, from: number, reached: Set<number>): boolean {
  const queue: (readonly [id: number, utf8: number])[] = [[from, 0]];
  const seen = new Set<number>();
  for (let at = 0; at < queue.length; at++) {
    const [id, utf8] = queue[at]!;
    for (const [byteClass, after] of moves[utf8]!) {
      const next = machine.step(id, byteClass);
      if (next === DEAD) return false;
      if (after === 0) {
        reached.add(next);
        continue;
      }
      const key = next * 8 + after;
      if (seen.has(key)) continue;
      seen.add(key);
      queue.push([next, after]);
    }
  }
  return true;
}
