// The bundled model: its tokenizer and tasks are what the code generates, and it solves both tasks.
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { createEngine } from "../../src/engine/create.ts";
import { taskEncoder } from "../../src/eval/encoder.ts";
import { evaluate, metricOf } from "../../src/eval/evaluate.ts";
import { prepareTask } from "../../src/eval/requests.ts";
import { readTaskFile } from "../../src/eval/task.ts";
import { tokenizerFiles, writeTasks } from "../../src/pretrain/model_files.ts";
import { recipeTokenizer } from "../../src/pretrain/pretrain.ts";
import { configJson, generationConfigJson, tinyRecipe } from "../../src/pretrain/recipe.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { bestOps } from "../support/kernels.ts";

const bundled = join(import.meta.dir, "..", "..", "models", "tiny");
const folder = mkdtempSync(join(tmpdir(), "graft-bundled-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const json = (name: string): unknown => JSON.parse(readFileSync(join(bundled, name), "utf8"));

describe("models/tiny", () => {
  test("has the recipe's configuration and tokenizer", () => {
    const trained = recipeTokenizer(tinyRecipe);
    const files = tokenizerFiles(trained);
    expect(json("tokenizer.json")).toEqual(files.definition);
    expect(json("tokenizer_config.json")).toEqual(files.config);
    expect(json("config.json")).toEqual(configJson(tinyRecipe, trained.vocab.size));
    expect(json("generation_config.json")).toEqual(generationConfigJson());
  });

  test("is small", () => {
    expect(statSync(join(bundled, "model.safetensors")).size).toBeLessThan(3_000_000);
  });

  test("has the tasks that the recipe's seed gives, no context in two files", () => {
    writeTasks(folder, tinyRecipe.seed, 150);
    const contexts: string[] = [];
    for (const name of ["recall/search", "recall/report", "local/search", "local/report"]) {
      const text = readFileSync(join(bundled, "tasks", `${name}.jsonl`), "utf8");
      expect(text).toBe(readFileSync(join(folder, `${name}.jsonl`), "utf8"));
      for (const line of text.trim().split("\n")) contexts.push((JSON.parse(line) as { context: string }).context);
    }
    expect(new Set(contexts).size).toBe(600);
  });

  test.each(["recall", "local"])(
    "solves %s",
    async (task) => {
      const ops = await bestOps();
      const model = loadModel(ops, bundled);
      const engine = createEngine(ops, model);
      const encoder = taskEncoder(Tokenizer.load(bundled));
      const options = {
        encoder,
        vocabSize: model.config.vocabSize,
        maxLength: engine.info.maxContext,
        bos: "auto" as const,
      };
      const prepared = prepareTask(readTaskFile(join(bundled, "tasks", task, "report.jsonl")), options);
      expect(metricOf(await evaluate(engine, "base", prepared), "acc")).toBeGreaterThanOrEqual(0.95);
      engine.close();
      model.free();
    },
    60_000,
  );
});
