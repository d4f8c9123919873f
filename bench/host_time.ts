// What the host itself does for a decode step: the step's time without that inside the kernel library, over a model as deep
// as asked for and narrow, so that its kernels are short. On a device the host does this while the device computes.
// Usage: bun bench/host_time.ts [--device cpu|cuda|simt] [--layers 28] [--batch 1,16,128] [--steps 400]
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createRandomModel } from "../models/random_model.ts";
import { shapeConfig } from "../models/shapes.ts";
import { randomPrompts } from "../src/bench/prompts.ts";
import { percentile } from "../src/bench/statistics.ts";
import { createEngine } from "../src/engine/create.ts";
import { Ops } from "../src/ops/ops.ts";

const { values } = parseArgs({
  options: {
    device: { type: "string", default: "cpu" },
    layers: { type: "string", default: "28" },
    batch: { type: "string", default: "1,16,128" },
    steps: { type: "string", default: "400" },
  },
});
const numSteps = Number(values.steps);
const numLayers = Number(values.layers);
/** Steps before those that are measured. */
const WARM_UP = 50;

const directory = join(import.meta.dir, "..", "build", "kernels");
const device = values.device === "cpu" ? {} : { device: values.device as "cuda" | "simt", directory };
const ops = await Ops.load({ ...device, threads: 1, timeKernels: true });
const shape = shapeConfig("llama-3.2-3b", WARM_UP + numSteps + 64);
const sizes = { hiddenSize: 32, intermediateSize: 32, numHeads: 1, numKvHeads: 1, headDim: 32, vocabSize: 64 };
const linearLayers = new Array(numLayers).fill(null);
const model = createRandomModel(ops, { ...shape, ...sizes, numLayers, linearLayers });

function measure(numSequences: number): void {
  const engine = createEngine(ops, model, { maxSequences: numSequences, prefixCacheBytes: 0 });
  for (const promptIds of randomPrompts(sizes.vocabSize, numSequences, 8)) {
    engine.add({ promptIds, maxTokens: WARM_UP + numSteps + 16 });
  }
  for (let i = 0; i < WARM_UP; i++) engine.step();
  const host: number[] = [];
  const calls = ops.clock!.calls;
  for (let i = 0; i < numSteps; i++) {
    const [started, inside] = [Bun.nanoseconds(), ops.clock!.seconds];
    engine.step();
    host.push((Bun.nanoseconds() - started) / 1e3 - 1e6 * (ops.clock!.seconds - inside));
  }
  const { stepsAhead, stepsReplayed } = engine.stats();
  const microseconds = [0.1, 0.5, 0.9].map((p) => percentile(host, p).toFixed(1)).join(" / ");
  const each = ((ops.clock!.calls - calls) / numSteps).toFixed(1);
  console.log(
    `batch ${numSequences}: host us a step at p10 / p50 / p90 ${microseconds}, ${each} kernel calls a step, ` +
      `${stepsAhead} steps ahead, ${stepsReplayed} replayed`,
  );
  engine.close();
}

console.log(`${values.device}, ${numLayers} layers`);
for (const batch of values.batch.split(",")) measure(Number(batch));
model.free();
