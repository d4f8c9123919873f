// Vocabularies for tests: made-up ones of any size in the shape of byte-level BPE, and one of single bytes.

import { buildVocabulary } from "../../src/grammar/build_vocabulary.ts";
import { TokenVocabulary } from "../../src/grammar/vocabulary.ts";

/** A small deterministic generator (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const SYLLABLES = "a e i o u an en in on er re ing ion ed es th st nd ma ra ta la ca pre con per der".split(" ");
const MARKS = [
  '"',
  '":',
  '": "',
  '",',
  '", "',
  '"}',
  '{"',
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  "\\",
  "\\n",
  '\\"',
  "\n",
  "\n\n",
  "\n  ",
  "  ",
];
const OTHERS = ["é", "ü", "的", "一", "не", "на", "の", "😀", "α", "한"];

/**
 * `size` ids: every byte, then what BPE learns (words with and without a space, numbers, marks, other scripts, halves of
 * characters), and `special` ids without text at the end.
 */
export function syntheticVocabulary(size: number, seed = 1, special = 3): TokenVocabulary {
  const random = randomFrom(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
  const encoder = new TextEncoder();
  const tokens = new Map<string, Uint8Array>();
  const add = (bytes: Uint8Array) => tokens.set(Buffer.from(bytes).toString("latin1"), bytes);
  for (let byte = 0; byte < 256; byte++) add(Uint8Array.of(byte));
  for (const mark of MARKS) add(encoder.encode(mark));
  while (tokens.size < size - special) {
    const kind = random();
    if (kind < 0.75) {
      const word = Array.from({ length: 1 + Math.floor(random() * 5) }, () => pick(SYLLABLES)).join("");
      const cased = random() < 0.2 ? word[0]!.toUpperCase() + word.slice(1) : word;
      add(encoder.encode((random() < 0.6 ? " " : "") + cased));
    } else if (kind < 0.9) {
      const text = Array.from({ length: 1 + Math.floor(random() * 4) }, () => pick(OTHERS)).join("");
      const bytes = encoder.encode(text);
      add(random() < 0.2 ? bytes.slice(0, -1) : bytes);
    } else if (kind < 0.94) add(encoder.encode(String(Math.floor(random() * 1000))));
    else
      add(encoder.encode(pick(MARKS) + pick([...MARKS, ...SYLLABLES, " "]) + (random() < 0.5 ? pick(SYLLABLES) : "")));
  }
  const list = [...tokens.values()];
  return new TokenVocabulary(buildVocabulary({ vocabSize: size, bytesOf: (id) => list[id] ?? null }));
}

/** Ids are bytes; 256 has no text. */
export function byteVocabulary(): TokenVocabulary {
  return new TokenVocabulary(
    buildVocabulary({ vocabSize: 257, bytesOf: (id) => (id < 256 ? Uint8Array.of(id) : null) }),
  );
}
