// Tiny golden hybrids: a hit at every length, in several chunkings, and shared contexts, to the bytes of a cold run.
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { EngineOptions, ScoreRequest, ScoreResult } from "../../src/engine/types.ts";
import { goldenDir, goldenFiles } from "../support/golden.ts";
import { isas, opsOf } from "../support/kernels.ts";
import { Random } from "./random.ts";

const LENGTHS = 60;

/** Runs `body` with an engine over a golden model; logits by predicted position of the sequence that ran last. */
async function withEngine(
  isa: (typeof isas)[number],
  directory: string,
  options: EngineOptions,
  body: (engine: Engine, logits: Map<number, Float32Array>) => void,
): Promise<void> {
  const ops = await opsOf(isa);
  const model = loadModel(ops, directory);
  const logits = new Map<number, Float32Array>();
  const tap = (_: number, position: number, row: Float32Array) => void logits.set(position, row);
  const engine = createEngine(ops, model, { stateBytes: 1 << 24, kvBytes: 1 << 22, ...options }, { tap });
  body(engine, logits);
  engine.close();
  model.free();
}

/** Results in the order of the requests, and the rows that they took. */
function scoreCounting(engine: Engine, requests: readonly ScoreRequest[]): { results: ScoreResult[]; rows: number } {
  const ids = requests.map((request) => engine.addScore(request));
  const results: ScoreResult[] = [];
  let rows = 0;
  while (engine.hasWork) {
    const step = engine.step();
    rows += step.numPrefillTokens + step.numDecodeTokens;
    for (const { id, result } of step.scores) results[ids.indexOf(id)] = result;
  }
  return { results, rows };
}

for (const golden of goldenFiles("model")) {
  const directory = join(goldenDir, "models", golden.name.replace(/^model_/, ""));
  describe.skipIf(!existsSync(directory))(golden.name, () => {
    const random = new Random(7);
    const vocab = golden.shape("output.logits")[2]!;
    const text = Array.from({ length: LENGTHS }, () => random.between(0, vocab - 1));

    for (const isa of isas) {
      test(`${isa}: a hit at every length gives the logits of a cold run`, async () => {
        const cold = new Map<number, Float32Array>();
        await withEngine(isa, directory, { prefixCacheBytes: 0 }, (engine, logits) => {
          const contextIds = text.slice(0, 1);
          engine.score([{ contextIds, continuationIds: [...text.slice(1), 0] }]);
          for (const [position, row] of logits) cold.set(position, row);
        });
        for (const [pageSize, maxBatchTokens] of [
          [4, 512],
          [3, 7],
          [16, 1],
        ] as const) {
          await withEngine(isa, directory, { pageSize, maxBatchTokens, snapshotTokens: 24 }, (engine, logits) => {
            for (let length = 2; length <= LENGTHS; length++) {
              logits.clear();
              const [result] = engine.generate([{ promptIds: text.slice(0, length), maxTokens: 1 }]);
              expect(logits.get(length)).toEqual(cold.get(length)!);
              // The prompt before was one token shorter, and kept to its end where it filled a page.
              if (length > pageSize) expect(result!.usage.cachedTokens).toBe(length - 1);
            }
            expect(engine.stats().prefixHits).toBeGreaterThan(0);
          });
        }
      });

      test(`${isa}: choices that share a context score as each alone`, async () => {
        await withEngine(isa, directory, { pageSize: random.pick([3, 4, 16]) }, (engine) => {
          const requests: ScoreRequest[] = [];
          for (let document = 0; document < 6; document++) {
            const contextIds = text.slice(document, document + random.between(2, 40) + 10);
            for (let choice = 0; choice < 4; choice++) {
              const continuationIds = Array.from({ length: random.between(1, 6) }, () => random.between(0, vocab - 1));
              requests.push({ contextIds, continuationIds });
            }
          }
          const together = scoreCounting(engine, requests);
          const alone = requests.map((request) => scoreCounting(engine, [request]));
          expect(together.results).toEqual(alone.flatMap(({ results }) => results));
          expect(together.rows).toBeLessThan(0.7 * alone.reduce((sum, { rows }) => sum + rows, 0));
        });
      });
    }
  });
}
