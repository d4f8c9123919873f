// How JSON is written: white space, strings, numbers, and any value at all. Every text made of these pieces is one that
// JSON.parse takes.
import {
  alt,
  byteOf,
  empty,
  literal,
  oneOfTexts,
  optional,
  type Piece,
  repeat,
  seq,
  sharedCharacter,
} from "./pieces.ts";
import type { Rules } from "./rules.ts";

/**
 * After a line break, at most so many spaces or tabs. White space is one space or one line break with its indentation,
 * so that a model cannot write white space without end.
 */
export const MAX_INDENT = 40;
/** Digits of an unbounded integer, enough for 64 bits. */
export const MAX_INTEGER_DIGITS = 19;
/** Digits before and after the point of other numbers; a double holds no more. */
export const MAX_DIGITS = 16;

const QUOTE = literal('"');
const DIGIT = byteOf(0x30, 0x39);
const HEX = byteOf(0x30, 0x39, 0x41, 0x46, 0x61, 0x66);
/** Hexadecimal digits but d; and 8 to b, c to f, 0 to 7 for what follows a d. */
const HEX_BUT_D = byteOf(0x30, 0x39, 0x41, 0x43, 0x45, 0x46, 0x61, 0x63, 0x65, 0x66);
const D = byteOf(0x44, 0x44, 0x64, 0x64);
const LOW_HALF = byteOf(0x30, 0x37);
const HIGH_SURROGATE = byteOf(0x38, 0x39, 0x41, 0x42, 0x61, 0x62);
const LOW_SURROGATE = byteOf(0x43, 0x46, 0x63, 0x66);

/** White space between two marks, or none. */
export function space(rules: Rules): Piece {
  const indent = repeat(byteOf(0x20, 0x20, 0x09, 0x09), 0, MAX_INDENT);
  return optional(rules.share("space", alt(literal(" "), seq(literal("\n"), indent))));
}

/** One character of a JSON string in any of its spellings: itself, \n and its like, or \uXXXX (two for a surrogate pair). */
function anyCharacter(rules: Rules): Piece {
  const escaped = rules.share(
    "escape",
    seq(literal("\\"), alt(...[...'"\\/bfnrt'].map(literal), seq(literal("u"), fourHex()))),
  );
  const itself = sharedCharacter([0x20, 0x21, 0x23, 0x5b, 0x5d, 0x10ffff], "raw", rules.share);
  return alt(itself, escaped);
}

function fourHex(): Piece {
  const low = seq(literal("\\u"), D, LOW_SURROGATE, HEX, HEX);
  return alt(seq(HEX_BUT_D, HEX, HEX, HEX), seq(D, LOW_HALF, HEX, HEX), seq(D, HIGH_SURROGATE, HEX, HEX, low));
}

/** A JSON string of min to max code points. */
export function anyString(rules: Rules, min = 0, max = Number.POSITIVE_INFINITY): Piece {
  return seq(QUOTE, repeat(anyCharacter(rules), min, max), QUOTE);
}

/** A quoted string whose inside is the given piece. */
export function quoted(inside: Piece): Piece {
  return seq(QUOTE, inside, QUOTE);
}

/** An integer in its plain spelling. */
export const anyInteger: Piece = wholeNumber(MAX_INTEGER_DIGITS);

/** A number; with its exponent it stays within what a double holds. */
export const anyNumber: Piece = seq(
  wholeNumber(MAX_DIGITS),
  optional(seq(literal("."), repeat(DIGIT, 1, MAX_DIGITS))),
  optional(seq(byteOf(0x45, 0x45, 0x65, 0x65), optional(byteOf(0x2b, 0x2b, 0x2d, 0x2d)), repeat(DIGIT, 1, 2))),
);

function wholeNumber(digits: number): Piece {
  const positive = seq(byteOf(0x31, 0x39), repeat(DIGIT, 0, digits - 1));
  return seq(optional(literal("-")), alt(literal("0"), positive));
}

/** A member of an object: its name's piece, and its value's. */
export function member(rules: Rules, name: Piece, value: Piece): Piece {
  return seq(name, literal(":"), space(rules), value);
}

/** What stands between two members or elements. */
export function comma(rules: Rules): Piece {
  return seq(literal(","), space(rules));
}

/** A list of min to max parts in the given marks. */
export function list(rules: Rules, open: string, close: string, part: Piece, min: number, max: number): Piece {
  const gap = space(rules);
  if (max === 0) return seq(literal(open), gap, literal(close));
  const more = repeat(seq(comma(rules), part), Math.max(0, min - 1), max - 1);
  const filled = seq(gap, part, more, gap);
  return seq(literal(open), min > 0 ? filled : alt(filled, gap), literal(close));
}

/** One of the values, each string and number in one spelling, with white space inside objects and arrays. */
export function constantsPiece(values: readonly unknown[], rules: Rules): Piece {
  const isContainer = (value: unknown) => typeof value === "object" && value !== null;
  const plain = values.filter((value) => !isContainer(value)).map((value) => JSON.stringify(value));
  return alt(oneOfTexts(plain), ...values.filter(isContainer).map((value) => constantPiece(value, rules)));
}

function constantPiece(value: unknown, rules: Rules): Piece {
  if (typeof value !== "object" || value === null) return literal(JSON.stringify(value));
  const parts = Array.isArray(value)
    ? value.map((one) => constantPiece(one, rules))
    : Object.entries(value).map(([name, one]) =>
        member(rules, literal(JSON.stringify(name)), constantPiece(one, rules)),
      );
  const between = parts.flatMap((part, i) => (i === 0 ? [part] : [comma(rules), part]));
  const gap = space(rules);
  const [open, close] = (Array.isArray(value) ? ["[", "]"] : ["{", "}"]) as [string, string];
  return seq(literal(open), gap, ...between, parts.length === 0 ? empty : gap, literal(close));
}

/** Any JSON value. */
export function anyValue(rules: Rules): Piece {
  return rules.share("any value", (nfa, from, to) => {
    alt(
      ...["true", "false", "null"].map(literal),
      rules.share("any string", anyString(rules)),
      rules.share("any number", anyNumber),
      anyObject(rules),
      anyArray(rules),
    )(nfa, from, to);
  });
}

/** Any JSON object. */
export function anyObject(rules: Rules): Piece {
  return rules.share("any object", (nfa, from, to) => {
    const name = rules.share("any string", anyString(rules));
    list(rules, "{", "}", member(rules, name, anyValue(rules)), 0, Number.POSITIVE_INFINITY)(nfa, from, to);
  });
}

/** Any JSON array. */
export function anyArray(rules: Rules): Piece {
  return rules.share("any array", (nfa, from, to) => {
    list(rules, "[", "]", anyValue(rules), 0, Number.POSITIVE_INFINITY)(nfa, from, to);
  });
}
