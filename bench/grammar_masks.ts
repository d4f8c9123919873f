// What grammars cost on a vocabulary of 128,256 made-up byte-level tokens: preparing it, compiling, and the mask of one
// token, the first time a place is met (cold) and afterwards (warm). Usage: bun bench/grammar_masks.ts

import { buildVocabulary } from "../src/grammar/build_vocabulary.ts";
import { compileGrammar, type GrammarSpec } from "../src/grammar/compile.ts";
import { GrammarConstraints } from "../src/grammar/token_constraint.ts";
import { TokenVocabulary } from "../src/grammar/vocabulary.ts";
import { randomFrom, syntheticVocabulary } from "../test/grammar/vocabularies.ts";

const STOP = 128_255;
const TEXTS = 8;
const TOKENS = 80;

const record = {
  type: "object",
  properties: {
    name: { type: "string" },
    age: { type: "integer", minimum: 0, maximum: 130 },
    email: { type: "string", format: "email" },
    tags: { type: "array", items: { type: "string", maxLength: 40 } },
    kind: { enum: ["a", "bc", "long name"] },
    scores: { type: "object", additionalProperties: { type: "number" } },
  },
  required: ["name", "age", "email", "tags", "kind", "scores"],
};
const call = {
  begin: '<tool_call>\n{"name": "x", "arguments": ',
  schema: record,
  end: "}\n</tool_call>",
  trigger: "<tool_call>",
};
const specs: Readonly<Record<string, GrammarSpec>> = {
  json_object: { kind: "json_object" },
  "schema of six properties": { kind: "json_schema", schema: record },
  "string of 300 to 2000": { kind: "json_schema", schema: { type: "string", minLength: 300, maxLength: 2000 } },
  "pattern {20,400}": { kind: "json_schema", schema: { type: "string", pattern: "^[A-Za-z ]{20,400}$" } },
  regex: { kind: "regex", pattern: "[a-z ]+@[a-z]+\\.com" },
  "10,000 choices": { kind: "choice", choices: Array.from({ length: 10_000 }, (_, i) => `choice ${i * 7919}`) },
  "free text with calls": { kind: "tagged", tags: [call], required: false, multiple: true },
};

const source = syntheticVocabulary(STOP + 1);
const begun = performance.now();
const vocabulary = new TokenVocabulary(
  buildVocabulary({ vocabSize: source.size, bytesOf: (id) => source.bytesOf(id) }),
);
console.log(
  `vocabulary of ${source.size}: ${(performance.now() - begun).toFixed(0)} ms, ${vocabulary.tree.byte.length} nodes`,
);
console.log(
  "grammar                     compile ms   places   cold mean ms   cold max ms   warm mean ms   warm max ms",
);
for (const [name, spec] of Object.entries(specs)) {
  const started = performance.now();
  const grammar = compileGrammar(spec);
  const compileMs = performance.now() - started;
  const constraints = new GrammarConstraints(vocabulary);
  // The second walk goes the same way, so that every place of it has been met.
  const [first, warm] = [walk(constraints, grammar), walk(constraints, grammar)];
  const cold = first.filter((ms) => ms > 0.02);
  const columns = [compileMs, cold.length, mean(cold), Math.max(...cold), mean(warm), Math.max(...warm)];
  const widths = [13, 9, 15, 14, 15, 14];
  console.log(
    name.padEnd(25) +
      columns.map((value, i) => value.toFixed(i === 1 ? 0 : i < 1 ? 1 : 3).padStart(widths[i]!)).join(""),
  );
}

/** Milliseconds of each mask along some random texts. */
function walk(constraints: GrammarConstraints, grammar: ReturnType<typeof compileGrammar>): number[] {
  const random = randomFrom(7);
  const times: number[] = [];
  for (let text = 0; text < TEXTS; text++) {
    const constraint = constraints.create(grammar, new Set([STOP]));
    const mask = new Uint32Array(vocabulary.maskWords);
    for (let i = 0; i < TOKENS && !constraint.done; i++) {
      mask.fill(0);
      const started = performance.now();
      constraint.allow(mask);
      times.push(performance.now() - started);
      const id = pick(mask, random);
      if (id === STOP) break;
      constraint.accept(id);
    }
  }
  return times;
}

function pick(mask: Uint32Array, random: () => number): number {
  const ids: number[] = [];
  mask.forEach((word, at) => {
    for (let rest = word; rest !== 0; rest &= rest - 1) ids.push(32 * at + 31 - Math.clz32(rest & -rest));
  });
  return ids[Math.floor(random() * ids.length)]!;
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
}
