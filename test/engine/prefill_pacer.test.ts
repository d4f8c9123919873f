// Prompts beside streams: the pacer against simulated machines, and an engine in which every step brings each stream a token
// however long a prompt goes through beside it.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { PrefillPacer } from "../../src/engine/prefill_pacer.ts";
import { Random } from "./random.ts";
import { type ToyLimits, toyEngine } from "./toy_backend.ts";

interface Machine {
  /** Milliseconds of the streams' part of a step, and of one layer of prompt rows at that depth of their prompt. */
  decode(): number;
  layer(rows: number, depth: number): number;
  readonly numLayers: number;
}

/** Takes a prompt through as an engine does; each step's duration over that of a decode step. */
function run(pacer: PrefillPacer, machine: Machine, promptTokens: number, noise = () => 1): number[] {
  const ratios: number[] = [];
  for (let depth = 0; depth < promptTokens; ) {
    const rows = Math.min(pacer.rows, 512, promptTokens - depth);
    const layerMs: number[] = [];
    let least = Number.POSITIVE_INFINITY;
    while (layerMs.length < machine.numLayers) {
      const decode = machine.decode();
      const allowance = pacer.allowance(decode * noise());
      least = Math.min(least, allowance);
      let [spent, last] = [0, 0];
      do {
        last = machine.layer(rows, depth) * noise();
        spent += last;
        layerMs.push(last);
      } while (layerMs.length < machine.numLayers && spent + last < allowance);
      ratios.push((decode + spent) / decode);
    }
    pacer.observe(rows, layerMs, least);
    depth += rows;
  }
  return ratios;
}

const quantile = (values: number[], q: number) =>
  values.toSorted((a, b) => a - b)[Math.floor(q * (values.length - 1))]!;
const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** A layer costs something at all, something per row, and something per row and token before it. */
function machineOf(random: Random): Machine {
  const [fixed, row, attention, decode] = [
    random.next(),
    0.02 * random.next(),
    2e-6 * random.next(),
    5 + 30 * random.next(),
  ];
  return {
    decode: () => decode,
    layer: (rows, depth) => fixed + rows * (row + attention * depth),
    numLayers: random.between(2, 40),
  };
}

describe("PrefillPacer", () => {
  test("no bound is none", () => {
    expect(new PrefillPacer(0).bounded).toBe(false);
    expect(new PrefillPacer(2).bounded).toBe(true);
  });

  test("simulated machines: steps stay within the bound at any depth, and prompts get most of what it leaves", () => {
    const property = fc.property(fc.integer(), (seed) => {
      const ratios = run(new PrefillPacer(2), machineOf(new Random(seed)), 16_384);
      const settled = ratios.slice(Math.min(20, ratios.length >>> 1));
      expect(quantile(settled, 0.98)).toBeLessThanOrEqual(2);
      expect(mean(settled)).toBeGreaterThan(1.3);
    });
    fc.assert(property, { seed: 20260720, numRuns: 200, includeErrorInReport: true });
  });

  test("a machine on which one layer of few rows takes longer than a step has gets on, one layer a step", () => {
    const slow: Machine = { decode: () => 1, layer: (rows) => 3 + rows, numLayers: 4 };
    const pacer = new PrefillPacer(2);
    run(pacer, slow, 300);
    expect(pacer.rows).toBe(1);
  });

  test("steps that a busy machine holds up are not made longer still", () => {
    const random = new Random(3);
    const machine = machineOf(random);
    const noise = () => (random.chance(0.05) ? 4 : 1);
    const pacer = new PrefillPacer(2);
    for (let i = 0; i < 50; i++) pacer.allowance(machine.decode());
    for (let i = 0; i < 200; i++) {
      expect(pacer.allowance(machine.decode() * noise())).toBeLessThanOrEqual(machine.decode());
    }
  });

  test("follows streams that turn dearer, and a machine that turns slower on prompts", () => {
    const costs = { decode: 20, row: 0.02 };
    const machine: Machine = { decode: () => costs.decode, layer: (rows) => rows * costs.row, numLayers: 10 };
    const pacer = new PrefillPacer(2);
    run(pacer, machine, 8192);
    const before = pacer.rows;
    costs.row = 0.2;
    expect(quantile(run(pacer, machine, 8192).slice(60), 0.98)).toBeLessThanOrEqual(2);
    expect(pacer.rows).toBeLessThan(before / 4);
    costs.decode = 80;
    run(pacer, machine, 8192);
    expect(pacer.rows).toBeGreaterThan(before / 4);
  });
});

test("an engine takes a long prompt through beside a stream in parts, and by whole steps once the stream has ended", () => {
  const limits: ToyLimits = {
    pageSize: 16,
    numPages: 800,
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
  const kinds = ["full_attention", "full_attention", "gdn", "full_attention"] as const;
  const { engine, backend } = toyEngine(kinds, limits, () => time.ms);
  let rowsBeside = 0;
  const { run: compute, begin, advance } = backend;
  backend.run = (batch) => {
    time.ms += 10 + 0.25 * (batch.numRows - 1);
    return compute.call(backend, batch);
  };
  backend.begin = (batch) => {
    rowsBeside = batch.numRows;
    begin.call(backend, batch);
  };
  backend.advance = () => {
    time.ms += 0.1 * rowsBeside;
    return advance.call(backend);
  };
  const stream = engine.add({ promptIds: [1], maxTokens: 60 });
  engine.step();
  engine.add({ promptIds: Array.from({ length: 2000 }, (_, i) => i % 97), maxTokens: 1 });
  const [beside, alone, durations]: number[][] = [[], [], []];
  let streaming = true;
  while (engine.hasWork) {
    const started = time.ms;
    const { events, numPrefillTokens } = engine.step();
    (streaming ? beside : alone)!.push(numPrefillTokens);
    if (streaming) {
      durations!.push(time.ms - started);
      expect(events.some(({ id }) => id === stream)).toBe(true);
    }
    if (events.some(({ id, event }) => id === stream && event.finishReason !== null)) streaming = false;
  }
  expect(Math.max(...durations!)).toBeLessThanOrEqual(20);
  expect(mean(durations!.slice(1))).toBeGreaterThan(14);
  expect(beside!.reduce((a, b) => a + b, 0)).toBeGreaterThan(400);
  expect(alone!.slice(1, -1).every((rows) => rows === 256)).toBe(true);
});

test("a prompt that is left on its way beside a stream keeps what needs no states", () => {
  const limits: ToyLimits = {
    pageSize: 16,
    numPages: 200,
    numStateFloats: 1000,
    maxBatchTokens: 256,
    maxSequences: 4,
    maxWaiting: 4,
    maxContext: 2048,
    pageBytes: 32,
    cacheBytes: 1 << 20,
    snapshotTokens: 16,
    prefillInterference: 2,
  };
  const { engine, scheduler } = toyEngine(["full_attention", "full_attention", "full_attention"], limits);
  engine.add({ promptIds: [1], maxTokens: 1000 });
  engine.step();
  const promptIds = Array.from({ length: 400 }, (_, i) => i % 97);
  const left = engine.add({ promptIds, maxTokens: 1 });
  const computed = () => scheduler.sequences.find(({ id }) => id === left)!.numComputed;
  while (computed() < 128) engine.step();
  // The next rows have begun.
  engine.step();
  const reached = computed();
  engine.cancel(left);
  const again = engine.add({ promptIds, maxTokens: 1 });
  for (;;) {
    const event = engine.step().events.find(({ id }) => id === again)?.event;
    if (event === undefined) continue;
    expect(event.usage.cachedTokens).toBe(reached);
    break;
  }
  engine.close();
});
