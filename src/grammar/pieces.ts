// Building blocks of rules: what may stand between two states, over bytes and calls of other rules.
import { type Dfa, liveStates, type Nfa } from "./automaton.ts";
import { type CodeSet, jsonEscapes, jsonPlainAscii, utf8Ranges } from "./code_points.ts";

/** Adds the texts of something between two states of an automaton under construction. */
export type Piece = (nfa: Nfa, from: number, to: number) => void;

/** Symbols below are bytes, symbols from here on call rule (symbol - CALL). */
export const CALL = 256;

/** How a code point is written. */
export type Spelling = "raw" | "json";

const encoder = new TextEncoder();

/** Nothing at all, which always matches. */
export const empty: Piece = (nfa, from, to) => nfa.move(from, to);

/** What never matches. */
export const never: Piece = () => {};

export function call(rule: number): Piece {
  return (nfa, from, to) => nfa.edge(from, CALL + rule, CALL + rule, to);
}

/** One byte out of flat pairs lo, hi. */
export function byteOf(...ranges: number[]): Piece {
  return (nfa, from, to) => {
    for (let i = 0; i < ranges.length; i += 2) nfa.edge(from, ranges[i]!, ranges[i + 1]!, to);
  };
}

/** The bytes of a text. */
export function literal(text: string): Piece {
  return byteString([...encoder.encode(text)].flatMap((byte) => [byte, byte]));
}

/** One of many texts, as a tree of their bytes. */
export function oneOfTexts(texts: readonly string[]): Piece {
  return (nfa, from, to) => {
    const children = new Map<number, Map<number, number>>();
    for (const text of texts) {
      let at = from;
      for (const byte of encoder.encode(text)) {
        const known = children.get(at) ?? new Map<number, number>();
        children.set(at, known);
        let next = known.get(byte);
        if (next === undefined) {
          next = nfa.state();
          known.set(byte, next);
          nfa.edge(at, byte, byte, next);
        }
        at = next;
      }
      nfa.move(at, to);
    }
  };
}

/** A sequence of byte ranges, flat pairs. */
function byteString(ranges: readonly number[]): Piece {
  return (nfa, from, to) => {
    if (ranges.length === 0) nfa.move(from, to);
    let at = from;
    for (let i = 0; i < ranges.length; i += 2) {
      const next = i + 2 === ranges.length ? to : nfa.state();
      nfa.edge(at, ranges[i]!, ranges[i + 1]!, next);
      at = next;
    }
  };
}

export function seq(...parts: readonly Piece[]): Piece {
  return (nfa, from, to) => {
    if (parts.length === 0) nfa.move(from, to);
    let at = from;
    parts.forEach((part, i) => {
      const next = i + 1 === parts.length ? to : nfa.state();
      part(nfa, at, next);
      at = next;
    });
  };
}

export function alt(...parts: readonly Piece[]): Piece {
  return (nfa, from, to) => {
    for (const part of parts) part(nfa, from, to);
  };
}

export function optional(part: Piece): Piece {
  return repeat(part, 0, 1);
}

/** Between min and max times (max may be infinite). */
export function repeat(part: Piece, min: number, max: number): Piece {
  return (nfa, from, to) => {
    let at = nfa.state();
    nfa.move(from, at);
    for (let i = 0; i < min; i++) at = append(nfa, part, at);
    if (max === Number.POSITIVE_INFINITY) {
      // A state of its own, so that the loop cannot be entered from elsewhere.
      const loop = nfa.state();
      nfa.move(at, loop);
      part(nfa, loop, loop);
      at = loop;
    } else {
      for (let i = min; i < max; i++) {
        nfa.move(at, to);
        at = append(nfa, part, at);
      }
    }
    nfa.move(at, to);
  };
}

function append(nfa: Nfa, part: Piece, from: number): number {
  const next = nfa.state();
  part(nfa, from, next);
  return next;
}

/** One code point of the set. */
export function character(set: CodeSet, spelling: Spelling): Piece {
  const ascii = spelling === "json" ? jsonPlainAscii(set) : [];
  const plain = spelling === "json" ? [...ascii, ...aboveAscii(set)] : set;
  const parts = utf8Ranges(plain).map(byteString);
  return alt(...parts, ...(spelling === "json" ? jsonEscapes(set).map(literal) : []));
}

/** One code point of the set; what is not a single byte goes through a rule, so that many edges share it. */
export function sharedCharacter(set: CodeSet, spelling: Spelling, share: (key: string, piece: Piece) => Piece): Piece {
  const single = spelling === "json" ? jsonPlainAscii(set) : asciiOf(set);
  const rest = utf8Ranges(aboveAscii(set)).length + (spelling === "json" ? jsonEscapes(set).length : 0);
  const direct = byteOf(...single);
  if (rest === 0) return direct;
  const others = spelling === "json" ? [...aboveAscii(set), ...escapedOf(set)] : aboveAscii(set);
  return alt(direct, share(`${spelling}:${others.join()}`, character(others, spelling)));
}

function asciiOf(set: CodeSet): CodeSet {
  return pick(set, (lo, hi) => [lo, Math.min(hi, 0x7f)]);
}

function aboveAscii(set: CodeSet): CodeSet {
  return pick(set, (lo, hi) => [Math.max(lo, 0x80), hi]);
}

function escapedOf(set: CodeSet): CodeSet {
  const parts = [
    [0, 0x1f],
    [0x22, 0x22],
    [0x5c, 0x5c],
  ] as const;
  return parts.flatMap(([from, to]) => pick(set, (lo, hi) => [Math.max(lo, from), Math.min(hi, to)]));
}

function pick(set: CodeSet, cut: (lo: number, hi: number) => readonly [number, number]): CodeSet {
  const out: number[] = [];
  for (let i = 0; i < set.length; i += 2) {
    const [lo, hi] = cut(set[i]!, set[i + 1]!);
    if (lo <= hi) out.push(lo, hi);
  }
  return out;
}

/** The texts of an automaton over code points. */
export function written(dfa: Dfa, spelling: Spelling, share: (key: string, piece: Piece) => Piece): Piece {
  const live = liveStates(dfa);
  return (nfa, from, to) => {
    if (!live[0]) return;
    const states = dfa.edges.map((_, i) => (live[i] ? nfa.state() : -1));
    nfa.move(from, states[0]!);
    dfa.edges.forEach((edges, state) => {
      if (!live[state]) return;
      if (dfa.final[state]) nfa.move(states[state]!, to);
      for (const [target, set] of byTarget(edges)) {
        if (live[target]) sharedCharacter(set, spelling, share)(nfa, states[state]!, states[target]!);
      }
    });
  };
}

function byTarget(edges: readonly number[]): Map<number, number[]> {
  const sets = new Map<number, number[]>();
  for (let i = 0; i < edges.length; i += 3) {
    const set = sets.get(edges[i + 2]!) ?? [];
    sets.set(edges[i + 2]!, set);
    set.push(edges[i]!, edges[i + 1]!);
  }
  return sets;
}
