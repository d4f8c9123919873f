// Shapes and random models: published sizes, and values that depend on the seed alone.
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createRandomModel, createRandomPool } from "../../models/random_model.ts";
import { shapeConfig, shapeNames } from "../../models/shapes.ts";
import { configParams } from "../../src/bench/costs.ts";
import { randomPrompts } from "../../src/bench/prompts.ts";
import { createEngine } from "../../src/engine/create.ts";
import { bestOps } from "../support/kernels.ts";

/** As the models' cards give them. */
const published: Readonly<Record<string, number>> = {
  "smollm2-135m": 134_515_008,
  "smollm2-360m": 361_821_120,
  "qwen2.5-0.5b": 494_032_768,
  "qwen3-0.6b": 596_049_920,
  "llama-3.2-1b": 1_235_814_400,
  "qwen2.5-1.5b": 1_543_714_304,
  "llama-3.2-3b": 3_212_749_824,
  "llama-3.1-8b": 8_030_261_248,
};

test("every shape but the bundled model's has a published size", () => {
  expect(shapeNames).toEqual(["tiny", ...Object.keys(published)]);
});

test.each(Object.keys(published))("shape %s has its published number of parameters", (name) => {
  expect(configParams(shapeConfig(name))).toBe(published[name]!);
});

test("the bundled model's shape is what its config.json says", () => {
  const file = join(import.meta.dir, "..", "..", "models", "tiny", "config.json");
  expect(shapeConfig("tiny").raw).toEqual(JSON.parse(readFileSync(file, "utf8")));
});

test("an unknown shape is refused with the known ones", () => {
  expect(() => shapeConfig("llama-9b")).toThrow('Cannot find shape "llama-9b", expected tiny | ');
  expect(() => shapeConfig("toString")).toThrow("Cannot find shape");
});

async function greedyTokens(seed: number): Promise<number[]> {
  const ops = await bestOps();
  const config = shapeConfig("tiny");
  const model = createRandomModel(ops, config, { seed });
  const pool = createRandomPool(ops, model, "jet", { seed });
  const engine = createEngine(ops, model, { maxSequences: 1, kvBytes: 1 << 22, stateBytes: 1 << 22 });
  try {
    engine.addPool(pool);
    engine.registerHybrid({ name: "half", layers: config.linearLayers.map((_, i) => (i % 2 ? "jet" : null)) });
    const [promptIds] = randomPrompts(config.vocabSize, 1, 20);
    return engine.generate([{ hybrid: "half", promptIds: promptIds!, maxTokens: 12 }])[0]!.tokenIds;
  } finally {
    engine.close();
    pool.free();
    model.free();
  }
}

test("random weights depend on the seed alone", async () => {
  const first = await greedyTokens(1);
  expect(await greedyTokens(1)).toEqual(first);
  expect(await greedyTokens(2)).not.toEqual(first);
});

test("random prompts lie in the vocabulary and differ", () => {
  const prompts = randomPrompts(7, 3, 50);
  expect(prompts.map((ids) => ids.length)).toEqual([50, 50, 50]);
  expect(new Set(prompts.flatMap((ids) => [...ids]))).toEqual(new Set([0, 1, 2, 3, 4, 5, 6]));
  expect(new Set(prompts.map(String)).size).toBe(3);
});
