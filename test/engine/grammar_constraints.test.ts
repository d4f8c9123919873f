// The bundled model under grammars: whatever the seed, its texts parse and match.
import { expect, test } from "bun:test";
import { join, resolve } from "node:path";
import { openEngine } from "../../src/engine/load.ts";
import { RequestError } from "../../src/errors.ts";
import { compileGrammar, type GrammarSpec } from "../../src/grammar/compile.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { validates } from "../grammar/validator.ts";
import { dataDir, skipReason } from "../text/support.ts";

const modelDir = join(import.meta.dir, "..", "..", "models", "tiny");
const PERSON = {
  type: "object",
  properties: {
    name: { type: "string", minLength: 1, maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 130 },
    mood: { enum: ["glad", "sad", null] },
    pets: { type: "array", items: { type: "string", pattern: "^[a-z]{2,6}$" }, maxItems: 2 },
    born: { type: "string", format: "date" },
  },
  required: ["name", "age", "pets"],
  additionalProperties: false,
};

test("every text under a grammar matches it, at temperature 1 and for many seeds", async () => {
  const { engine, close } = await openEngine({ modelDir, threads: 1 });
  const tokenizer = Tokenizer.load(modelDir)!;
  const promptIds = tokenizer.encode("Tom had a");
  const specs: [GrammarSpec, (text: string) => boolean][] = [
    [{ kind: "json_schema", schema: PERSON }, (text) => validates(PERSON, JSON.parse(text))],
    [
      { kind: "regex", pattern: "[A-Z][a-z]{2,9}( [a-z]{1,8}){2}\\." },
      (text) => /^[A-Z][a-z]{2,9}( [a-z]{1,8}){2}\.$/.test(text),
    ],
    [{ kind: "choice", choices: ["yes", "no", "it depends"] }, (text) => ["yes", "no", "it depends"].includes(text)],
  ];
  for (const [spec, matches] of specs) {
    const constraint = compileGrammar(spec);
    const requests = Array.from({ length: 24 }, (_, seed) => ({
      promptIds,
      maxTokens: 400,
      sampling: { temperature: seed % 4 === 3 ? 2 : 1, seed },
      stopIds: [tokenizer.eosId!],
      constraint,
    }));
    for (const { tokenIds, finishReason } of engine.generate(requests)) {
      expect(finishReason).toBe("stop");
      const text = tokenizer.decode(tokenIds, { continuation: true });
      expect([text, matches(text)]).toEqual([text, true]);
    }
  }
  close();
}, 60_000);

for (const name of ["tiny1m", "stories260k"]) {
  const directory = resolve(dataDir, name);
  test.skipIf(skipReason(directory))(`${name} under the same schema`, async () => {
    const { engine, close } = await openEngine({ modelDir: directory, threads: 1 });
    const tokenizer = Tokenizer.load(directory)!;
    const constraint = compileGrammar({ kind: "json_schema", schema: PERSON });
    const requests = Array.from({ length: 8 }, (_, seed) => ({
      promptIds: tokenizer.encode("Once upon a time"),
      maxTokens: 250,
      sampling: { temperature: 1, seed },
      stopIds: tokenizer.eosId === null ? [] : [tokenizer.eosId],
      constraint,
    }));
    for (const { tokenIds, finishReason } of engine.generate(requests)) {
      const text = tokenizer.decode(tokenIds, { continuation: true });
      expect([text, finishReason]).toEqual([text, "stop"]);
      expect([text, validates(PERSON, JSON.parse(text))]).toEqual([text, true]);
    }
    close();
  });
}

test("what the engine cannot follow is refused when it is asked", async () => {
  const { engine, close } = await openEngine({ modelDir, threads: 1 });
  const constraint = { ...compileGrammar({ kind: "choice", choices: [""] }) };
  expect(() => engine.add({ promptIds: [5], maxTokens: 4, constraint })).toThrow(RequestError);
  close();
});
