// Small random schedules on a real hybrid: the logits of every generated token as bytes against a plain run of the same
// request, alone, cold and whole. Models with random weights, so that nothing is needed from outside.
// GRAFT_REAL_CASES=n runs more of them, GRAFT_SEED=n others.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseModelConfig } from "../../models/parse_config.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { EngineCases } from "../support/engine_cases.ts";
import { isas, opsOf } from "../support/kernels.ts";

const numRuns = Number(process.env.GRAFT_REAL_CASES ?? 1000);
const seed = Number(process.env.GRAFT_SEED ?? 20260720);
const model = {
  config: parseModelConfig({
    model_type: "qwen2",
    hidden_act: "silu",
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 3,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    vocab_size: 96,
    max_position_embeddings: 100,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000,
    tie_word_embeddings: true,
  }),
  masks: [
    [null, null, null],
    ["gdn", null, "gla"],
    ["jet", "gdn", null],
    ["gla", "jet", "gdn"],
  ],
  dtype: "f32",
  mostTokens: 6,
} as const;
/** The fastest and the slowest way to compute; each agrees with itself. */
const chosen = isas.filter((_, i) => i === 0 || i === isas.length - 1);

for (const isa of chosen) {
  describe(`cases on ${isa}`, () => {
    let ops: Ops;
    let cases: EngineCases;
    const count = isa === chosen.at(-1) ? numRuns : Math.ceil(numRuns / 10);

    beforeAll(async () => {
      ops = await opsOf(isa);
      ops.setThreads(1);
      cases = new EngineCases(ops, model);
    });

    afterAll(() => {
      cases.close();
      ops.setThreads(2);
      console.error(`${isa}: ${count} cases, ${JSON.stringify(cases.totals)}`);
    });

    test(`${count} seeded cases give the bytes of a plain run`, () => {
      fc.assert(
        fc.property(fc.nat(0x7fff_ffff), (seed) => cases.run(seed)),
        { seed, numRuns: count, endOnFailure: true, includeErrorInReport: true },
      );
      expect(cases.totals.logits).toBeGreaterThan(count);
      if (count < 500) return;
      expect(cases.totals.hits).toBeGreaterThan(count / 20);
      expect(cases.totals.preemptions).toBeGreaterThan(count / 50);
    }, 600_000);
  });
}
