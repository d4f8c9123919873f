// The story models' published scores on the two story tasks, and their perplexities.
import { expect, test } from "bun:test";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { rowEncoder } from "../../src/convert/prepare_data.ts";
import { encodeDocuments, measuringRows, numRows, rowIds } from "../../src/data/rows.ts";
import { createEngine } from "../../src/engine/create.ts";
import { taskEncoder } from "../../src/eval/encoder.ts";
import { evaluate } from "../../src/eval/evaluate.ts";
import { perplexity } from "../../src/eval/perplexity.ts";
import { prepareTask } from "../../src/eval/requests.ts";
import { readTaskFile } from "../../src/eval/task.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { dataPath, readJson } from "../support/data.ts";
import { bestOps } from "../support/kernels.ts";

interface Eval {
  readonly eval: { readonly predicted_tokens: number; readonly mean_nll: number };
}

/** acc and acc_norm on cloze search, cloze report, recall search, recall report. */
const scores = {
  tiny1m: [0.672, 0.688, 0.648, 0.752, 1, 1, 1, 1],
  stories260k: [0.448, 0.48, 0.488, 0.528, 0.966, 0.949, 0.959, 0.959],
};
const files = ["story_cloze_256", "name_recall_256"].flatMap((task) => [
  `${task}/search.jsonl`,
  `${task}/report.jsonl`,
]);

for (const [name, expected] of Object.entries(scores)) {
  const directory = dataPath(name);
  const tasks = dataPath("tasks");
  const stories = dataPath("text/tinystories_1000.json");
  test.skipIf(directory === null || tasks === null || stories === null)(
    `${name} has its published scores and perplexity`,
    async () => {
      const ops = await bestOps();
      const model = loadModel(ops, directory!);
      const engine = createEngine(ops, model);
      const tokenizer = Tokenizer.load(directory!);
      const { vocabSize, maxPositions: maxLength } = model.config;
      const found: number[] = [];
      for (const file of files) {
        const task = prepareTask(readTaskFile(join(tasks!, file)), {
          encoder: taskEncoder(tokenizer),
          vocabSize,
          maxLength,
        });
        expect(task.bos).toBe("always");
        const { metrics } = await evaluate(engine, "base", task);
        found.push(metrics.acc!.mean, metrics.acc_norm!.mean);
      }
      expect(found.map((score) => Math.round(score * 1000) / 1000)).toEqual(expected);

      const texts = readJson<string[]>(stories!).slice(0, 100);
      const ascii = texts
        .filter((text) => [...text].every((letter) => letter.charCodeAt(0) < 128))
        .map((text) => ({ text }));
      const rows = measuringRows(encodeDocuments(ascii, rowEncoder(tokenizer), vocabSize), maxLength);
      const reference = readJson<Eval>(join(directory!, "reference.json")).eval;
      const result = await perplexity(
        engine,
        "base",
        Array.from({ length: numRows(rows) }, (_, row) => rowIds(rows, row)),
      );
      expect(result.predictedTokens).toBe(reference.predicted_tokens);
      expect(Math.abs(result.meanNll - reference.mean_nll)).toBeLessThan(1e-4);
      engine.close();
      model.free();
    },
    60_000,
  );
}
