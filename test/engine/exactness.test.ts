// One history, one answer: in random engines under random load the logits after a token history are the same bytes every
// time, for several hybrids of one backbone in one batch, in any chunks, after preemptions, from the prefix cache, with
// choices that share their context, with one thread or two.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import type { Variant } from "../../models/attention/mixer.ts";
import { loadModel } from "../../models/load.ts";
import type { LinearPool, LoadedModel } from "../../models/model.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest, ScoreRequest } from "../../src/engine/types.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { goldenDir } from "../support/golden.ts";
import { forwardLibraries, opsOf } from "../support/kernels.ts";
import { Random } from "./random.ts";

const VARIANTS = ["gla", "gdn", "jet"] as const;
const models = join(goldenDir, "models");
const skip = !existsSync(join(models, "tiny_llama"));
if (skip) console.error(`skipped: no golden models in ${goldenDir} (set GRAFT_GOLDEN)`);

/** All layers full, some, none; the same mixer reached from different hybrids, alone and between others. */
const MASKS: (Variant | null)[][] = [
  [null, null],
  [null, "gla"],
  ["gdn", null],
  ["jet", "gla"],
  ["gdn", "gdn"],
  ["gla", "jet"],
];

/** Types of weights, KV cache and recurrent states. */
const KINDS: Record<string, Record<"dtype" | "kvDtype" | "stateDtype", "f32" | "bf16">> = {
  wide: { dtype: "f32", kvDtype: "f32", stateDtype: "f32" },
  narrow: { dtype: "bf16", kvDtype: "bf16", stateDtype: "bf16" },
};

const PENALTIES = [{}, {}, { repetitionPenalty: 1.2 }, { presencePenalty: 0.5, frequencyPenalty: 0.1 }];

/** A name that means one mask after another. */
const ALIAS = "alias";

/** The mixer of a tiny hybrid's second layer stands in for both layers: any weights will do here. */
function borrowedPool(source: LoadedModel, variant: Variant, backbone: string): LinearPool {
  const mixer = source.mixers[1]!;
  const shape = source.config.linearLayers[1]!;
  return { directory: source.directory, variant, shape, mixers: [mixer, mixer], backbone, free: () => {} };
}

interface Start {
  readonly hybrid: string;
  readonly tokens: number[];
}

/** Logits by (settings that may change bits, hybrid, history); a second sight must agree. */
class Witness {
  readonly #seen = new Map<string, number | bigint>();
  numChecked = 0;

  see(key: string, logits: Float32Array): void {
    const hash = Bun.hash(logits);
    const before = this.#seen.get(key);
    if (before === undefined) this.#seen.set(key, hash);
    else {
      this.numChecked++;
      if (before !== hash) throw new Error(`Other logits than before for ${key}`);
    }
  }
}

for (const isa of forwardLibraries) {
  describe.skipIf(skip)(`exactness on ${isa}`, () => {
    const witness = new Witness();
    const outputs = new Map<string, string>();
    let ops: Ops;
    const loaded: Record<string, { base: LoadedModel; sources: LoadedModel[] }> = {};
    let preemptions = 0;
    let hits = 0;
    let evictions = 0;
    let ahead = 0;
    let replayed = 0;

    beforeAll(async () => {
      ops = await opsOf(isa);
      for (const dtype of ["f32", "bf16"] as const) {
        const base = loadModel(ops, join(models, "tiny_llama"), { dtype });
        const sources = VARIANTS.map((v) => loadModel(ops, join(models, `tiny_llama_hybrid_${v}`), { dtype }));
        loaded[dtype] = { base, sources };
      }
    });

    afterAll(() => {
      for (const { base, sources } of Object.values(loaded)) {
        base.free();
        for (const source of sources) source.free();
      }
      ops.setThreads(2);
      console.error(
        `${isa}: ${witness.numChecked} rows of logits seen again, ${preemptions} preemptions, ${hits} hits, ${evictions} evictions, ${ahead} steps ahead, ${replayed} replayed`,
      );
    });

    function open(random: Random, kind: string, histories: Map<number, { key: string; tokens: number[] }>): Engine {
      const { dtype, kvDtype, stateDtype } = KINDS[kind]!;
      const { base, sources } = loaded[dtype]!;
      const pageSize = random.pick([3, 4, 16, 32]);
      const tokenBytes = 2 * base.config.numKvHeads * base.config.headDim * (kvDtype === "f32" ? 4 : 2);
      const maxContext = 150;
      // Room for one whole context and at most a little more, so that pages run out.
      const numPages = 2 * Math.ceil(maxContext / pageSize) + random.between(0, 4);
      const options = {
        pageSize,
        kvDtype,
        stateDtype,
        maxContext,
        kvBytes: numPages * pageSize * tokenBytes,
        stateBytes: 1 << 22,
        maxBatchTokens: random.pick([1, 2, 7, 32, 100, 512]),
        maxSequences: random.between(1, 8),
        prefixCacheBytes: random.pick([0, 100_000, 1 << 24]),
        snapshotTokens: random.pick([1, 20, 50]),
        runAhead: random.chance(0.7),
      };
      const tap = (id: number, position: number, logits: Float32Array) => {
        const { key, tokens } = histories.get(id)!;
        witness.see(`${kind} ${key} ${tokens.slice(0, position)}`, logits);
      };
      const engine = createEngine(ops, base, options, { tap });
      VARIANTS.forEach((variant, i) => {
        engine.addPool(borrowedPool(sources[i]!, variant, base.identity));
      });
      for (const layers of MASKS) engine.registerHybrid({ name: String(layers), layers });
      engine.registerHybrid({ name: ALIAS, layers: MASKS[1]! });
      return engine;
    }

    /** Few prompts, so that histories meet again in other company. */
    function draw(random: Random): Start {
      // Only full layers grow, so half of the load is of them: pages must run out.
      const hybrid = String(random.chance(0.5) ? MASKS[0] : random.pick(MASKS));
      const source = new Random(random.between(0, 1));
      const tokens = Array.from({ length: random.pick([1, 5, 9, 31, 32, 33, 65, 130]) }, () => source.between(0, 100));
      return { hybrid, tokens };
    }

    function run(seed: number): void {
      const random = new Random(seed);
      ops.setThreads(random.between(1, 2));
      const kind = isa === "simt" ? "narrow" : random.pick(Object.keys(KINDS));
      const histories = new Map<number, { key: string; tokens: number[] }>();
      const engine = open(random, kind, histories);
      const results = new Map<number, string>();
      try {
        const add = (start?: Start) => addRequest(random, engine, kind, histories, results, start);
        for (let i = 0; i < 12; i++) add();
        let cancelled = 0;
        let followUps = 6;
        while (engine.hasWork) {
          const { events, scores, failed } = engine.step();
          if (failed.length > 0) throw failed[0]!.error;
          for (const { id, event } of events) histories.get(id)!.tokens.push(...event.tokenIds);
          for (const { id, result } of scores) same(results.get(id)!, String([...result.logprobs, ...result.argmax]));
          for (const { id, event } of events) {
            if (event.finishReason !== null) same(results.get(id)!, String(histories.get(id)!.tokens));
          }
          for (const { id, event } of events) {
            if (event.finishReason === null || followUps === 0 || random.chance(0.4)) continue;
            followUps--;
            const { key, tokens } = histories.get(id)!;
            if (tokens.length < 140)
              add({ hybrid: key, tokens: [...tokens, ...tokens.slice(0, random.between(1, 9))] });
          }
          if (random.chance(0.05)) engine.registerHybrid({ name: ALIAS, layers: random.pick(MASKS) });
          if (cancelled < 2 && random.chance(0.02)) {
            const open = [...histories.keys()];
            engine.cancel(random.pick(open));
            cancelled++;
          }
        }
        const { kvBytesUsed, stateBytesUsed } = engine.stats();
        expect([kvBytesUsed, stateBytesUsed]).toEqual([0, 0]);
        preemptions += engine.stats().preemptions;
        hits += engine.stats().prefixHits;
        evictions += engine.stats().prefixEvictions;
        ahead += engine.stats().stepsAhead;
        replayed += engine.stats().stepsReplayed;
      } finally {
        engine.close();
      }
    }

    function addRequest(
      random: Random,
      engine: Engine,
      kind: string,
      histories: Map<number, { key: string; tokens: number[] }>,
      results: Map<number, string>,
      start?: Start,
    ): void {
      const { hybrid, tokens } = start ?? draw(random);
      // The same mask by another name, where that name happens to mean it now.
      const alias = engine.hybrids().find(({ name }) => name === ALIAS)!;
      const name = String(alias.layers) === hybrid ? ALIAS : hybrid;
      if (!start && random.chance(0.4) && tokens.length > 1) {
        const at = random.pick([1, Math.ceil(tokens.length / 2)]);
        for (let choices = random.between(1, 3); choices > 0; choices--) {
          const contextIds = tokens.slice(0, at);
          const continuationIds = tokens.slice(at).map((token) => (choices === 1 ? token : (token + choices) % 100));
          const request: ScoreRequest = { hybrid: name, contextIds, continuationIds };
          const id = engine.addScore(request);
          histories.set(id, { key: hybrid, tokens: [...contextIds, ...continuationIds] });
          results.set(id, `${kind} ${JSON.stringify({ ...request, hybrid })}`);
        }
        return;
      }
      const temperature = random.pick([0, 0.8]);
      const seed = random.between(0, 1);
      const request: GenerateRequest = {
        hybrid: name,
        promptIds: tokens,
        maxTokens: random.pick([5, 20, 60]),
        sampling: { temperature, seed, topP: 0.95, topK: 40, ...random.pick(PENALTIES) },
      };
      const id = engine.add(request);
      histories.set(id, { key: hybrid, tokens: [...tokens] });
      results.set(id, `${kind} ${JSON.stringify({ ...request, hybrid })}`);
    }

    function same(key: string, value: string): void {
      const before = outputs.get(key);
      if (before === undefined) outputs.set(key, value);
      else if (before !== value) throw new Error(`Another result than before for ${key}`);
    }

    test("random load gives the same bytes for the same history", () => {
      // The emulator is a thousand times slower.
      const emulated = isa === "simt";
      const numRuns = Number(process.env.GRAFT_EXACTNESS_RUNS ?? (emulated ? 2 : 40));
      fc.assert(fc.property(fc.integer(), run), { seed: Number(process.env.GRAFT_SEED ?? 20260720), numRuns });
      expect(witness.numChecked).toBeGreaterThan(numRuns * 10);
      if (emulated) return;
      expect(preemptions).toBeGreaterThan(0);
      expect(hits).toBeGreaterThan(numRuns);
      expect(evictions).toBeGreaterThan(0);
      expect(ahead).toBeGreaterThan(numRuns);
    }, 120_000);
  });
}
