// The sampler against a plain one: rows with penalties, biases, constraints and log-probabilities in any mixture, and rows
// that fail alone.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Drawn, Failed } from "../../src/engine/batch.ts";
import type { TokenConstraint } from "../../src/engine/constraint.ts";
import { LogitAdjustments } from "../../src/engine/logit_adjustments.ts";
import { type DrawnSequence, Sampler } from "../../src/engine/sampler.ts";
import type { SamplingState } from "../../src/engine/sequence.ts";
import { KernelError, RequestError } from "../../src/errors.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { Arena } from "../../src/tensor/arena.ts";
import { isas, opsOf, randomFloats } from "../support/kernels.ts";
import { plainAdjust, plainDraw, plainLogprob, plainTop } from "../support/plain_sampler.ts";

const V = 150;
const MAX_ROWS = 6;

interface Row {
  readonly prompt: number[];
  readonly generated: number[];
  readonly sampling: SamplingState;
  /** Allowed ids; null: no constraint. */
  readonly allowed: number[] | null;
  readonly position: number;
  readonly broken: boolean;
}

const id = fc.nat(V - 1);
const penalties = {
  presencePenalty: fc.constantFrom(0, 0, 0.5, 2, -2),
  frequencyPenalty: fc.constantFrom(0, 0, 0.3, 2, -1.1),
  repetitionPenalty: fc.constantFrom(1, 1, 1.3, 0.5, 2),
  logitBias: fc.uniqueArray(fc.tuple(id, fc.constantFrom(-100, -1.5, 0, 3, 100)), {
    maxLength: 5,
    selector: ([i]) => i,
  }),
};
const sampling: fc.Arbitrary<SamplingState> = fc.record({
  temperature: fc.constantFrom(0, 0, 0.7, 1.5),
  topK: fc.constantFrom(0, 0, 10),
  topP: fc.constantFrom(1, 0.9),
  minP: fc.constantFrom(0, 0.02),
  seed: fc.maxSafeNat(),
  choice: fc.nat(100),
  numLogprobs: fc.constantFrom(-1, 0, 3, 20),
  ...penalties,
});
const row: fc.Arbitrary<Row> = fc.record({
  prompt: fc.array(id, { minLength: 1, maxLength: 30 }),
  generated: fc.array(fc.nat(40), { maxLength: 60 }),
  sampling,
  allowed: fc.oneof({ weight: 2, arbitrary: fc.constant(null) }, fc.uniqueArray(id, { maxLength: 12 })),
  position: fc.nat(5000),
  broken: fc.nat(19).map((n) => n === 0),
});

function sequenceOf({ prompt, generated, sampling, allowed }: Row): DrawnSequence {
  const adjustments = LogitAdjustments.of(sampling, prompt);
  for (const token of generated) adjustments?.accept(token);
  return { sampling, adjustments, constraint: allowed === null ? null : only(allowed) };
}

function only(ids: readonly number[]): TokenConstraint {
  return {
    allow: (mask) => {
      if (mask.length !== Math.ceil(V / 32) || mask.some((word) => word !== 0)) throw new Error("A bad mask");
      for (const id of ids) mask[id >> 5]! |= 1 << (id & 31);
      return ids.length > 0;
    },
    accept: () => {},
    done: false,
  };
}

/** Fails unless the output is what a plain sampler makes of the row. Returns whether the draw was too close to compare. */
function check(one: Row, logits: Float32Array, output: Drawn | Failed): boolean {
  const { sampling, allowed, broken, position } = one;
  if (broken || allowed?.length === 0) {
    if (!("error" in output)) throw new Error("Something was drawn where nothing can be");
    expect(output.error).toBeInstanceOf(broken ? KernelError : RequestError);
    return false;
  }
  if ("error" in output) throw output.error;
  const rules = { ...sampling, ...one, allowed: allowed === null ? null : new Set(allowed) };
  const expected = plainDraw(plainAdjust(logits, rules), { ...sampling, position });
  const close = output.id !== expected.id;
  if (close && expected.margin > 4e-6) throw new Error(`drew ${output.id}, expected ${expected.id}`);
  const { numLogprobs } = sampling;
  if (numLogprobs < 0) expect(output.logprob).toBeNaN();
  else expect(Math.abs(output.logprob - plainLogprob(logits, output.id))).toBeLessThan(1e-5);
  expect(output.top.map(({ id }) => id)).toEqual(plainTop(logits, Math.max(0, numLogprobs)));
  for (const { id, logprob } of output.top) {
    expect(Math.abs(logprob - plainLogprob(logits, id))).toBeLessThan(1e-5);
  }
  return close;
}

describe.each(isas)("%s", (isa) => {
  let ops: Ops;
  let arena: Arena;
  let sampler: Sampler;

  beforeAll(async () => {
    ops = await opsOf(isa);
    arena = new Arena(ops);
    sampler = new Sampler(ops, arena, MAX_ROWS);
  });
  afterAll(() => {
    sampler.close();
    arena.close();
  });

  function draw(rows: readonly Row[], logits: Float32Array): (Drawn | Failed)[] {
    return arena.scope(() => {
      const tensor = arena.alloc([rows.length, V]);
      ops.upload(tensor, logits);
      return sampler.draw(
        tensor,
        rows.map(sequenceOf),
        rows.map(({ position }) => position),
      );
    });
  }

  test("draws, log-probabilities and failures are the plain ones, whatever rows stand together", () => {
    let close = 0;
    const property = fc.property(fc.array(row, { minLength: 1, maxLength: MAX_ROWS }), fc.nat(1000), (rows, noise) => {
      const logits = randomFloats(rows.length * V, noise).map((x) => Math.round(x * 64) / 8);
      rows.forEach(({ broken }, i) => {
        if (broken) logits[i * V + ((noise * 7 + i) % V)] = Number.NaN;
      });
      draw(rows, logits).forEach((output, i) => {
        if (check(rows[i]!, logits.slice(i * V, (i + 1) * V), output)) close++;
      });
    });
    const numRuns = Number(process.env.GRAFT_SAMPLER_RUNS ?? 400);
    fc.assert(property, { numRuns, seed: Number(process.env.GRAFT_SEED ?? 20261121) });
    expect(close).toBeLessThan(numRuns / 50);
  });

  test("a row's token does not depend on its neighbours or their number", () => {
    const rows = fc.sample(row, { numRuns: 60, seed: 5 }).filter(({ broken }) => !broken);
    const logits = randomFloats(rows.length * V, 8).map((x) => x * 6);
    const alone = rows.map((one, i) => draw([one], logits.slice(i * V, (i + 1) * V))[0]!);
    for (let from = 0; from < rows.length; from += MAX_ROWS) {
      const part = rows.slice(from, from + MAX_ROWS);
      const together = draw(part, logits.slice(from * V, (from + part.length) * V));
      expect(together).toEqual(alone.slice(from, from + part.length));
    }
  });

  test("log-probabilities asked of more ids than there are end with the vocabulary", () => {
    const small = arena.alloc([1, 3]);
    ops.upload(small, Float32Array.of(1, 3, 2));
    const one = fc.sample(row, { numRuns: 1, seed: 1 })[0]!;
    const state = { ...one.sampling, temperature: 0, numLogprobs: 20 };
    const [output] = sampler.draw(small, [{ sampling: state, adjustments: null, constraint: null }], [0]);
    if (output === undefined || "error" in output) throw new Error("Nothing was drawn");
    expect(output.top.map(({ id }) => id)).toEqual([1, 2, 0]);
    arena.reset();
  });

  test("a constraint that throws fails its own row", () => {
    const [one] = fc.sample(row, { numRuns: 1, seed: 2 }).map((r) => ({ ...r, allowed: null }));
    const free = sequenceOf(one!);
    const allow = (): boolean => {
      throw new Error("The grammar is broken");
    };
    const broken = { ...only([]), allow };
    const tensor = arena.alloc([2, V]);
    ops.upload(tensor, randomFloats(2 * V, 4));
    const [first, second] = sampler.draw(tensor, [{ ...free, constraint: broken }, free], [0, 0]);
    expect(first).toEqual({ error: new Error("The grammar is broken") });
    expect(second).toHaveProperty("id");
    arena.reset();
  });

  test("score() gives the log-probabilities of ids and of the most likely ones, and says where there are none", () => {
    const logits = randomFloats(3 * V, 21).map((x) => Math.round(x * 32) / 4);
    logits[2 * V + 5] = Number.NaN;
    const tensor = arena.alloc([3, V]);
    ops.upload(tensor, logits);
    const ids = arena.alloc([3], "i32");
    ops.upload(ids, Int32Array.of(7, 149, 0));
    const { logprobs, argmax, top } = sampler.score(tensor, ids, [0, 5, 5]);
    const [first, second] = [logits.slice(0, V), logits.slice(V, 2 * V)];
    expect(logprobs[0]).toBeCloseTo(plainLogprob(first, 7), 4);
    expect(logprobs[1]).toBeCloseTo(plainLogprob(second, 149), 4);
    expect(Array.from(argmax)).toEqual([plainTop(first, 1)[0]!, plainTop(second, 1)[0]!, -1]);
    expect(top.slice(0, 2).map((list) => list.map(({ id }) => id))).toEqual([[], plainTop(second, 5)]);
    for (const { id, logprob } of top[1]!) expect(logprob).toBeCloseTo(plainLogprob(second, id), 4);
    arena.reset();
  });
});
