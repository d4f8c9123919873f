// Over random schemas: whatever matches can be written in any tokens, whatever is written matches, and no text leads to a
// place where nothing can follow. GRAFT_GRAMMAR_CASES sets their number.
import { expect, test } from "bun:test";
import { RequestError } from "../../src/errors.ts";
import { buildVocabulary } from "../../src/grammar/build_vocabulary.ts";
import { compileGrammar } from "../../src/grammar/compile.ts";
import { type GrammarConstraint, GrammarConstraints } from "../../src/grammar/token_constraint.ts";
import { TokenVocabulary } from "../../src/grammar/vocabulary.ts";
import { randomSchema } from "./schemas.ts";
import { judge, schemaGrammar } from "./support.ts";
import { validates } from "./validator.ts";
import { randomFrom, syntheticVocabulary } from "./vocabularies.ts";

const CASES = Number(process.env.GRAFT_GRAMMAR_CASES ?? 60);
const STOP = 1999;
const vocabulary = syntheticVocabulary(2000);
const idsByText = new Map<string, number>();
for (let id = 0; id < vocabulary.size; id++) {
  const bytes = vocabulary.bytesOf(id);
  if (bytes !== null) idsByText.set(Buffer.from(bytes).toString("latin1"), id);
}
const LONGEST = Math.max(...[...idsByText.keys()].map((text) => text.length));

function constraintFor(schema: unknown): GrammarConstraint {
  return new GrammarConstraints(vocabulary).create(schemaGrammar(schema), new Set([STOP]));
}

/** What may come next, as a mask; asserts that something may. */
function allowed(constraint: GrammarConstraint): Uint32Array {
  const mask = new Uint32Array(vocabulary.maskWords);
  expect(constraint.allow(mask)).toBe(true);
  return mask;
}

function has(mask: Uint32Array, id: number): boolean {
  return ((mask[id >>> 5]! >>> (id & 31)) & 1) === 1;
}

function idsOf(mask: Uint32Array): number[] {
  return Array.from({ length: vocabulary.size }, (_, id) => id).filter((id) => has(mask, id));
}

/** The text as tokens, cut at random. */
function cut(text: string, random: () => number): number[] {
  const bytes = Buffer.from(text).toString("latin1");
  const ids: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const fitting: string[] = [];
    for (let end = at + 1; end <= Math.min(bytes.length, at + LONGEST); end++) {
      if (idsByText.has(bytes.slice(at, end))) fitting.push(bytes.slice(at, end));
    }
    const chosen = fitting[Math.floor(random() * fitting.length)]!;
    ids.push(idsByText.get(chosen)!);
    at += chosen.length;
  }
  return ids;
}

test("every value that matches can be written, however its text is cut into tokens", () => {
  for (let seed = 1; seed <= CASES; seed++) {
    const random = randomFrom(seed);
    const { schema, value } = randomSchema(random);
    const constraints = new GrammarConstraints(vocabulary);
    const grammar = schemaGrammar(schema);
    for (const indent of [0, 2, "\t"]) {
      const instance = value(random);
      expect([seed, validates(schema, instance)]).toEqual([seed, true]);
      const constraint = constraints.create(grammar, new Set([STOP]));
      let before = "";
      for (const id of cut(JSON.stringify(instance, null, indent), random)) {
        const mask = allowed(constraint);
        if (!has(mask, id))
          throw new Error(`seed ${seed}: ${JSON.stringify(schema)} refuses token ${id} after ${before}`);
        constraint.accept(id);
        before += Buffer.from(vocabulary.bytesOf(id)!).toString("latin1");
      }
      expect([before, constraint.done || has(allowed(constraint), STOP)]).toEqual([before, true]);
    }
  }
}, 120_000);

/** Throws where bytes are no UTF-8. */
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Beyond so many tokens a walk heads for the end. */
const WANDERING = 60;

/** Writes random allowed tokens until the text is complete; null where it does not end in time. */
function walk(constraint: GrammarConstraint, vocabulary: TokenVocabulary, random: () => number, stop = STOP) {
  const written: Uint8Array[] = [];
  for (let i = 0; i < 600; i++) {
    if (constraint.done) return utf8.decode(Buffer.concat(written));
    const mask = allowed(constraint);
    if (has(mask, stop) && (i > WANDERING || random() < 0.3)) return utf8.decode(Buffer.concat(written));
    const ids = idsOf(mask).filter((id) => id !== stop);
    const closing =
      i > WANDERING ? ids.filter((id) => '"}]n'.includes(String.fromCharCode(vocabulary.bytesOf(id)![0]!))) : [];
    const choice = closing.length > 0 ? closing : ids;
    const id = choice[Math.floor(random() * choice.length)]!;
    constraint.accept(id);
    written.push(vocabulary.bytesOf(id)!);
  }
  return null;
}

test("whatever is written parses and matches, and there is always a way on", () => {
  let ended = 0;
  for (let seed = 1; seed <= CASES; seed++) {
    const random = randomFrom(seed + 10_000);
    const { schema } = randomSchema(random);
    const text = walk(constraintFor(schema), vocabulary, random);
    if (text === null) continue;
    ended++;
    const value: unknown = JSON.parse(text);
    if (!validates(schema, value)) throw new Error(`seed ${seed}: ${text} does not match ${JSON.stringify(schema)}`);
  }
  expect(ended).toBeGreaterThan(0.8 * CASES);
}, 120_000);

test("masks are what trying every token says", () => {
  const schema = {
    type: "object",
    properties: {
      s: { type: "string" },
      short: { type: "string", maxLength: 10 },
      p: { type: "string", pattern: "^[a-z ]*$" },
      n: { type: "number" },
    },
    required: ["s", "short", "p", "n"],
  };
  const grammar = schemaGrammar(schema);
  const constraints = new GrammarConstraints(vocabulary);
  const fronts = [
    "",
    "{",
    '{"',
    '{"s":"',
    '{"s":"abc\\',
    '{"s":"abc\\u00',
    '{"s":"x\u00e9',
    '{"s":"","short":"',
    '{"s":"","short":"12345678',
    '{"s":"","short":"","p":"a',
    '{"s":"","short":"","p":"","n":-',
    '{"s":"","short":"","p":"","n":1',
  ];
  for (const front of fronts) {
    const constraint = constraints.create(grammar, new Set([STOP]));
    for (const byte of Buffer.from(front)) constraint.accept(byte);
    const mask = allowed(constraint);
    for (let id = 0; id < vocabulary.size; id++) {
      const bytes = vocabulary.bytesOf(id);
      const fits = bytes !== null && judge(grammar, Buffer.concat([Buffer.from(front), bytes])) !== "no";
      expect([front, id, has(mask, id)]).toEqual([front, id, fits]);
    }
  }
});

test("grammars that begin anew in between say the same", () => {
  const grammar = compileGrammar({ kind: "json_object" });
  const small = new GrammarConstraints(vocabulary, { maxTable: 2000, cacheBytes: 1 });
  const usual = new GrammarConstraints(vocabulary);
  const [a, b] = [small.create(grammar, new Set([STOP])), usual.create(grammar, new Set([STOP]))];
  const other = small.create(grammar, new Set([STOP]));
  const random = randomFrom(5);
  for (const id of cut(
    JSON.stringify({ k: [{ l: [1, [2, [3, "four"]]] }, { m: "é" }], n: { o: { p: {} } } }, null, 1),
    random,
  )) {
    expect(allowed(a)).toEqual(allowed(b));
    expect(has(allowed(other), "{".charCodeAt(0))).toBe(true);
    a.accept(id);
    b.accept(id);
  }
  expect([a.done, b.done]).toEqual([true, true]);
});

test("a grammar that is too ambiguous is given up instead of holding the engine", () => {
  const anyOf = Array.from({ length: 60 }, (_, i) => ({ type: "string", pattern: `^(.{${i + 2}}a)*$` }));
  const constraint = new GrammarConstraints(vocabulary, { maxWork: 5000 }).create(
    schemaGrammar({ anyOf }),
    new Set([STOP]),
  );
  constraint.accept('"'.charCodeAt(0));
  expect(() => constraint.allow(new Uint32Array(vocabulary.maskWords))).toThrow(RequestError);
});

test("a vocabulary that lacks bytes writes what it can and never gets stuck", () => {
  const letters = [...'{}[]":, abc'].map((char) => Buffer.from(char));
  const poor = new TokenVocabulary(
    buildVocabulary({
      vocabSize: 20,
      bytesOf: (id) => letters[id] ?? (id === 15 ? Buffer.from("a1") : null),
    }),
  );
  const constraints = new GrammarConstraints(poor);
  const object = constraints.create(
    schemaGrammar({ type: "object", properties: { b: { type: "string", maxLength: 3 } } }),
    new Set([19]),
  );
  const text = walk(object, poor, randomFrom(3), 19);
  expect(Object.keys(JSON.parse(text!)).every((key) => key === "b")).toBe(true);
  expect(() => constraints.create(schemaGrammar({ type: "integer" }), new Set([19]))).toThrow(RequestError);
});

test("stop ids come where the text is complete, and tokens without text never", () => {
  const grammar = schemaGrammar({ type: "integer" });
  const constraint = new GrammarConstraints(vocabulary).create(grammar, new Set([STOP, 10]));
  let mask = allowed(constraint);
  expect([has(mask, STOP), has(mask, 1998), has(mask, 0x31)]).toEqual([false, false, true]);
  constraint.accept(0x31);
  mask = allowed(constraint);
  // A line break is a stop id of this request, though a number cannot hold one.
  expect([has(mask, STOP), has(mask, 10), has(mask, 1998), constraint.done]).toEqual([true, true, false, false]);
  expect(() => constraint.accept(0x7d)).toThrow(RangeError);
});
