// Small random schedules on a real hybrid: the logits of every generated token as bytes against a plain run of the same
// request, alone, cold and whole. Models with random weights, so that nothing is needed from outside.
// GRAFT_REAL_CASES=n runs more of them, GRAFT_SEED=n others.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Variant } from "../../models/attention/mixer.ts";
import type { LinearPool, LoadedModel } from "../../models/model.ts";
import { parseModelConfig } from "../../models/parse_config.ts";
import { createRandomModel, createRandomPool } from "../../models/random_model.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/types.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { isas, opsOf } from "../support/kernels.ts";
import { Random } from "./random.ts";

const numRuns = Number(process.env.GRAFT_REAL_CASES ?? 1000);
const seed = Number(process.env.GRAFT_SEED ?? 20260720);
const VOCAB = 96;
/** The longest answer of a case. */
const MOST_TOKENS = 6;
const MAX_CONTEXT = 100;
const config = parseModelConfig({
  model_type: "qwen2",
  hidden_act: "silu",
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: VOCAB,
  max_position_embeddings: MAX_CONTEXT,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  tie_word_embeddings: true,
});
const MASKS: (Variant | null)[][] = [
  [null, null, null],
  ["gdn", null, "gla"],
  ["jet", "gdn", null],
  ["gla", "jet", "gdn"],
];
/** The fastest and the slowest way to compute; each agrees with itself. */
const chosen = isas.filter((_, i) => i === 0 || i === isas.length - 1);

for (const isa of chosen) {
  describe(`cases on ${isa}`, () => {
    let ops: Ops;
    let model: LoadedModel;
    let pools: LinearPool[];
    /** Hashes of the logits of a plain run, by request. */
    const plain = new Map<string, bigint[]>();
    const totals = { requests: 0, logits: 0, hits: 0, preemptions: 0, cancelled: 0 };
    const cases = isa === chosen.at(-1) ? numRuns : Math.ceil(numRuns / 10);

    beforeAll(async () => {
      ops = await opsOf(isa);
      ops.setThreads(1);
      model = createRandomModel(ops, config, { dtype: "f32" });
      pools = (["gla", "gdn", "jet"] as const).map((variant) =>
        createRandomPool(ops, model, variant, { dtype: "f32" }),
      );
    });

    afterAll(() => {
      for (const pool of pools) pool.free();
      model.free();
      ops.setThreads(2);
      console.error(`${isa}: ${cases} cases, ${JSON.stringify(totals)}`);
    });

    function open(
      options: Parameters<typeof createEngine>[2],
      tap: (id: number, at: number, hash: bigint) => void,
    ): Engine {
      const all = { stateBytes: 1 << 18, maxContext: MAX_CONTEXT, ...options };
      const engine = createEngine(ops, model, all, { tap: (id, at, logits) => tap(id, at, BigInt(Bun.hash(logits))) });
      for (const pool of pools) engine.addPool(pool);
      for (const layers of MASKS) engine.registerHybrid({ name: String(layers), layers });
      return engine;
    }

    let reference: Engine | null = null;
    let collected: bigint[] = [];

    /** Hashes of logits by generated token. */
    function plainRun(request: GenerateRequest): bigint[] {
      const key = `${request.hybrid} ${request.promptIds}`;
      const known = plain.get(key);
      if (known !== undefined) return known;
      reference ??= open({ prefixCacheBytes: 0, maxSequences: 1, prefillInterference: 0 }, (_, __, hash) => {
        collected.push(hash);
      });
      collected = [];
      const { hybrid, promptIds } = request;
      reference.generate([{ hybrid: hybrid!, promptIds, maxTokens: MOST_TOKENS }]);
      plain.set(key, collected);
      return collected;
    }

    function runCase(caseSeed: number): void {
      const random = new Random(caseSeed);
      const pageSize = random.pick([4, 16, 32]);
      // Room for one whole context of three full layers and little more, so that pages run out.
      const numPages = 3 * Math.ceil(MAX_CONTEXT / pageSize) + random.between(0, 6);
      const requests = new Map<number, GenerateRequest>();
      const engine = open(
        {
          pageSize,
          kvBytes: numPages * pageSize * 2 * 16 * 4,
          maxBatchTokens: random.pick([1, 3, 7, 16, 33, 128]),
          maxSequences: random.between(1, 4),
          prefixCacheBytes: random.pick([0, 20_000, 1 << 20, 1 << 20]),
          snapshotTokens: random.pick([4, 16, 64]),
          prefillInterference: random.pick([0, 2]),
        },
        (id, at, hash) => {
          const request = requests.get(id)!;
          const expected = plainRun(request)[at - request.promptIds.length];
          if (hash !== expected)
            throw new Error(`Other logits for token ${at} of ${request.hybrid} ${request.promptIds}`);
          totals.logits++;
        },
      );
      const add = () => {
        const words = new Random(random.between(0, 1));
        const text = Array.from({ length: 80 }, () => words.between(0, VOCAB - 1));
        const shared = random.pick([0, 16, 17, 33, 64]);
        const parted = new Random(random.between(0, 1));
        const rest = Array.from({ length: random.pick([1, 2, 15]) }, () => parted.between(0, VOCAB - 1));
        const request = {
          hybrid: String(random.pick(MASKS)),
          promptIds: [...text.slice(0, shared), ...rest],
          maxTokens: random.between(1, MOST_TOKENS),
          priority: random.pick([0, 0, 1]),
          ...(random.chance(0.3) ? { boundaries: [Math.max(1, shared)] } : {}),
        };
        plainRun(request);
        requests.set(engine.add(request), request);
        totals.requests++;
      };
      try {
        for (let i = random.between(1, 3); i > 0; i--) add();
        for (let steps = 0; engine.hasWork; steps++) {
          if (steps < 8 && random.chance(0.3)) add();
          if (random.chance(0.01)) {
            engine.cancel(random.pick([...requests.keys()]));
            totals.cancelled++;
          }
          const { failed, events } = engine.step();
          if (failed.length > 0) throw failed[0]!.error;
          for (const { event } of events)
            if (event.finishReason !== null && event.usage.cachedTokens > 0) totals.hits++;
        }
        const { kvBytesUsed, stateBytesUsed, preemptions } = engine.stats();
        expect([kvBytesUsed, stateBytesUsed]).toEqual([0, 0]);
        totals.preemptions += preemptions;
      } finally {
        engine.close();
      }
    }

    test(`${cases} seeded cases give the bytes of a plain run`, () => {
      fc.assert(fc.property(fc.nat(0x7fff_ffff), runCase), {
        seed,
        numRuns: cases,
        endOnFailure: true,
        includeErrorInReport: true,
      });
      reference?.close();
      expect(totals.logits).toBeGreaterThan(cases);
      if (cases < 500) return;
      expect(totals.hits).toBeGreaterThan(cases / 20);
      expect(totals.preemptions).toBeGreaterThan(cases / 50);
    }, 600_000);
  });
}
