// The tests that gla and gdn have in common: golden files, the reference at awkward sizes, gradients against finite
// differences, and one answer of the serving form on every path.
import { describe, expect, test } from "bun:test";
import type { LinearSizes, Ops } from "../../src/ops/ops.ts";
import { type Golden, relativeError } from "./golden.ts";
import { isas, opsOf, randomFloats } from "./kernels.ts";
import {
  type LinearCase,
  type LinearVariant,
  linearCase,
  outputHeads,
  pieces,
  prefix,
  type Results,
  serve,
  stateHeads,
  together,
  train,
  type Upstream,
} from "./linear_case.ts";
import { eachGolden, expectClose, expectSameBits, fastIsas } from "./op_case.ts";

/**
 * Two libraries round a bf16 state at the same places, but a sum near the middle of two numbers may go either way: a few
 * numbers differ by a unit in the last place, and hardly anything by the norm.
 */
function expectSameRounding(actual: Float32Array, expected: Float32Array, what: string): void {
  expectClose(actual, expected, 2 ** -7, what);
  const norm = (x: Float32Array) => Math.sqrt(x.reduce((sum, one) => sum + one * one, 0));
  const error = norm(actual.map((x, i) => x - expected[i]!)) / norm(expected);
  if (!(error < 5e-4)) throw new Error(`${what}: error ${error} by the norm`);
}

/** A golden op as a case; `adjust` may change its inputs first. */
export function goldenCase(
  variant: LinearVariant,
  golden: Golden,
  sizes: LinearSizes,
  sources: Readonly<Record<string, string>>,
): LinearCase {
  const [B, T] = golden.shape("input.q") as [number, number];
  const inputs: Record<string, { shape: number[]; data: Float32Array }> = {};
  for (const name in sources) {
    const shape = golden.shape(`input.${sources[name]}`);
    inputs[name] = { shape: [B * T, ...shape.slice(2)], data: golden.f32(`input.${sources[name]}`) };
  }
  const seqStart = Array.from({ length: B + 1 }, (_, b) => b * T);
  return { variant, sizes, seqStart, inputs, initialState: golden.f32("input.initial_state") };
}

/** Forward, final state and every gradient of a golden file, and its serving form from a zero state. */
export function goldenTests(
  variant: LinearVariant,
  toCase: (golden: Golden) => { c: LinearCase; finish: (results: Results) => void },
  sources: Readonly<Record<string, string>>,
): void {
  eachGolden([`${variant}_op`], async (ops, golden) => {
    const { c, finish } = toCase(golden);
    const upstream = { dO: golden.f32("upstream.o"), dFinal: golden.f32("upstream.final_state") };
    const results = train(ops, c, upstream);
    finish(results);
    expectClose(results.o!, golden.f32("output.o"), 3e-5, `${golden.name} o`);
    expectClose(results.finalState!, golden.f32("output.final_state"), 3e-5, `${golden.name} final state`);
    expectClose(results.dInitial!, golden.f32("grad.input.initial_state"), 1e-4, `${golden.name} dInitial`);
    for (const name in sources)
      expectClose(results[`d${name}`]!, golden.f32(`grad.input.${sources[name]}`), 1e-4, `${golden.name} d${name}`);

    const fromZero = { ...c, initialState: null };
    const expected = train(await opsOf("reference"), fromZero);
    for (const [block, size] of [
      [32, 1000],
      [16, 1],
      [64, 50],
    ] as const) {
      const served = serve(ops, fromZero, block, together(fromZero, size));
      expectClose(served.o, expected.o!, 3e-5, `${golden.name} served in pieces of ${size}`);
      const elements = expected.finalState!.length / (c.seqStart.length - 1);
      for (let s = 0; s + 1 < c.seqStart.length; s++) {
        const state = expected.finalState!.slice(s * elements, (s + 1) * elements);
        expectClose(served.state(s), state, 3e-5, `${golden.name} served state`);
      }
    }
  });
}

function upstreamOf(c: LinearCase, seed = 77): Upstream {
  const [N, S] = [c.seqStart.at(-1)!, c.seqStart.length - 1];
  const { keyDim: Dk, valueDim: Dv } = c.sizes;
  return {
    dO: randomFloats(N * outputHeads(c) * Dv, seed),
    dFinal: randomFloats(S * stateHeads(c) * Dk * Dv, seed + 1),
  };
}

/** Both training passes and the serving form of every fast library against the reference. */
export function referenceTests(variant: LinearVariant, shapes: readonly (readonly [string, LinearSizes])[]): void {
  for (const isa of fastIsas)
    for (const [what, sizes] of shapes)
      test(`${variant} on ${isa} matches the reference at ${what}`, async () => {
        const [ops, reference] = [await opsOf(isa), await opsOf("reference")];
        for (const initial of [true, false]) {
          const c = linearCase(variant, sizes, [1, 63, 100, 16, 17], { initial, seed: initial ? 11 : 29 });
          const upstream = initial ? upstreamOf(c) : { ...upstreamOf(c), dFinal: null };
          const [actual, expected] = [train(ops, c, upstream), train(reference, c, upstream)];
          for (const name in expected)
            expectClose(actual[name]!, expected[name]!, name.startsWith("d") ? 5e-5 : 1e-5, `${what} ${name}`);
          if (initial) continue;
          for (const block of [16, 32]) {
            const narrow: LinearCase = { ...c, stateDtype: "bf16" };
            const [served, rounded] = [ops, reference].map((one) => serve(one, narrow, block, together(c, 1000)));
            expectSameRounding(served!.o, rounded!.o, `${what} served with a bf16 state`);
            c.seqStart.slice(1).forEach((_, s) => {
              expectSameRounding(served!.state(s), rounded!.state(s), `${what} bf16 state ${s}`);
            });
          }
          expectClose(serve(ops, c, 32, together(c, 1000)).o, expected.o!, 1e-5, `${what} served`);
          // Training works in blocks of 16 with the same arithmetic.
          expectSameBits(serve(ops, c, 16, together(c, 9)).o, actual.o!, `${what} served in blocks of 16`);
        }
      });
}

/** The reference's gradients against directional differences of its own forward pass. */
export function differenceTests(variant: LinearVariant, sizes: LinearSizes): void {
  test(`${variant} gradients of the reference agree with finite differences`, async () => {
    const ops = await opsOf("reference");
    const c = linearCase(variant, sizes, [9, 4], { initial: true });
    const upstream = upstreamOf(c);
    const grads = train(ops, c, upstream);
    const loss = (moved: LinearCase) => {
      const { o, finalState } = train(ops, moved);
      return dot(o!, upstream.dO) + dot(finalState!, upstream.dFinal!);
    };
    for (const name of [...Object.keys(c.inputs), "initialState"]) {
      const direction = randomFloats(sourceOf(c, name).length, 5);
      const step = 2 ** -7;
      const slope = (loss(move(c, name, direction, step)) - loss(move(c, name, direction, -step))) / (2 * step);
      const expected = dot(grads[name === "initialState" ? "dInitial" : `d${name}`]!, direction);
      expect(Math.abs(slope - expected)).toBeLessThan(2e-3 * Math.max(1, Math.abs(expected)));
    }
  });
}

const sourceOf = (c: LinearCase, name: string) => (name === "initialState" ? c.initialState! : c.inputs[name]!.data);

function move(c: LinearCase, name: string, direction: Float32Array, step: number): LinearCase {
  const data = sourceOf(c, name).map((x, i) => x + step * direction[i]!);
  if (name === "initialState") return { ...c, initialState: data };
  return { ...c, inputs: { ...c.inputs, [name]: { shape: c.inputs[name]!.shape, data } } };
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

const DTYPES = ["f32", "bf16"] as const;

/** One answer of the serving form for any chunking, batch and number of threads. */
export function pathTests(variant: LinearVariant, shapes: readonly (readonly [string, LinearSizes])[]): void {
  for (const isa of isas) {
    describe(isa, () => {
      for (const [what, sizes, stateDtype] of shapes.flatMap((shape) =>
        DTYPES.map((dtype) => [...shape, dtype] as const),
      ))
        test(`${variant} serves the same bits on every path at ${what} with ${stateDtype} states`, async () => {
          const ops = await opsOf(isa);
          const c = { ...linearCase(variant, sizes, [130, 1, 67]), stateDtype };
          for (const block of [16, 32, 64]) {
            const whole = serve(ops, c, block, pieces(c, 1000));
            const bits = whole.slots;
            for (const size of [1, 3, 16, 17, 64]) {
              const chunked = serve(ops, c, block, pieces(c, size));
              expectSameBits(chunked.o, whole.o, `block ${block}, pieces of ${size}`);
              expectSameState(chunked.slots, bits, `block ${block}, slots after pieces of ${size}`);
            }
            for (const size of [1000, 5, 1])
              expectSameBits(serve(ops, c, block, together(c, size)).o, whole.o, `block ${block}, batched by ${size}`);
            if (isa !== "reference") {
              ops.setThreads(1);
              expectSameBits(serve(ops, c, block, together(c, 40)).o, whole.o, `block ${block}, one thread`);
              ops.setThreads(2);
            }
          }
        });

      test(`${variant} training gives the same bits with 1 and 2 threads`, async () => {
        const ops = await opsOf(isa);
        if (isa === "reference") return expect(ops.isa).toBe("reference");
        const c = linearCase(variant, shapes[0]![1], [70, 5, 33], { initial: true });
        const two = train(ops, c, upstreamOf(c));
        ops.setThreads(1);
        const one = train(ops, c, upstreamOf(c));
        ops.setThreads(2);
        for (const name in two) expectSameBits(one[name]!, two[name]!, name);
      });
    });
  }
}

/** Rows that a block has not reached yet are leftovers of its past: compared only where they are numbers in both. */
function expectSameState(actual: Float32Array, expected: Float32Array, what: string): void {
  const unwritten = (x: number) => Number.isNaN(x);
  for (let i = 0; i < expected.length; i++)
    if (unwritten(expected[i]!) !== unwritten(actual[i]!)) throw new Error(`${what}: float ${i} is ${actual[i]}`);
  expectSameBits(
    actual.map((x) => (unwritten(x) ? 0 : x)),
    expected.map((x) => (unwritten(x) ? 0 : x)),
    what,
  );
}

/** The state at every position of a sequence, and 2,000 tokens of drift. */
export function stateTests(variant: LinearVariant, sizes: LinearSizes): void {
  for (const isa of isas) {
    test(`${variant} reads the state right at every position on ${isa}`, async () => {
      const [ops, reference] = [await opsOf(isa), await opsOf("reference")];
      const c = linearCase(variant, sizes, [40]);
      const read: Float32Array[] = [];
      serve(ops, c, 16, pieces(c, 1), (_, served) => read.push(served.state(0)));
      expect(read.length).toBe(40);
      read.forEach((state, i) => {
        const expected = train(reference, prefix(c, 0, i + 1)).finalState!;
        expectClose(state, expected, 1e-5, `state after ${i + 1} tokens`);
      });
    });

    test(`${variant} reads a bf16 state right at every position on ${isa}`, async () => {
      const narrow: LinearCase = { ...linearCase(variant, sizes, [40]), stateDtype: "bf16" };
      const states = async (own: Ops) => {
        const read: Float32Array[] = [];
        serve(own, narrow, 16, pieces(narrow, 1), (_, served) => read.push(served.state(0)));
        return read;
      };
      const [read, expected] = [await states(await opsOf(isa)), await states(await opsOf("reference"))];
      read.forEach((state, i) => {
        expectSameRounding(state, expected[i]!, `state after ${i + 1} tokens`);
        if ((i + 1) % 16 > 0) return;
        const low = new Uint16Array(state.buffer).filter((_, half) => half % 2 === 0);
        expect(low.every((bits) => bits === 0)).toBe(true); // at the end of a block every number is a bfloat16
      });
    });

    test(`${variant} keeps to the double recurrence over 2000 tokens on ${isa}`, async () => {
      const ops = await opsOf(isa);
      const c = mild(linearCase(variant, sizes, [2000]));
      const expected = train(await opsOf("reference"), c);
      const served = serve(ops, c, 32, pieces(c, 333));
      expectClose(served.o, expected.o!, 1e-5, "outputs");
      const width = outputHeads(c) * sizes.valueDim;
      const error = relativeError(served.o.slice(-100 * width), expected.o!.slice(-100 * width));
      expect(error).toBeLessThan(1e-5);
      expectClose(served.state(0), expected.finalState!, 1e-5, "state");
    });

    test(`${variant} refuses a stale slot, a short stride and bad sizes on ${isa}`, async () => {
      const ops = await opsOf(isa);
      const c = linearCase(variant, sizes, [8]);
      expect(() => serve(ops, c, 0, pieces(c, 8))).toThrow("block is 0, expected 1 to 256");
      expect(() => serve(ops, misplaced(c), 16, [[{ seq: 0, count: 3 }]])).toThrow(
        /Dk is 12, expected a multiple of 8/,
      );
      expectStale(ops, c);
      const one = ops.fromArray([1], new Int32Array(1)).ptr as never;
      const starts = ops.fromArray([2], Int32Array.from([0, 1])).ptr as never;
      const status =
        variant === "gla"
          ? ops.symbols.graft_gla(one, one, null, one, one, one, one, starts, one, 1, 1, 1, 1, 8, 8, 16, 0, 9999, 1)
          : ops.symbols.graft_gdn(
              one,
              one,
              null,
              one,
              one,
              one,
              one,
              one,
              starts,
              one,
              1,
              1,
              1,
              1,
              8,
              8,
              16,
              0,
              9999,
              1,
            );
      expect([status, ops.lastError()]).toEqual([1, `${variant}: q is a null pointer`]);
    });
  }
}

/** Log decays near zero, so that a state remembers hundreds of tokens. */
function mild(c: LinearCase): LinearCase {
  const name = c.variant === "gla" ? "a" : "g";
  const { shape, data } = c.inputs[name]!;
  return { ...c, inputs: { ...c.inputs, [name]: { shape, data: data.map((x) => Math.max(x, -0.15) * 0.05) } } };
}

function misplaced(c: LinearCase): LinearCase {
  return linearCase(c.variant, { ...c.sizes, keyDim: 12 }, [8]);
}

function expectStale(ops: Ops, c: LinearCase): void {
  let calls = 0;
  const skipping = () => {
    serve(ops, c, 16, pieces(c, 4), (positions) => {
      calls++;
      (positions as number[])[0] = 2;
    });
  };
  expect(skipping).toThrow(/holds the state at position 4, sequence 0 starts at 2/);
  expect(calls).toBe(1);
}
