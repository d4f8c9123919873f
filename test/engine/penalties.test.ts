// Penalties, biases and log-probabilities through the engine: every token of a text is the one that a plain sampler draws
// from the model's own logits and the text so far, also after preemptions and beside other sequences.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import type { LoadedModel } from "../../models/model.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { EngineOptions, GenerateRequest, TokenLogprob } from "../../src/engine/types.ts";
import { goldenDir } from "../support/golden.ts";
import { bestOps } from "../support/kernels.ts";
import { plainAdjust, plainDraw, plainLogprob, plainTop } from "../support/plain_sampler.ts";

const modelDir = join(goldenDir, "models", "tiny_llama");
const skip = !existsSync(modelDir);
if (skip) console.error(`skipped: no golden models in ${goldenDir} (set GRAFT_GOLDEN)`);

const SAMPLING: GenerateRequest["sampling"][] = [
  { repetitionPenalty: 1.3 },
  { presencePenalty: 1.5, temperature: 0.8, seed: 4 },
  { frequencyPenalty: 0.4 },
  { frequencyPenalty: -2, temperature: 1 },
  {
    logitBias: [
      [7, 100],
      [8, 99.5],
    ],
    frequencyPenalty: 2,
  },
  {
    presencePenalty: 0.5,
    frequencyPenalty: 0.2,
    repetitionPenalty: 1.1,
    logitBias: [[3, -100]],
    temperature: 0.9,
    topP: 0.9,
  },
  { temperature: 1, seed: 2 ** 53 - 1 },
  {},
];

describe.skipIf(skip)("adjusted logits", () => {
  let model: LoadedModel;

  beforeAll(async () => {
    model = loadModel(await bestOps(), modelDir);
  });
  afterAll(() => model.free());

  async function withEngine(
    options: EngineOptions,
    body: (engine: Engine, logitsAt: (id: number, position: number) => Float32Array) => void,
  ): Promise<void> {
    const seen = new Map<string, Float32Array>();
    const tap = (id: number, position: number, logits: Float32Array) => void seen.set(`${id} ${position}`, logits);
    const engine = createEngine(await bestOps(), model, { maxContext: 150, ...options }, { tap });
    try {
      body(engine, (id, position) => seen.get(`${id} ${position}`)!);
    } finally {
      engine.close();
    }
  }

  /** Runs the requests together; the tokens and log-probabilities of each. */
  function run(engine: Engine, requests: readonly GenerateRequest[]) {
    const texts = new Map(
      requests.map((request) => {
        const text = { request, tokens: [] as number[], logprobs: [] as number[], top: [] as TokenLogprob[][] };
        return [engine.add(request), text];
      }),
    );
    while (engine.hasWork) {
      const { events, failed } = engine.step();
      if (failed.length > 0) throw failed[0]!.error;
      for (const { id, event } of events) {
        const text = texts.get(id)!;
        text.tokens.push(...event.tokenIds);
        text.logprobs.push(...(event.logprobs ?? []));
        text.top.push(...(event.topLogprobs ?? []));
      }
    }
    return texts;
  }

  test("each token is the plain one of its history, with preemptions and without", async () => {
    const requests = SAMPLING.map((sampling, i) => {
      const promptIds = Array.from({ length: 5 + i }, (_, j) => (j * 3 + i) % 20);
      return { promptIds, maxTokens: 60, sampling: sampling!, logprobs: i % 4 };
    });
    const together: number[][] = [];
    // Pages for one whole context and a little.
    await withEngine({ pageSize: 4, kvBytes: 45 * 4 * 2 * 4 * 2 * 16 * 2, maxSequences: 8 }, (engine, logitsAt) => {
      for (const [id, { request, tokens, logprobs, top }] of run(engine, requests)) {
        const { promptIds, sampling } = request;
        const prompt = Array.from(promptIds);
        together.push(tokens);
        expect(tokens.length).toBe(60);
        tokens.forEach((token, i) => {
          const position = prompt.length + i;
          const logits = logitsAt(id, position);
          const adjusted = plainAdjust(logits, { prompt, generated: tokens.slice(0, i), ...sampling });
          const expected = plainDraw(adjusted, { temperature: 0, seed: 0, ...sampling, position });
          if (expected.margin > 4e-6) expect(token).toBe(expected.id);
          expect(Math.abs(logprobs[i]! - plainLogprob(logits, token))).toBeLessThan(1e-5);
          const best = plainTop(logits, request.logprobs ?? 0);
          expect((top[i] ?? []).map((one) => one.id)).toEqual(best);
        });
      }
      expect(engine.stats().preemptions).toBeGreaterThan(0);
    });
    await withEngine({ maxSequences: 1, prefixCacheBytes: 0 }, (engine) => {
      expect(engine.generate(requests).map((result) => result.tokenIds)).toEqual(together);
    });
  });

  test("a bias of 100 is as good as a command, one of -100 as a ban, and presence counts a token once", async () => {
    await withEngine({}, (engine) => {
      const request = { promptIds: [1, 2, 3], maxTokens: 12 };
      const [free, forced] = engine.generate([request, { ...request, sampling: { logitBias: [[42, 100]] } }]);
      expect(forced!.tokenIds).toEqual(Array(12).fill(42));
      const banned = free!.tokenIds.map((id) => [id, -100] as const);
      const logitBias = [...new Map(banned)];
      const [without] = engine.generate([{ ...request, sampling: { logitBias } }]);
      expect(without!.tokenIds.some((id) => free!.tokenIds.includes(id))).toBe(false);
      // 42 leads by 50: one presence penalty of 2 does not end that, but a frequency penalty of 2 after 25 tokens does.
      const lead = { logitBias: [[42, 50]] as const };
      const long = { promptIds: [1, 2, 3], maxTokens: 60 };
      const [once, often] = engine.generate([
        { ...long, sampling: { ...lead, presencePenalty: 2 } },
        { ...long, sampling: { ...lead, frequencyPenalty: 2 } },
      ]);
      expect(once!.tokenIds).toEqual(Array(60).fill(42));
      const numLed = often!.tokenIds.findIndex((id) => id !== 42);
      expect(numLed).toBeGreaterThan(15);
      expect(numLed).toBeLessThan(40);
    });
  });

  test("score() reports the most likely ids of each continuation position", async () => {
    await withEngine({ maxBatchTokens: 7 }, (engine, logitsAt) => {
      const contextIds = [1, 2, 3, 4, 5];
      const requests = [
        { contextIds, continuationIds: [9, 8, 7, 6, 5, 4, 3, 2, 1], topLogprobs: 5 },
        { contextIds, continuationIds: [20, 21] },
        { contextIds: [4], continuationIds: [20], topLogprobs: 20 },
      ];
      const ids = requests.map((request) => engine.addScore(request));
      while (engine.hasWork) {
        for (const { id, result } of engine.step().scores) {
          const { contextIds, continuationIds, topLogprobs } = requests[ids.indexOf(id)]!;
          if (topLogprobs === undefined) {
            expect(result).not.toHaveProperty("topLogprobs");
            continue;
          }
          expect(result.topLogprobs!.length).toBe(continuationIds.length);
          result.topLogprobs!.forEach((list, i) => {
            const logits = logitsAt(id, contextIds.length + i);
            expect(list.map((one) => one.id)).toEqual(plainTop(logits, topLogprobs));
            for (const one of list) expect(Math.abs(one.logprob - plainLogprob(logits, one.id))).toBeLessThan(1e-5);
            expect(list[0]!.id).toBe(result.argmax[i]!);
          });
        }
      }
    });
  });
});
