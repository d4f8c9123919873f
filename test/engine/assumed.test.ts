// Sequences whose context counts as computed: they decode at their position over what the pools hold, for measuring.
import { expect, test } from "bun:test";
import { createRandomModel, createRandomPool } from "../../models/random_model.ts";
import { shapeConfig } from "../../models/shapes.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { TokenEvent } from "../../src/engine/types.ts";
import { bestOps, isas, type Library, opsOf } from "../support/kernels.ts";

const config = shapeConfig("tiny", 256);
const CONTEXT = 75; // neither a whole page nor a whole block

/** What two sequences at CONTEXT draw from pools of random numbers. */
async function decode(library: Library, stateDtype: "f32" | "bf16", seed: number) {
  const ops = await opsOf(library);
  const model = createRandomModel(ops, config);
  const pool = createRandomPool(ops, model, "gdn");
  const options = { maxSequences: 2, kvBytes: 1 << 22, stateBytes: 1 << 22, prefixCacheBytes: 0, stateDtype };
  const engine = createEngine(ops, model, options, { randomPools: seed });
  try {
    engine.addPool(pool);
    engine.registerHybrid({ name: "half", layers: config.linearLayers.map((_, i) => (i % 2 ? "gdn" : null)) });
    const promptIds = new Int32Array(CONTEXT + 1).fill(7);
    const ids = [1, 2].map(() => engine.addAssumed({ hybrid: "half", promptIds, maxTokens: 9, logprobs: 0 }));
    const first = engine.step();
    const events = [...first.events];
    while (engine.hasWork) events.push(...engine.step().events);
    const of = (id: number): TokenEvent[] => events.filter((event) => event.id === id).map(({ event }) => event);
    return { first, answers: ids.map((id) => of(id).flatMap(({ logprobs }) => logprobs!)) };
  } finally {
    engine.close();
    pool.free();
    model.free();
  }
}

test.each(["f32", "bf16"] as const)(
  "an assumed context costs one row and is what the pools hold, %s states",
  async (dtype) => {
    const library = isas.at(-1)!;
    const { first, answers } = await decode(library, dtype, 1);
    expect(first.failed).toEqual([]);
    expect(first.numPrefillTokens).toBe(2); // the last prompt token of each
    expect(answers.map((logprobs) => logprobs.length)).toEqual([9, 9]);
    expect(answers.flat().every(Number.isFinite)).toBe(true);
    expect(answers[0]).not.toEqual(answers[1]!); // in other pages and slots there are other numbers
    expect((await decode(library, dtype, 1)).answers).toEqual(answers);
    expect((await decode(library, dtype, 5)).answers).not.toEqual(answers);
  },
);

test("without random numbers an assumed context is of zeros", async () => {
  const ops = await bestOps();
  const model = createRandomModel(ops, config);
  const engine = createEngine(ops, model, { maxSequences: 2, kvBytes: 1 << 22, prefixCacheBytes: 0 });
  const logprobsAt = (context: number) => {
    const id = engine.addAssumed({ promptIds: new Int32Array(context + 1).fill(3), maxTokens: 1, logprobs: 0 });
    const events = engine.step().events.filter((event) => event.id === id);
    return events.flatMap(({ event }) => event.logprobs!);
  };
  expect(logprobsAt(64)).toHaveLength(1);
  // The longer the context, the more zeros its one real value is averaged with.
  expect(logprobsAt(128)).not.toEqual(logprobsAt(64));
  engine.close();
  model.free();
});
