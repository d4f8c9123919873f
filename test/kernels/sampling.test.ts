// Sampling: every draw against a plain implementation that takes the same random number, the set that top_k, top_p and
// min_p keep, the distribution by chi-square with fixed seeds, and draws that depend on (seed, choice, position) alone.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Ops } from "../../src/ops/ops.ts";
import { ROW_BROKEN, ROW_EMPTY } from "../../src/ops/sampling_ops.ts";
import { guarded, isas, opsOf, randomFloats } from "../support/kernels.ts";
import { expectSameBits } from "../support/op_case.ts";
import { type PlainParams, plainDraw, plainLogprob, plainWeights } from "../support/plain_sampler.ts";

/** Samples one id per row of params from the given logits (one row, or one per params). */
function sample(ops: Ops, logits: Float32Array, V: number, params: readonly PlainParams[]) {
  const N = params.length;
  const words = new Uint32Array(N * 8);
  const floats = new Float32Array(words.buffer);
  params.forEach((p, i) => {
    floats.set([p.temperature ?? 1, p.topP ?? 1, p.minP ?? 0], i * 8);
    const seed = p.seed ?? 1;
    words.set([p.topK ?? 0, seed, Math.floor(seed / 2 ** 32), p.choice ?? 0, p.position ?? 0], i * 8 + 3);
  });
  const rows = new Float32Array(N * V);
  for (let i = 0; i < N; i++) rows.set(logits.length === V ? logits : logits.subarray(i * V, (i + 1) * V), i * V);
  const [ids, logprob] = [guarded(ops, [N], "i32"), guarded(ops, [N])];
  const input = ops.fromArray([N, V], rows);
  ops.sample(ids, logprob, input, ops.fromArray([N * 8], words, "i32"));
  ops.free(input);
  ids.check();
  logprob.check();
  return { ids: ops.toInt32(ids), logprob: ops.toFloat32(logprob) };
}

/** Probabilities after temperature and cuts. */
function plain(logits: Float32Array, params: PlainParams): Float64Array {
  const { weights } = plainWeights(logits, params);
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

const seeds = (count: number, params: PlainParams) =>
  Array.from({ length: count }, (_, i) => ({ ...params, position: i }));

const cuts: PlainParams[] = [
  {},
  { temperature: 0.7 },
  { temperature: 3 },
  { topK: 1 },
  { topK: 5 },
  { topP: 0.5 },
  { topP: 0.9, temperature: 1.5 },
  { minP: 0.2 },
  { topK: 8, topP: 0.8 },
  { topK: 20, topP: 0.95, minP: 0.1, temperature: 0.8 },
];

const NONE = Number.NEGATIVE_INFINITY;

/** Rows of logits of all kinds: smooth, peaked, full of ties, equal, partly masked, huge. */
const rowShapes: Readonly<Record<string, (x: Float32Array) => Float32Array>> = {
  smooth: (x) => x.map((v) => v * 8),
  peaked: (x) => x.map((v, i) => (i % 97 === 5 ? v * 20 : v * 4 - 30)),
  tied: (x) => x.map((v) => Math.round(v * 6) / 2),
  equal: (x) => x.fill(-2.5),
  masked: (x) => x.map((v, i) => (i % 3 === 0 || i === 4 ? v * 8 : NONE)),
  "one left": (x) => x.fill(NONE).fill(3, x.length - 1),
  huge: (x) => x.map((v) => v * 3e37),
  "far apart": (x) => x.map((v, i) => (i % 2 === 0 ? v : v * 1e9)),
};

const drawCase = fc.record({
  V: fc.constantFrom(1, 2, 15, 33, 700, 1025, 9000),
  shape: fc.constantFrom(...Object.keys(rowShapes)),
  noise: fc.integer({ min: 0, max: 1000 }),
  temperature: fc.constantFrom(0, 1e-6, 0.01, 0.3, 0.8, 1, 2, 50),
  topK: fc.constantFrom(0, 1, 2, 7, 40, 699, 1025, 2 ** 31 - 1),
  topP: fc.constantFrom(1, 0.999, 0.95, 0.5, 0.1, 1e-6),
  minP: fc.constantFrom(0, 1e-4, 0.05, 0.5, 1),
  seed: fc.oneof(fc.nat(), fc.maxSafeNat()),
  choice: fc.nat(2 ** 32 - 1),
  position: fc.nat(2 ** 24),
});

describe.each(isas)("%s", (isa) => {
  test("every draw is the plain one: all cuts at once, over rows of all kinds", async () => {
    const ops = await opsOf(isa);
    let [compared, close] = [0, 0];
    const property = fc.property(drawCase, ({ V, shape, noise, ...params }) => {
      const logits = rowShapes[shape]!(randomFloats(V, noise));
      const { ids, logprob } = sample(ops, logits, V, [params]);
      const expected = plainDraw(logits, params);
      compared++;
      if (ids[0] !== expected.id) {
        // Weights are float32: a decision closer than their rounding may fall either way.
        if (expected.margin > 4e-6) throw new Error(`drew ${ids[0]}, expected ${expected.id}, by ${expected.margin}`);
        if (!(plainWeights(logits, { ...params, topP: Math.min(1, params.topP + 1e-5) }).weights[ids[0]!]! > 0)) {
          throw new Error(`drew ${ids[0]}, which is cut`);
        }
        close++;
      }
      expect(Math.abs(logprob[0]! - plainLogprob(logits, ids[0]!))).toBeLessThan(2e-5);
    });
    const numRuns = Number(process.env.GRAFT_SAMPLER_RUNS ?? 1500);
    fc.assert(property, { numRuns, seed: Number(process.env.GRAFT_SEED ?? 20261121) });
    expect(close).toBeLessThan(compared / 200);
  });

  test.each(cuts.map((cut) => [JSON.stringify(cut), cut] as const))(
    "draws follow the distribution of %s",
    async (_, params) => {
      const ops = await opsOf(isa);
      const V = 40;
      const logits = randomFloats(V, 3).map((x) => x * 3);
      const p = plain(logits, params);
      const draws = 20000;
      const counts = new Float64Array(V);
      for (const id of sample(ops, logits, V, seeds(draws, params)).ids) counts[id] = counts[id]! + 1;
      let [chi, freedom, rare, rareExpected] = [0, -1, 0, 0];
      for (let i = 0; i < V; i++) {
        if (p[i] === 0) expect(counts[i]).toBe(0);
        else if (p[i]! * draws < 5) [rare, rareExpected] = [rare + counts[i]!, rareExpected + p[i]! * draws];
        else [chi, freedom] = [chi + (counts[i]! - p[i]! * draws) ** 2 / (p[i]! * draws), freedom + 1];
      }
      if (rareExpected > 0) [chi, freedom] = [chi + (rare - rareExpected) ** 2 / rareExpected, freedom + 1];
      // Wilson-Hilferty: the cube root of chi²/f is nearly normal; 4 standard deviations, and the seeds are fixed.
      const f = Math.max(freedom, 1);
      const z = (Math.cbrt(chi / f) - (1 - 2 / (9 * f))) / Math.sqrt(2 / (9 * f));
      expect(z).toBeLessThan(4);
    },
  );

  test("cuts keep exactly the plain set in a large vocabulary", async () => {
    const ops = await opsOf(isa);
    const V = 1200;
    for (const spread of [0.01, 1, 4]) {
      const logits = randomFloats(V, 5).map((x) => Math.round(x * 200) * 0.01 * spread); // many ties
      for (const params of [{ topK: 1 }, { topK: 12 }, { topK: 1199 }, { topP: 0.01 }, { topP: 0.3 }, { minP: 0.9 }]) {
        const p = plain(logits, params);
        const seen = new Set(sample(ops, logits, V, seeds(400, params)).ids);
        for (const id of seen) if (p[id] === 0) throw new Error(`${JSON.stringify(params)} kept token ${id}`);
        const size = p.filter((x) => x > 0).length;
        if (size <= 12) expect(seen.size).toBe(size);
      }
    }
  });

  test("ties at a cut go to the lower index", async () => {
    const ops = await opsOf(isa);
    const equal = new Float32Array(64);
    expect(new Set(sample(ops, equal, 64, seeds(500, { topK: 4 })).ids)).toEqual(new Set([0, 1, 2, 3]));
    expect(new Set(sample(ops, equal, 64, seeds(500, { topP: 0.125 })).ids)).toEqual(new Set([0, 1, 2, 3, 4, 5, 6, 7]));
    expect(Array.from(sample(ops, equal, 64, [{ temperature: 0 }]).ids)).toEqual([0]);
  });

  test("masked tokens are never drawn and logprob is that of the plain softmax", async () => {
    const ops = await opsOf(isa);
    const logits = new Float32Array(20).fill(Number.NEGATIVE_INFINITY);
    logits.set([1, 2, 0], 4);
    const { ids, logprob } = sample(ops, logits, 20, seeds(300, { temperature: 2, topK: 10 }));
    const log = Math.log(Math.exp(1) + Math.exp(2) + Math.exp(0));
    for (let i = 0; i < ids.length; i++) {
      expect([4, 5, 6]).toContain(ids[i]!);
      expect(logprob[i]).toBeCloseTo(logits[ids[i]!]! - log, 5);
    }
  });

  test("a draw depends on seed, choice and position, not on its neighbours or threads", async () => {
    const ops = await opsOf(isa);
    const V = 5000;
    const logits = randomFloats(8 * V, 11).map((x) => x * 2);
    const params = Array.from({ length: 8 }, (_, i) => ({ seed: 7 + (i >> 1), choice: i & 1, position: 3, topP: 0.9 }));
    const together = sample(ops, logits, V, params);
    if (isa !== "reference") {
      ops.setThreads(1);
      expect(sample(ops, logits, V, params).ids).toEqual(together.ids);
      ops.setThreads(2);
    }
    params.forEach((one, i) => {
      const alone = sample(ops, logits.slice(i * V, (i + 1) * V), V, [one]);
      expect(alone.ids[0]).toBe(together.ids[i]);
      expectSameBits(alone.logprob, together.logprob.slice(i, i + 1), `row ${i}`);
    });
    const row = logits.slice(0, V);
    const variants = [{}, { seed: 2 }, { choice: 1 }, { position: 1 }].flatMap((v) => sample(ops, row, V, [v]).ids[0]!);
    expect(new Set(variants).size).toBe(4);
  });

  test("libraries draw the same tokens as the reference", async () => {
    const V = 20000;
    const logits = randomFloats(V, 13).map((x) => x * 6);
    const params = cuts.flatMap((cut) => seeds(3, cut));
    const expected = sample(await opsOf("reference"), logits, V, params);
    expect(sample(await opsOf(isa), logits, V, params).ids).toEqual(expected.ids);
  });

  test("a row that nothing can be drawn from says why, and its neighbours are as good as ever", async () => {
    const ops = await opsOf(isa);
    const V = 9001;
    const good = randomFloats(V, 17);
    for (const params of [{ temperature: 0 }, { topK: 5 }, { topP: 0.9, minP: 0.1 }]) {
      const logits = new Float32Array(6 * V);
      for (let i = 0; i < 6; i++) logits.set(good, i * V);
      logits[V + 8999] = Number.NaN;
      logits.fill(Number.NaN, 2 * V, 3 * V);
      logits[3 * V + 4] = Number.POSITIVE_INFINITY;
      logits.fill(Number.NEGATIVE_INFINITY, 4 * V, 5 * V);
      const { ids, logprob } = sample(ops, logits, V, Array(6).fill(params));
      const [one] = sample(ops, good, V, [params]).ids;
      expect(Array.from(ids)).toEqual([one!, ROW_BROKEN, ROW_BROKEN, ROW_BROKEN, ROW_EMPTY, one!]);
      expect(Array.from(logprob, Number.isNaN)).toEqual([false, true, true, true, true, false]);
    }
  });

  test("bad parameters are refused", async () => {
    const ops = await opsOf(isa);
    const logits = Float32Array.of(1, 2, 3);
    expect(() => sample(ops, logits, 3, [{ temperature: -1 }])).toThrow("temperature of row 0 is -1");
    expect(() => sample(ops, logits, 3, [{ topP: 0 }])).toThrow("top_p of row 0 is 0");
    expect(() => sample(ops, logits, 3, [{ minP: 2 }])).toThrow("min_p of row 0 is 2");
  });
});
