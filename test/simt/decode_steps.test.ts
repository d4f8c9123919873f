// Decode steps that repeat: the same texts as op by op, nothing sent while nothing changes, and programs that go when they
// must.
import { expect, test } from "bun:test";
import { createRandomModel } from "../../models/random_model.ts";
import { shapeConfig } from "../../models/shapes.ts";
import type { Batch } from "../../src/engine/batch.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { DecodeStep } from "../../src/engine/decode_program.ts";
import { DecodePrograms } from "../../src/engine/decode_programs.ts";
import type { Sequence } from "../../src/engine/sequence.ts";
import { Ops } from "../../src/ops/ops.ts";
import { repeatCases } from "../../src/selftest/repeat_cases.ts";
import { repeatedSteps } from "../../src/selftest/repeated_steps.ts";
import { selftest } from "../../src/selftest/selftest.ts";
import { forwardLibraries, isas, opsOf } from "../support/kernels.ts";

const directory = process.env.GRAFT_KERNELS ?? `${import.meta.dir}/../../build/kernels`;

test("recorded steps of the emulated device equal the reference's", async () => {
  const results = [...selftest(await opsOf("simt"), await opsOf("reference"), repeatCases)];
  expect(results.filter(({ passed }) => !passed)).toEqual([]);
  expect(results.length).toBe(repeatCases.length);
});

test.each(forwardLibraries.filter((library) => library === "simt" || library === isas.at(-1)))(
  "texts are the same repeated and ahead as op by op on %s",
  async (library) => {
    expect(repeatedSteps(await opsOf(library))).toMatchObject({ passed: true, error: 0 });
  },
  60_000,
);

test("a step that repeats takes three calls: replay, fetch, wait; a new page one upload and one kernel more", async () => {
  const ops = await Ops.load({ device: "simt", directory, timeKernels: true });
  const shape = shapeConfig("tiny", 64);
  const sizes = { hiddenSize: 32, intermediateSize: 32, numHeads: 1, numKvHeads: 1, headDim: 32, vocabSize: 32 };
  const model = createRandomModel(ops, { ...shape, ...sizes, numLayers: 2, linearLayers: [null, null] });
  const engine = createEngine(ops, model, { pageSize: 16, prefixCacheBytes: 0, kvBytes: 1 << 20 });
  engine.add({ promptIds: [1, 2, 3, 4], maxTokens: 40 });
  engine.add({ promptIds: [5, 6, 7, 8], maxTokens: 40 });
  const calls: number[] = [];
  while (engine.hasWork) {
    const before = ops.clock!.calls;
    engine.step();
    calls.push(ops.clock!.calls - before);
  }
  const repeating = calls.slice(6, -1);
  expect(repeating.length).toBeGreaterThan(30);
  expect(repeating.filter((count) => count !== 3)).toEqual([5, 5]);
  expect(engine.stats().stepsAhead).toBeGreaterThan(35);
  expect(engine.stats().stepsReplayed).toBe(engine.stats().generatedTokens / 2 - 3);
  engine.close();
  model.free();
});

/** A sequence that has begun, of a hybrid whose mixers are called so; some layer of it attends, or none. */
function sequence(id: number, identity: string, numFull = 1): Sequence {
  const sampling = { temperature: 0, topP: 1, minP: 0, topK: 0, seed: 0, choice: 0 };
  return {
    id,
    hybrid: { identity, numFull },
    sampling,
    tokens: new Array(2000).fill(3),
    numStarts: 1,
  } as unknown as Sequence;
}

function batchOf(sequences: readonly Sequence[], start: number): Batch {
  const chunks = sequences.map((one) => ({ sequence: one, start, count: 1, numOutputs: 1 }));
  return { copies: [], chunks, numRows: chunks.length };
}

async function open(maxPrograms: number) {
  const ops = await opsOf("simt");
  const launched: DecodeStep[] = [];
  const compute = (step: DecodeStep) => {
    launched.push(step);
    ops.zero(step.drawn);
    return step.drawn;
  };
  const memory = { maxPositions: 1200 } as never;
  const problems: string[] = [];
  const problem = (error: unknown) => problems.push((error as Error).message);
  const parts = { ops, memory, numLayers: 0, record: true, problem, compute };
  return { ops, launched, problems, parts, programs: new DecodePrograms(parts, maxPrograms) };
}

test("a program is launched twice, then recorded, and follows its own batch alone", async () => {
  const { programs, launched } = await open(4);
  const [a, b] = [sequence(1, "x"), sequence(2, "x")];
  const first = programs.seat(batchOf([a, b], 10));
  const recorded = [];
  for (let position = 10; position < 15; position++) {
    expect(programs.follow(batchOf([a, b], position))).toBe(first);
    expect(programs.follow(batchOf([b, a], position))).toBeNull();
    expect(programs.follow(batchOf([a], position))).toBeNull();
    expect(programs.follow(batchOf([a, b], position + 1))).toBeNull();
    first.launch();
    recorded.push(first.recorded);
  }
  expect(recorded).toEqual([false, false, true, true, true]);
  expect(launched.length).toBe(3);
  // Other sequences of the same kind, and the same ones after they have given their places back, are another sitting.
  expect(programs.seat(batchOf([sequence(3, "x"), sequence(4, "x")], 700))).not.toBe(first);
  expect(first.standsAt(batchOf([a, b], 15))).toBe(false);
  expect(programs.seat(batchOf([sequence(3, "x"), sequence(4, "x")], 70))).toBe(first);
  programs.seat(batchOf([a, b], 15));
  a.numStarts++;
  expect(programs.follow(batchOf([a, b], 15))).toBeNull();
  expect(programs.seat(batchOf([a, b], 15))).toBe(first);
  expect(programs.follow(batchOf([a, b], 15))).toBe(first);
  programs.vacate();
  expect(programs.follow(batchOf([a, b], 15))).toBeNull();
  programs.close();
});

test("what cannot be recorded goes on op by op, and what cannot be replayed is given up", async () => {
  const { ops, parts, problems } = await open(1);
  const waits = (step: DecodeStep) => {
    ops.toInt32(step.drawn);
    return parts.compute(step);
  };
  const one = batchOf([sequence(1, "x")], 0);
  const slow = new DecodePrograms({ ...parts, compute: waits }).seat(one);
  for (let i = 0; i < 4; i++) slow.launch();
  expect([slow.recorded, slow.standsAt(batchOf([one.chunks[0]!.sequence], 4))]).toEqual([false, true]);
  expect(problems).toEqual(["Cannot run download: Cannot download 4 bytes while recording"]);
  slow.close();

  const failing = Object.assign(Object.create(ops) as Ops, {
    replay: () => {
      throw new Error("a replay fails here");
    },
  });
  const broken = new DecodePrograms({ ...parts, ops: failing }).seat(one);
  for (let i = 0; i < 2; i++) broken.launch();
  expect(() => broken.launch()).toThrow("a replay fails here");
  expect([broken.recorded, broken.standsAt(one)]).toEqual([false, false]);
  broken.seat(one);
  for (let i = 0; i < 3; i++) broken.launch();
  expect(problems.slice(1)).toEqual(["a replay fails here"]);
  broken.close();
});

test("what stands at longer contexts is another program, in steps of a quarter", async () => {
  const { programs } = await open(10);
  const one = sequence(1, "x");
  const longest = [0, 511, 512, 639, 640, 767, 1023, 1024, 1199].map((start) => {
    return programs.seat(batchOf([one], start)).longest;
  });
  expect(longest).toEqual([512, 512, 640, 640, 768, 768, 1024, 1200, 1200]);
  // Where nobody attends the context counts for nothing, also beyond what there are pages for.
  const none = sequence(2, "y", 0);
  expect(programs.seat(batchOf([none], 1999))).toBe(programs.seat(batchOf([none], 3)));
  expect(programs.seat(batchOf([none, one], 700)).longest).toBe(768);
  programs.close();
});

test("programs go with the weights they were recorded with, and the least recently used for room", async () => {
  const { programs } = await open(2);
  const [x, y] = [sequence(1, "x"), sequence(2, "y")];
  const mixed = programs.seat(batchOf([x, y], 1));
  const alone = programs.seat(batchOf([x], 1));
  programs.forget("y");
  expect(programs.seat(batchOf([x], 2))).toBe(alone);
  const again = programs.seat(batchOf([x, y], 2));
  expect(again).not.toBe(mixed);
  expect(programs.seat(batchOf([x], 3))).toBe(alone);
  programs.seat(batchOf([y], 3));
  expect(programs.seat(batchOf([x], 4))).toBe(alone);
  expect(programs.seat(batchOf([x, y], 4))).not.toBe(again);
  programs.close();
});
