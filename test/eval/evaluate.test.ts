import { describe, expect, test } from "bun:test";
import { loadModel } from "../../models/load.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { ScoreRequest } from "../../src/engine/types.ts";
import { type EvalEngine, evaluate, metricOf, outcomes } from "../../src/eval/evaluate.ts";
import { perplexity } from "../../src/eval/perplexity.ts";
import { prepareTask } from "../../src/eval/requests.ts";
import { parseTask } from "../../src/eval/task.ts";
import { tinyLlama, withTemporary, writeCheckpoint } from "../support/checkpoints.ts";
import { bestOps } from "../support/kernels.ts";

const options = { encoder: null, vocabSize: 40, maxLength: 64 };

/** Scores a continuation by minus its first id; id 39 is not a number. */
const byId: EvalEngine = {
  score: (requests: readonly ScoreRequest[]) =>
    requests.map(({ continuationIds }) => ({
      logprobs: Float32Array.from(continuationIds, (id) => (id === 39 ? Number.NaN : -id)),
      argmax: Int32Array.from(continuationIds),
      greedy: continuationIds[0] === 7,
    })),
  generate: (requests) =>
    requests.map(({ maxTokens }) => ({
      tokenIds: Array.from({ length: maxTokens }, () => 7),
      finishReason: "length" as const,
      usage: { promptTokens: 1, completionTokens: maxTokens, cachedTokens: 0 },
    })),
};

describe("evaluate()", () => {
  test("gives a record per document, metrics with errors, and the predicted labels", async () => {
    const task = prepareTask(
      parseTask(
        ['[[3],[5]],"gold":0', '[[9],[4,4]],"gold":1', '[[2],[1]],"gold":0', '[[6],[5]],"gold":1']
          .map((rest) => `{"context_ids":[1],"choices_ids":${rest}}`)
          .join("\n"),
        "t",
        "t",
      ),
      options,
    );
    const seen: number[] = [];
    const result = await evaluate(byId, "base", task, { batch: 3, onDocument: (done) => seen.push(done) });
    expect(seen).toEqual([3, 4]);
    expect(outcomes(result, "acc")).toEqual([1, 1, 0, 1]);
    expect(outcomes(result, "acc_norm")).toEqual([1, 1, 0, 1]);
    expect(result.documents[1]!.logLikelihoods).toEqual([-9, -8]);
    expect(result).toMatchObject({ bos: "ids", numDocuments: 4, numFailed: 0, predictedLabels: [1, 3] });
    expect(result.metrics.acc).toEqual({ mean: 0.75, standardError: 0.25 });
    expect(metricOf(result, "acc_norm")).toBe(0.75);
    expect(metricOf(result, "exact_match")).toBeNaN();
  });

  test("a log-likelihood that is not a number fails its document and the whole score", async () => {
    const task = prepareTask(
      parseTask(
        '{"context_ids":[1],"choices_ids":[[3],[39]],"gold":0}\n{"context_ids":[2],"choices_ids":[[3],[4]],"gold":0}',
        "t",
        "t",
      ),
      options,
    );
    const result = await evaluate(byId, "base", task);
    expect(result.numFailed).toBe(1);
    expect(outcomes(result, "acc")).toEqual([0, 1]);
    expect(metricOf(result, "acc")).toBeNaN();
  });

  test("completions match by greedy ids, or by the text that is decoded", async () => {
    const lines = '{"context_ids":[1],"completion_ids":[7,7]}\n{"context_ids":[1],"completion_ids":[8,7]}';
    const task = prepareTask(parseTask(lines, "t", "t"), options);
    expect(outcomes(await evaluate(byId, "base", task), "exact_match")).toEqual([1, 0]);
    const generated = await evaluate(byId, "base", task, { generate: { decode: String } });
    expect(outcomes(generated, "exact_match")).toEqual([1, 0]);
    expect(generated.documents.map((record) => record.generated)).toEqual(["7 7", "7 7"]);
  });

  test("greedy ids under scoring are what the engine generates", () =>
    withTemporary(async (folder) => {
      const ops = await bestOps();
      const model = loadModel(ops, writeCheckpoint(folder, tinyLlama));
      const engine = createEngine(ops, model);
      const contexts = Array.from({ length: 12 }, (_, i) => [1, 2 + i, 3 + 2 * i]);
      const written = engine.generate(contexts.map((promptIds) => ({ promptIds, maxTokens: 3 })));
      const lines = contexts.flatMap((context, i) => {
        const ids = written[i]!.tokenIds;
        return [ids, [(ids[0]! + 1) % 40, ...ids.slice(1)]].map((completion) =>
          JSON.stringify({ context_ids: context, completion_ids: completion }),
        );
      });
      const task = prepareTask(parseTask(lines.join("\n"), "t", "t"), options);
      const expected = contexts.flatMap(() => [1, 0]);
      expect(outcomes(await evaluate(engine, "base", task), "exact_match")).toEqual(expected);
      const generate = { decode: (ids: readonly number[]) => ids.join(" ") };
      expect(outcomes(await evaluate(engine, "base", task, { generate }), "exact_match")).toEqual(expected);
      engine.close();
      model.free();
    }));
});

test("perplexity() is the exponential of the mean over all predicted ids", async () => {
  const result = await perplexity(
    byId,
    "base",
    [
      [1, 2, 3],
      [5, 1],
    ],
    1,
  );
  expect(result).toEqual({ predictedTokens: 3, meanNll: 2, perplexity: Math.exp(2) });
});
