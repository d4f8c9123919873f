// The pacer against simulated machines: steps stay within the bound, prompts get what the bound leaves, whatever the noise.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { PrefillPacer, ROW_TILE } from "../../src/engine/prefill_pacer.ts";
import { Random } from "./random.ts";
import { type ToyLimits, toyEngine } from "./toy_backend.ts";

interface Machine {
  /** Milliseconds of a step with that many decode rows alone. */
  decode(rows: number): number;
  /** What prompt rows add, the first of them at that depth of its prompt. */
  prompt(rows: number, depth: number): number;
  /** A factor on the whole step. */
  noise(): number;
}

interface Run {
  /** Duration of each mixed step over that of a decode step, noise left out. */
  readonly ratios: number[];
  readonly rows: number[];
  readonly probes: number;
}

const BUDGET = 512;

/** Runs a prompt of that many tokens beside streams until it is computed. */
function run(pacer: PrefillPacer, machine: Machine, decodeRows: number, promptTokens: number): Run {
  const [ratios, rows]: number[][] = [[], []];
  let [depth, probes, last] = [0, 0, -1];
  while (depth < promptTokens) {
    const allowance = pacer.allowance(decodeRows);
    if (allowance >= ROW_TILE) expect(allowance % ROW_TILE).toBe(0);
    expect(allowance === 0 && last === 0).toBe(false);
    last = allowance;
    const count = Math.min(allowance, BUDGET, promptTokens - depth);
    const ms = machine.decode(decodeRows) + (count > 0 ? machine.prompt(count, depth) : 0);
    pacer.observe(decodeRows, count, ms * machine.noise());
    depth += count;
    if (count === 0) probes++;
    else {
      ratios!.push(ms / machine.decode(decodeRows));
      rows!.push(count);
    }
  }
  return { ratios: ratios!, rows: rows!, probes };
}

const quantile = (values: number[], q: number) =>
  values.toSorted((a, b) => a - b)[Math.floor(q * (values.length - 1))]!;
const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** Rows read the weights once together with the decode rows, cost arithmetic beyond that, and attention by their depth. */
function machine(random: Random, spread = 0, outliers = 0): Machine {
  const [weights, row, attention] = [20, 0.3 + random.next(), 1e-4 * random.next()];
  return {
    decode: (rows) => weights + 0.2 * rows,
    prompt: (rows, depth) => Math.max(0, rows * (row + attention * (depth + rows / 2)) - 5),
    noise: () => (random.chance(outliers) ? 8 : 1 + spread * (random.next() - 0.5)),
  };
}

describe("PrefillPacer", () => {
  test("the whole budget where nothing decodes, or where there is no bound", () => {
    expect(new PrefillPacer(2).allowance(0)).toBe(Number.POSITIVE_INFINITY);
    expect(new PrefillPacer(0).allowance(5)).toBe(Number.POSITIVE_INFINITY);
  });

  test("measures a decode step before it lets prompt rows beside it, then begins with few", () => {
    const pacer = new PrefillPacer(2);
    for (let i = 0; i < 3; i++) {
      expect(pacer.allowance(3)).toBe(0);
      pacer.observe(3, 0, 10);
      if (i === 2) break;
      expect(pacer.allowance(3)).toBe(1);
      pacer.observe(3, 1, 10.1);
    }
    for (const rows of [2, 4, 8, 16, 32]) {
      expect(pacer.allowance(3)).toBe(rows);
      pacer.observe(3, rows, 10 + 0.1 * rows);
    }
    expect(pacer.allowance(3)).toBe(64);
    pacer.observe(3, 64, 100);
    expect(pacer.allowance(3)).toBe(6);
  });

  test("a bound of 1 and a decode step that takes no time leave one row", () => {
    for (const [bound, ms] of [
      [1, 10],
      [2, 0],
    ] as const) {
      const pacer = new PrefillPacer(bound);
      for (let i = 0; i < 3; i++) pacer.observe(1, 0, ms);
      for (let i = 0; i < 9; i++) pacer.observe(1, pacer.allowance(1), ms + 1);
      expect(pacer.allowance(1)).toBe(1);
    }
  });

  test("simulated machines: within the bound, close to it, and ever getting on", () => {
    const property = fc.property(fc.integer(), fc.integer({ min: 1, max: 64 }), (seed, decodeRows) => {
      const { ratios, rows, probes } = run(new PrefillPacer(2), machine(new Random(seed)), decodeRows, 16_384);
      const above = ratios.filter((_, i) => i >= 8 && rows[i]! > 1);
      if (above.length > 0) {
        expect(quantile(above, 0.98)).toBeLessThanOrEqual(2.1);
        expect(mean(above)).toBeGreaterThan(1.45);
      }
      expect(probes).toBeLessThanOrEqual(3 + ratios.length / 40);
    });
    fc.assert(property, { seed: 20260720, numRuns: 200, includeErrorInReport: true });
  });

  test("noise and outliers of eight times a step change little", () => {
    const property = fc.property(fc.integer(), (seed) => {
      const { ratios, rows } = run(new PrefillPacer(2), machine(new Random(seed), 0.2, 0.03), 8, 8192);
      // The floor may be over the bound by itself.
      const over = ratios.filter((ratio, i) => ratio > 2.15 && rows[i]! > 1);
      expect(over.length / ratios.length).toBeLessThan(0.1);
      expect(mean(ratios)).toBeGreaterThan(1.2);
    });
    fc.assert(property, { seed: 20260720, numRuns: 100, includeErrorInReport: true });
  });

  test("follows a machine that turns slower or faster on prompts, and streams that turn dearer", () => {
    const pacer = new PrefillPacer(2);
    const speeds = { decode: 20, prompt: 0.5 };
    const changing: Machine = {
      decode: () => speeds.decode,
      prompt: (rows) => rows * speeds.prompt,
      noise: () => 1,
    };
    run(pacer, changing, 4, 4096);
    for (const prompt of [2, 0.1, 0.5]) {
      speeds.prompt = prompt;
      const { ratios } = run(pacer, changing, 4, 8192);
      expect(quantile(ratios.slice(1), 0.9)).toBeLessThanOrEqual(prompt === 2 ? 2.6 : 2);
      expect(mean(ratios)).toBeGreaterThan(1.4);
    }
    speeds.decode = 40;
    const { rows } = run(pacer, changing, 4, 32_768);
    expect(rows.at(-2)).toBe(64);
  });

  test("a load whose number of streams changes every step still computes its prompts", () => {
    const random = new Random(7);
    const pacer = new PrefillPacer(2);
    let [rows, steps] = [0, 0];
    for (; steps < 2000; steps++) {
      const decodeRows = random.between(1, 200);
      const count = Math.min(BUDGET, pacer.allowance(decodeRows));
      pacer.observe(decodeRows, count, 20 + decodeRows * 0.1 + count * 0.5);
      rows += count;
    }
    expect(rows / steps).toBeGreaterThan(20);
  });
});

test("an engine whose prompt rows are dear gives them few beside a stream, and all of a step without one", () => {
  const limits: ToyLimits = {
    pageSize: 16,
    numPages: 200,
    numStateFloats: 10_000,
    maxBatchTokens: 256,
    maxSequences: 4,
    maxWaiting: 4,
    maxContext: 2048,
    pageBytes: 32,
    cacheBytes: 0,
    snapshotTokens: 16,
    prefillInterference: 2,
  };
  const time = { ms: 0 };
  const { engine, backend } = toyEngine(["full_attention"], limits, () => time.ms);
  const compute = backend.run.bind(backend);
  backend.run = (batch) => {
    time.ms += 10 + 0.25 * (batch.numRows - 1);
    return compute(batch);
  };
  const stream = engine.add({ promptIds: [1], maxTokens: 60 });
  engine.step();
  const long = engine.add({ promptIds: Array.from({ length: 2000 }, (_, i) => i % 97), maxTokens: 1 });
  const beside: number[] = [];
  const alone: number[] = [];
  let streaming = true;
  while (engine.hasWork) {
    const { events, numPrefillTokens } = engine.step();
    (streaming ? beside : alone).push(numPrefillTokens);
    if (streaming) expect(events.some(({ id }) => id === stream)).toBe(true);
    if (events.some(({ id, event }) => id === stream && event.finishReason !== null)) streaming = false;
  }
  expect(beside.slice(0, 11)).toEqual([0, 1, 0, 1, 0, 2, 4, 8, 16, 32, 32]);
  expect(Math.max(...beside)).toBe(32);
  expect(beside.filter((rows) => rows === 0).length).toBeLessThanOrEqual(4);
  expect(alone.slice(0, -1).every((rows) => rows === 256)).toBe(true);
  expect(long).toBe(2);
});
