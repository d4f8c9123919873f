// How much a long prompt slows the streams beside it: time between tokens before the prompt arrives and while it is computed,
// and the prompt's own time beside the streams and alone, with and without the bound.
// Usage: bun bench/prefill_interference.ts [--shape smollm2-135m] [--prompt 16384] [--streams 1] [--threads N] [--bounds 2,0]
import { parseArgs } from "node:util";
import { createRandomModel } from "../models/random_model.ts";
import { shapeConfig } from "../models/shapes.ts";
import { randomPrompts } from "../src/bench/prompts.ts";
import { percentile } from "../src/bench/statistics.ts";
import { createEngine } from "../src/engine/create.ts";
import type { Engine } from "../src/engine/engine.ts";
import { Ops } from "../src/ops/ops.ts";

const { values } = parseArgs({
  options: {
    shape: { type: "string", default: "smollm2-135m" },
    prompt: { type: "string", default: "16384" },
    streams: { type: "string", default: "1" },
    threads: { type: "string", default: "0" },
    bounds: { type: "string", default: "2,0" },
  },
});
const promptTokens = Number(values.prompt);
const numStreams = Number(values.streams);
/** Decode steps that are measured before the prompt arrives. */
const BEFORE = 100;

const ops = await Ops.load({ threads: Number(values.threads) });
const config = shapeConfig(values.shape, promptTokens + 64);
const model = createRandomModel(ops, config);
const [long] = randomPrompts(config.vocabSize, 1, promptTokens);

function open(prefillInterference: number): Engine {
  return createEngine(ops, model, { prefillInterference, prefixCacheBytes: 0, kvDtype: "bf16", kvBytes: 2 ** 31 });
}

/** Milliseconds of the steps until `id` has its first token. */
function stepsToToken(engine: Engine, id: number): number[] {
  const times: number[] = [];
  for (;;) {
    const started = performance.now();
    const { events } = engine.step();
    times.push(performance.now() - started);
    if (events.some((event) => event.id === id)) return times;
  }
}

function measure(bound: number): void {
  const engine = open(bound);
  // Once alone, so that no memory is touched for the first time while it is measured.
  const alone = stepsToToken(engine, engine.add({ promptIds: long!, maxTokens: 1 }));
  for (const promptIds of randomPrompts(config.vocabSize, numStreams, 32, 2)) {
    engine.add({ promptIds, maxTokens: promptTokens });
  }
  for (let i = 0; i < 5; i++) engine.step();
  const before = Array.from({ length: BEFORE }, () => {
    const started = performance.now();
    engine.step();
    return performance.now() - started;
  });
  const during = stepsToToken(engine, engine.add({ promptIds: long!, maxTokens: 1 }));
  const words = (times: number[]) => [0.5, 0.99, 1].map((p) => percentile(times, p).toFixed(2)).join(" / ");
  const base = percentile(before, 0.5);
  const ratios = [0.5, 0.99, 1].map((p) => `${(percentile(during, p) / base).toFixed(2)}x`).join(" / ");
  const seconds = during.reduce((a, b) => a + b, 0) / 1000;
  console.log(
    `bound ${bound}: ms between tokens at p50 / p99 / max, before: ${words(before)}, during: ${words(during)}`,
  );
  const aloneSeconds = alone.reduce((a, b) => a + b, 0) / 1000;
  console.log(`  against p50 before: ${ratios}`);
  console.log(`  prompt in ${seconds.toFixed(2)} s and ${during.length} steps, alone in ${aloneSeconds.toFixed(2)} s`);
  engine.close();
}

console.log(`${values.shape}, prompt of ${promptTokens} beside ${numStreams} streams`);
for (const bound of values.bounds.split(",")) measure(Number(bound));
model.free();
