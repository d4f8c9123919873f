// The four real checkpoints against their float64 references: logits, log-probabilities, greedy tokens, the sorting task.
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import type { LoadedModel } from "../../models/model.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { dataPath, readJson } from "../support/data.ts";
import { bestOps } from "../support/kernels.ts";
import { argmax, logProbability, ModelRun } from "../support/run_model.ts";

/** A float32 forward pass agrees with the float64 references to about this. */
const LOGIT_LIMIT = 1e-3;

interface StoryReference {
  readonly greedy: {
    readonly prompt_ids: number[];
    readonly new_ids: number[];
    readonly logits: { readonly position: number; readonly top10: { readonly id: number; readonly logit: number }[] }[];
  }[];
  readonly fixed_text: { readonly ids: number[]; readonly log_probs_of_ids_1_to_end: number[] };
}

interface SortReference {
  readonly examples: {
    readonly prompt_ids: number[];
    readonly new_ids: number[];
    readonly ids_fed: number[];
    readonly logits_every_position: number[][];
  }[];
}

function openRun(ops: Ops, model: LoadedModel, sequences = 1): ModelRun {
  return new ModelRun(ops, model.backbone, model.mixers, { sequences, maxTokens: model.config.maxPositions });
}

function checkStory(ops: Ops, directory: string): void {
  const reference = readJson<StoryReference>(join(directory, "reference.json"));
  const model = loadModel(ops, directory);
  for (const { prompt_ids, new_ids, logits } of reference.greedy) {
    const run = openRun(ops, model);
    expect(run.greedy(0, prompt_ids, new_ids.length)).toEqual(new_ids);
    run.close();
    const again = openRun(ops, model);
    const rows = again.forward([{ sequence: 0, ids: [...prompt_ids, ...new_ids.slice(0, -1)] }]);
    for (const { position, top10 } of logits) {
      for (const { id, logit } of top10) expect(Math.abs(rows[position]![id]! - logit)).toBeLessThan(LOGIT_LIMIT);
    }
    again.close();
  }
  const { ids, log_probs_of_ids_1_to_end: expected } = reference.fixed_text;
  const run = openRun(ops, model);
  const rows = run.forward([{ sequence: 0, ids: ids.slice(0, -1) }]);
  expect(rows.length).toBe(expected.length);
  rows.forEach((row, i) => {
    expect(Math.abs(logProbability(row, ids[i + 1]!) - expected[i]!)).toBeLessThan(LOGIT_LIMIT);
  });
  run.close();
  model.free();
}

function checkSortExamples(ops: Ops, directory: string): void {
  const model = loadModel(ops, directory);
  for (const example of readJson<SortReference>(join(directory, "reference.json")).examples) {
    const run = openRun(ops, model);
    const rows = run.forward([{ sequence: 0, ids: example.ids_fed }]);
    example.logits_every_position.forEach((expected, position) => {
      expected.forEach((logit, id) => {
        expect(Math.abs(rows[position]![id]! - logit)).toBeLessThan(LOGIT_LIMIT);
      });
    });
    run.close();
  }
  model.free();
}

/** Sorts all 729 inputs in one ragged batch; returns how many come out exactly sorted. */
function countSorted(ops: Ops, directory: string): number {
  const inputs = Array.from({ length: 729 }, (_, n) => Array.from({ length: 6 }, (_, i) => Math.floor(n / 3 ** i) % 3));
  const model = loadModel(ops, directory);
  const run = openRun(ops, model, inputs.length);
  const outputs = inputs.map((): number[] => []);
  let rows = run.forward(inputs.map((ids, sequence) => ({ sequence, ids }))).filter((_, i) => i % 6 === 5);
  for (let step = 0; step < 6; step++) {
    rows.forEach((row, i) => void outputs[i]!.push(argmax(row)));
    if (step < 5) rows = run.forward(outputs.map((out, sequence) => ({ sequence, ids: [out.at(-1)!] })));
  }
  run.close();
  model.free();
  return outputs.filter((out, i) => out.join() === [...inputs[i]!].sort().join()).length;
}

describe("real checkpoints", () => {
  for (const name of ["tiny1m", "stories260k", "babyllama105"]) {
    const directory = dataPath(name);
    test.skipIf(!directory)(`${name} gives its reference's greedy tokens, logits and log-probabilities`, async () => {
      checkStory(await bestOps(), directory!);
    });
  }
  const sort = dataPath("gpt-nano-sort");
  test.skipIf(!sort)("gpt-nano-sort gives its reference's logits", async () => {
    checkSortExamples(await bestOps(), sort!);
  });
  test.skipIf(!sort)("gpt-nano-sort sorts 729 of 729 inputs", async () => {
    expect(countSorted(await bestOps(), sort!)).toBe(729);
  });
});
