// Tiny hybrids with bf16 weights and caches, served by the engine on the CUDA kernels in the emulator: whatever path a
// token took, its logits are the bytes of a plain run of the same request, alone, cold and whole.
// (Sessions: test/engine/sessions.test.ts.) GRAFT_SIMT_CASES=n runs more random schedules, GRAFT_SEED=n others.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Variant } from "../../models/attention/mixer.ts";
import { parseModelConfig } from "../../models/parse_config.ts";
import { behind } from "../support/emulator.ts";
import { type CaseModel, EngineCases } from "../support/engine_cases.ts";
import { opsOf } from "../support/kernels.ts";

const numRuns = Number(process.env.GRAFT_SIMT_CASES ?? 1);
const seed = Number(process.env.GRAFT_SEED ?? 20260720);

const common = {
  hidden_act: "silu",
  hidden_size: 64,
  intermediate_size: 72,
  vocab_size: 83,
  max_position_embeddings: 100,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  tie_word_embeddings: true,
};
/** Heads of 32 in groups of two; heads of 64 with norms of their own, in a group of three. */
const models: Record<string, CaseModel> = {
  "heads of 32": {
    config: parseModelConfig({
      ...common,
      model_type: "llama",
      num_hidden_layers: 3,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      head_dim: 32,
    }),
    masks: [
      [null, null, null],
      ["gla", null, null],
      [null, "gdn", null],
      [null, null, "jet"],
      ["gdn", null, "gla"],
      ["jet", "gdn", null],
      ["gla", "gla", "jet"],
      ["gla", "jet", "gdn"],
    ] satisfies (Variant | null)[][],
    dtype: "bf16",
    kvDtype: "bf16",
    mostTokens: 5,
  },
  "heads of 64": {
    config: parseModelConfig({
      ...common,
      model_type: "qwen3",
      num_hidden_layers: 2,
      num_attention_heads: 3,
      num_key_value_heads: 1,
      head_dim: 64,
    }),
    masks: [
      [null, null],
      ["gla", null],
      ["gdn", "jet"],
    ] satisfies (Variant | null)[][],
    dtype: "bf16",
    kvDtype: "bf16",
    stateDtype: "bf16",
    mostTokens: 5,
  },
};

/** Reproducible tokens. */
function prompt(count: number, seed: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * i * 7 + 31 * i + 13 * seed) % common.vocab_size);
}

for (const [name, model] of Object.entries(models)) {
  describe(`a hybrid with ${name} on CUDA kernels`, () => {
    const hybrids = model.masks.map(String);
    const last = hybrids.at(-1)!;
    let cases: EngineCases;

    beforeAll(async () => {
      cases = new EngineCases(await opsOf("simt"), model);
    });
    afterAll(() => {
      cases.close();
      console.error(`${name}: ${JSON.stringify(cases.totals)}`);
    });

    const plenty = { pageSize: 16, kvBytes: 1 << 20, maxSequences: 8, prefixCacheBytes: 0 };
    const ask = (hybrid: string, promptIds: number[], maxTokens = model.mostTokens) => ({
      hybrid,
      promptIds,
      maxTokens,
    });

    test.each(name === "heads of 32" ? [1, 23] : [5])("a prompt in chunks of %d rows", (maxBatchTokens) => {
      const { engine, add } = cases.openWatched({ ...plenty, maxBatchTokens });
      // Token by token only what is short: it takes a launch of everything for each.
      for (const hybrid of [hybrids[0]!, last]) add(ask(hybrid, prompt(maxBatchTokens === 1 ? 21 : 70, 1), 2));
      cases.finish(engine);
      engine.close();
    });

    test.each([false, true])("every mask in one batch, prompts beside streams (steps ahead: %p)", (runAhead) => {
      const { engine, add } = cases.openWatched({ ...plenty, maxBatchTokens: 40, runAhead, prefillInterference: 2 });
      hybrids.forEach((hybrid, i) => void add(ask(hybrid, prompt(3 + 4 * i, i))));
      cases.finish(engine, (step) => {
        if (step === 3) add(ask(last, prompt(50, 9)));
      });
      if (runAhead) expect(cases.totals.ahead).toBeGreaterThan(0);
      engine.close();
    });

    test("on a device that is behind, with steps ahead of their tokens", () =>
      behind(() => {
        const { engine, add } = cases.openWatched({ ...plenty, runAhead: true });
        const [first, second] = [cases.totals.ahead, cases.totals.replayed];
        hybrids.forEach((hybrid, i) => void add(ask(hybrid, prompt(3 + 4 * i, i))));
        cases.finish(engine);
        expect(cases.totals.ahead).toBeGreaterThan(first);
        expect(cases.totals.replayed).toBeGreaterThanOrEqual(second);
        engine.close();
      }));

    test("preempted for want of pages, and taken up again", () => {
      const before = cases.totals.preemptions;
      const { numLayers } = model.config;
      // Prompts of two pages that fit beside one another, until their answers begin a third.
      const kvBytes = (2 * numLayers * 3 - 1) * cases.pageBytes(16);
      const { engine, add } = cases.openWatched({ ...plenty, kvBytes });
      for (const seed of [3, 4]) add(ask(hybrids[0]!, prompt(30, seed)));
      add(ask(last, prompt(30, 5)));
      cases.finish(engine);
      engine.close();
      expect(cases.totals.preemptions).toBeGreaterThan(before);
    });

    test("from the prefix cache: the same prompt, one that goes on, one that parts from it", () => {
      const before = cases.totals.hits;
      const { engine, add } = cases.openWatched({ ...plenty, prefixCacheBytes: 1 << 20, snapshotTokens: 16 });
      for (const hybrid of [hybrids[0]!, last]) {
        const first = prompt(40, 6);
        for (const promptIds of [first, first, [...first, ...prompt(20, 7)], [...first.slice(0, 33), 1, 2]]) {
          add(ask(hybrid, promptIds, 2));
          cases.finish(engine);
        }
      }
      engine.close();
      expect(cases.totals.hits).toBeGreaterThanOrEqual(before + 6);
    });

    test(`${numRuns} random schedules, and as many on a device that is behind`, async () => {
      const parameters = { seed, numRuns, endOnFailure: true, includeErrorInReport: true };
      const anySeed = fc.property(fc.nat(0x7fff_ffff), (seed) => cases.run(seed));
      fc.assert(anySeed, parameters);
      await behind(() => fc.assert(anySeed, { ...parameters, seed: seed + 1 }));
    }, 600_000);
  });
}
