// Against what lm-evaluation-harness computed, document by document: ids of contexts and continuations, what is cut,
// log-likelihoods, predictions and aggregates.
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { createEngine } from "../../src/engine/create.ts";
import { taskEncoder } from "../../src/eval/encoder.ts";
import { evaluate } from "../../src/eval/evaluate.ts";
import { cutLeft, encodeText, type PreparedTask, type TaskEncoder } from "../../src/eval/requests.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { dataPath, readJson } from "../support/data.ts";
import { bestOps } from "../support/kernels.ts";

interface Expected {
  readonly task: string;
  readonly settings: { readonly max_length: number };
  readonly metrics: Readonly<Record<string, number>>;
  readonly docs: readonly {
    readonly contexts: readonly { readonly text: string; readonly ids: number[] }[];
    readonly requests: readonly {
      readonly context: number;
      readonly continuation: string;
      readonly ids: number[];
      readonly ll: number;
      readonly is_greedy: boolean;
      readonly dropped: number;
    }[];
    readonly lengths?: readonly number[];
    readonly gold: number;
    readonly pred: number;
    readonly pred_norm?: number;
    readonly acc: number;
  }[];
}

const harness = dataPath("harness");
const models = {
  stories260k: "../stories260k",
  tiny1m: "../tiny1m",
  "rand-qwen2": "models/rand-qwen2",
  "rand-gpt2": "models/rand-gpt2",
};
type Model = keyof typeof models;

const directoryOf = (model: Model) => join(harness ?? "", models[model]);
const expectedFiles = (model: Model, bos: string): Expected[] => {
  const folder = join(harness!, "expected", model, bos);
  return readdirSync(folder)
    .sort()
    .map((file) => readJson<Expected>(join(folder, file)));
};

function prepared(expected: Expected, encoder: TaskEncoder, special: boolean): PreparedTask {
  const maxLength = expected.settings.max_length;
  const documents = expected.docs.map((document, i) => ({
    id: String(i),
    requests: document.requests.map(({ context, continuation }) =>
      cutLeft(encodeText(document.contexts[context]!.text, continuation, encoder, special), maxLength),
    ),
    lengths: document.lengths ?? document.requests.map(() => 1),
    gold: document.gold,
  }));
  return { name: expected.task, kind: "choice", bos: special ? "always" : "never", maxLength, documents };
}

describe.skipIf(harness === null)("requests equal the harness's", () => {
  const cases = (Object.keys(models) as Model[]).flatMap((model) =>
    harness === null ? [] : readdirSync(join(harness, "expected", model)).map((bos) => [model, bos] as const),
  );
  test.each(cases)("%s with %s", (model, bos) => {
    const encoder = taskEncoder(Tokenizer.load(directoryOf(model)))!;
    let count = 0;
    for (const expected of expectedFiles(model, bos)) {
      const task = prepared(expected, encoder, bos === "bos-always");
      expected.docs.forEach((document, d) => {
        document.requests.forEach((request, r) => {
          const { contextIds, continuationIds, dropped } = task.documents[d]!.requests[r]!;
          const place = `${expected.task} ${d} ${r}`;
          expect([place, continuationIds]).toEqual([place, request.ids]);
          expect([place, dropped]).toEqual([place, request.dropped]);
          expect([place, contextIds]).toEqual([place, document.contexts[request.context]!.ids.slice(dropped)]);
          count++;
        });
      });
    }
    expect(count).toBeGreaterThan(900);
  });

  test("the default policy is the tokenizer's own", () => {
    const adds = (model: Model) => taskEncoder(Tokenizer.load(directoryOf(model)))!.addsSpecialTokens;
    expect((Object.keys(models) as Model[]).map(adds)).toEqual([true, true, false, false]);
  });
});

/** Enough to meet every kind of row once without scoring all of them. */
const scored: readonly (readonly [Model, string, readonly string[]])[] = [
  ["stories260k", "bos-always", ["arc_easy", "openbookqa", "winogrande", "commonsense_qa"]],
  ["tiny1m", "bos-never", ["arc_challenge", "sciq"]],
];

describe.skipIf(harness === null)("scores equal the harness's", () => {
  test.each(scored)(
    "%s with %s",
    async (model, bos, tasks) => {
      const ops = await bestOps();
      const loaded = loadModel(ops, directoryOf(model), { dtype: "f32" });
      const engine = createEngine(ops, loaded);
      const encoder = taskEncoder(Tokenizer.load(directoryOf(model)))!;
      for (const expected of expectedFiles(model, bos).filter(({ task }) => tasks.includes(task))) {
        const result = await evaluate(engine, "base", prepared(expected, encoder, bos === "bos-always"));
        expected.docs.forEach((document, d) => {
          const record = result.documents[d]!;
          document.requests.forEach(({ ll }, r) => {
            expect(Math.abs(record.logLikelihoods[r]! - ll)).toBeLessThan(Math.max(1e-4, 5e-7 * Math.abs(ll)));
          });
          expect(record.predicted).toBe(document.pred);
          if (document.pred_norm !== undefined) expect(record.predictedNorm).toBe(document.pred_norm);
          expect(record.acc).toBe(document.acc);
        });
        expect(result.metrics.acc!.mean).toBeCloseTo(expected.metrics.acc!, 12);
        expect(result.metrics.acc!.standardError!).toBeCloseTo(expected.metrics.acc_stderr!, 12);
        if (expected.metrics.acc_norm !== undefined) {
          expect(result.metrics.acc_norm!.mean).toBeCloseTo(expected.metrics.acc_norm, 12);
        }
      }
      engine.close();
      loaded.free();
    },
    60_000,
  );
});
