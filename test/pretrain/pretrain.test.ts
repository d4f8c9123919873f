// A small training run: it learns, a killed run ends like an undisturbed one, and what it writes can be loaded.
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { readTaskFile } from "../../src/eval/task.ts";
import { toBfloat16, writeText } from "../../src/pretrain/model_files.ts";
import { PretrainCancelled, pretrain, recipeTokenizer } from "../../src/pretrain/pretrain.ts";
import { type Recipe, tinyRecipe } from "../../src/pretrain/recipe.ts";
import { rateAt, Trainer } from "../../src/pretrain/trainer.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { noProgress } from "../../src/train/progress.ts";
import { bestOps } from "../support/kernels.ts";

const recipe: Recipe = {
  ...tinyRecipe,
  hiddenSize: 32,
  intermediateSize: 64,
  numLayers: 2,
  numHeads: 2,
  numKvHeads: 1,
  headDim: 16,
  tokens: 12_000,
  tokensPerStep: 256,
  warmupSteps: 5,
};
const folder = mkdtempSync(join(tmpdir(), "graft-pretrain-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const words = new Map<string, number>();
/** One id per word; enough to train on. */
const encode = (text: string): number[] =>
  text.split(" ").map((word) => {
    const id = words.get(word) ?? 10 + (words.size % 600);
    words.set(word, id);
    return id;
  });

async function newTrainer(): Promise<Trainer> {
  return new Trainer(await bestOps(), recipe, 640, encode);
}

test("rateAt() rises to the peak and falls to its share", () => {
  expect(rateAt(recipe, 0, 0)).toBeCloseTo(recipe.peakRate / 5, 6);
  expect(rateAt(recipe, 4, 0)).toBeCloseTo(recipe.peakRate, 6);
  expect(rateAt(recipe, 99, recipe.tokens)).toBeCloseTo(recipe.peakRate * recipe.finalRateShare, 6);
});

test("Trainer lowers the loss of its text", async () => {
  const trainer = await newTrainer();
  const first = trainer.trainStep();
  let last = first;
  while (!trainer.finished) last = trainer.trainStep();
  expect(first).toBeWithin(Math.log(640) - 0.5, Math.log(640) + 0.5);
  expect(last).toBeLessThan(first - 0.7);
  trainer.free();
});

test("Trainer resumed from a checkpoint equals an undisturbed one to the last bit", async () => {
  const [whole, before, after] = [await newTrainer(), await newTrainer(), await newTrainer()];
  for (let i = 0; i < 12; i++) whole.trainStep();
  for (let i = 0; i < 7; i++) before.trainStep();
  const checkpoints = mkdtempSync(join(folder, "checkpoints-"));
  before.save(checkpoints);
  expect(after.restore(checkpoints)).toBe(true);
  while (after.step < 12) after.trainStep();
  const name = "model.layers.1.self_attn.q_proj.weight";
  expect(after.model.params.read(name)).toEqual(whole.model.params.read(name));
  expect(after.stream).toEqual(whole.stream);
  for (const trainer of [whole, before, after]) trainer.free();
});

test("pretrain() stopped and started again writes the same weights as in one go", async () => {
  const ops = await bestOps();
  const [whole, parts] = [join(folder, "whole"), join(folder, "parts")];
  await pretrain({ ops, recipe, out: whole });
  let reports = 0;
  const stopping = { ...noProgress, cancelled: () => ++reports === 2 };
  await expect(pretrain({ ops, recipe, out: parts, progress: stopping })).rejects.toThrow(PretrainCancelled);
  expect(existsSync(join(parts, "config.json"))).toBe(false);
  const result = await pretrain({ ops, recipe, out: parts });
  expect(result.tokens).toBeGreaterThanOrEqual(recipe.tokens);
  for (const name of ["model.safetensors", "tokenizer.json", "config.json", "tasks/recall/search.jsonl"]) {
    expect(readFileSync(join(parts, name)).equals(readFileSync(join(whole, name)))).toBe(true);
  }
  expect(existsSync(`${parts}.checkpoints`)).toBe(false);
}, 60_000);

test("pretrain() leaves a model, a tokenizer and two tasks that load", async () => {
  const out = join(folder, "whole");
  const model = loadModel(await bestOps(), out);
  const tokenizer = Tokenizer.load(out);
  expect(model.config.numLayers).toBe(2);
  expect(model.config.vocabSize).toBe(tokenizer?.vocabSize ?? 0);
  expect(model.config.bosTokenId).toBe(tokenizer?.bosId ?? -1);
  for (const name of ["recall", "local"]) {
    const parts = ["search", "report"].map((part) => readTaskFile(join(out, "tasks", name, `${part}.jsonl`)));
    for (const task of parts) expect([task.name, task.kind, task.documents.length]).toEqual([name, "choice", 150]);
  }
  model.free();
});

test("pretrain() refuses a folder that holds something", async () => {
  writeFileSync(join(folder, "taken"), "");
  await expect(pretrain({ ops: await bestOps(), recipe, out: folder })).rejects.toThrow("exists and is not empty");
  const file = join(folder, "taken");
  await expect(pretrain({ ops: await bestOps(), recipe, out: file })).rejects.toThrow("a file is in the way");
});

test("pretrain() does not mix two trainings of one folder", async () => {
  const options = { ops: await bestOps(), recipe: { ...recipe, tokens: 3000 }, out: join(folder, "shared") };
  const first = pretrain(options);
  await expect(pretrain(options)).rejects.toThrow("another training is writing there");
  expect((await first).tokens).toBeGreaterThanOrEqual(3000);
  expect(existsSync(`${options.out}.checkpoints`)).toBe(false);
  expect(existsSync(join(options.out, "tasks", "recall", "search.jsonl"))).toBe(true);
});

test("toBfloat16() rounds to nearest, ties to even", () => {
  const rounded = toBfloat16(Float32Array.of(1, 1.00390625, 1.01171875, -2.5));
  expect([...rounded]).toEqual([0x3f80, 0x3f80, 0x3f82, 0xc020]);
});

test("writeText() writes one document a line, the same for the same seed", () => {
  const [a, b] = [join(folder, "a.jsonl"), join(folder, "b.jsonl")];
  writeText(a, 5, 40);
  writeText(b, 5, 40);
  const lines = readFileSync(a, "utf8").trim().split("\n");
  expect(lines).toHaveLength(40);
  expect(lines.every((line) => (JSON.parse(line) as { text: string }).text.length > 0)).toBe(true);
  expect(readFileSync(b, "utf8")).toBe(readFileSync(a, "utf8"));
});

test("recipeTokenizer() makes the same tokenizer every time", () => {
  expect([...recipeTokenizer(recipe).vocab]).toEqual([...recipeTokenizer(recipe).vocab]);
});
