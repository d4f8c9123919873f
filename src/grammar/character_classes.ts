// The classes of characters that regular expressions name: \d and its like, the dot, Unicode properties.
import { type CodeSet, codeSet, complement, MAX_CODE } from "./code_points.ts";

const DIGITS = codeSet([0x30, 0x39]);
const WORD = codeSet([0x30, 0x39, 0x41, 0x5a, 0x5f, 0x5f, 0x61, 0x7a]);
const SPACES = codeSet([
  ...[9, 13, 0x20, 0x20, 0xa0, 0xa0, 0x1680, 0x1680, 0x2000, 0x200a, 0x2028, 0x2029],
  ...[0x202f, 0x202f, 0x205f, 0x205f, 0x3000, 0x3000, 0xfeff, 0xfeff],
]);
/** What a dot stands for: everything but the ends of lines. */
export const DOT = complement(codeSet([10, 10, 13, 13, 0x2028, 0x2029]));
/** Classes by the letter behind their backslash. */
export const CLASSES: Readonly<Record<string, CodeSet>> = {
  d: DIGITS,
  D: complement(DIGITS),
  w: WORD,
  W: complement(WORD),
  s: SPACES,
  S: complement(SPACES),
};
const properties = new Map<string, CodeSet | null>();

/** Members of a Unicode property as this runtime knows it; null for an unknown name. */
export function propertySet(name: string): CodeSet | null {
  const known = properties.get(name);
  if (known !== undefined) return known;
  if (properties.size > 64) properties.clear();
  const set = scanProperty(name);
  properties.set(name, set);
  return set;
}

function scanProperty(name: string): CodeSet | null {
  let test: RegExp;
  try {
    test = new RegExp(`^\\p{${name}}$`, "u");
  } catch {
    return null;
  }
  const pairs: number[] = [];
  for (let code = 0; code <= MAX_CODE; code++) {
    if (code === 0xd800) code = 0xe000;
    if (test.test(String.fromCodePoint(code))) pairs.push(code, code);
  }
  return codeSet(pairs);
}
