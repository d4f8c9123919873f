// CUDA kernels that know sequences, in the emulator: attention over pages, convolutions and linear attention over slots,
// against the reference at odd shapes, and one answer for any chunks and batches.
import { describe, expect, test } from "bun:test";
import type { AttentionSizes, Ops } from "../../src/ops/ops.ts";
import { attendPieces, makeCache, type Piece } from "../support/attention_case.ts";
import { opsOf } from "../support/kernels.ts";
import {
  type LinearCase,
  linearCase,
  outputHeads,
  type Plan,
  pieces,
  serve,
  together,
} from "../support/linear_case.ts";
import { expectClose, expectSameBits, outputs, random } from "../support/op_case.ts";

type Cuts = (length: number) => number[];
const whole: Cuts = (length) => [length];
const chunks = (size: number): Cuts => {
  return (length) => Array.from({ length: Math.ceil(length / size) }, (_, i) => Math.min(size, length - i * size));
};

interface Case {
  readonly heads: readonly [number, number, number];
  readonly lengths: readonly number[];
  readonly dtype: "f32" | "bf16";
  readonly pageSize: number;
}

/** o of all sequences, side by side, each in the given pieces. */
function attend(ops: Ops, { heads, lengths, dtype, pageSize }: Case, cuts: Cuts): Float32Array {
  const [Hq, Hkv, D] = heads;
  const sizes: AttentionSizes = { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D };
  const N = lengths.reduce((a, b) => a + b, 0);
  const starts = lengths.map((_, i) => lengths.slice(0, i).reduce((a, b) => a + b, 0));
  const qkv = { q: random(ops, [N, Hq, D], 1, 2), k: random(ops, [N, Hkv, D], 2, 2), v: random(ops, [N, Hkv, D], 3) };
  const cache = makeCache(ops, sizes, { numSeqs: lengths.length, length: Math.max(...lengths), pageSize, dtype });
  const out = new Float32Array(N * Hq * D);
  const done = lengths.map(() => 0);
  const plans = lengths.map(cuts);
  for (let step = 0; plans.some((plan) => step < plan.length); step++) {
    const parts: Piece[] = [];
    plans.forEach((plan, seq) => {
      const count = plan[step];
      if (count === undefined) return;
      parts.push({ seq, start: done[seq]!, count, from: starts[seq]! + done[seq]! });
      done[seq] = done[seq]! + count;
    });
    const o = attendPieces(ops, sizes, cache, qkv, parts);
    let at = 0;
    for (const { from, count } of parts) {
      out.set(o.subarray(at, at + count * Hq * D), from * Hq * D);
      at += count * Hq * D;
    }
  }
  return out;
}

const attentionCases: Case[] = [
  { heads: [1, 1, 8], lengths: [1, 35], dtype: "f32", pageSize: 16 },
  { heads: [4, 2, 24], lengths: [33, 2], dtype: "bf16", pageSize: 5 },
  { heads: [2, 1, 256], lengths: [20], dtype: "bf16", pageSize: 32 },
  { heads: [6, 2, 32], lengths: [70, 1, 33], dtype: "bf16", pageSize: 16 },
  { heads: [3, 1, 64], lengths: [65, 130], dtype: "bf16", pageSize: 32 },
  { heads: [8, 2, 128], lengths: [70, 5], dtype: "bf16", pageSize: 48 },
  { heads: [20, 1, 32], lengths: [40], dtype: "bf16", pageSize: 32 },
  { heads: [2, 1, 32], lengths: [1100], dtype: "bf16", pageSize: 64 },
];

describe.each(attentionCases.map((one) => [`${one.heads} ${one.lengths} ${one.dtype}`, one] as const))(
  "%s",
  (_, one) => {
    // Tensor cores take queries and weights in bfloat16: 8 bits of each.
    const limit = one.dtype === "bf16" && [32, 64, 128].includes(one.heads[2]) ? 1e-2 : 1e-5;

    test("attention matches the reference", async () => {
      const expected = attend(await opsOf("reference"), one, whole);
      expectClose(attend(await opsOf("simt"), one, whole), expected, limit, "whole");
    });

    test("attention gives the same bits for any chunks", async () => {
      const ops = await opsOf("simt");
      const expected = attend(ops, one, whole);
      const longest = Math.max(...one.lengths);
      for (const size of longest > 500 ? [600, 47] : [1, 7, 50]) {
        expectSameBits(attend(ops, one, chunks(size)), expected, `chunks of ${size}`);
      }
      const tail: Cuts = (length) => (length > 4 ? [length - 3, 1, 1, 1] : [length]);
      expectSameBits(attend(ops, one, tail), expected, "last rows one by one");
    });
  },
);

function convolve(ops: Ops, cuts: Cuts, dynamic: boolean) {
  const [C, W, lengths] = [37, 4, [70, 1, 5]];
  const N = 76;
  const u = random(ops, [N, C], 1);
  const w = random(ops, dynamic ? [N, C, W] : [C, W], 2);
  const bias = random(ops, [C], 3);
  const stride = (W - 1) * C + 5;
  const state = ops.empty([3, stride]);
  const values = new Float32Array(N * C);
  const starts = [0, 70, 71];
  const done = [0, 0, 0];
  const plans = lengths.map(cuts);
  for (let step = 0; plans.some((plan) => step < plan.length); step++) {
    const active = [0, 1, 2].filter((s) => plans[s]![step] !== undefined);
    const counts = active.map((s) => plans[s]![step]!);
    const index = active.flatMap((s, i) => Array.from({ length: counts[i]! }, (_, j) => starts[s]! + done[s]! + j));
    const M = index.length;
    const ids = ops.fromArray([M], Int32Array.from(index));
    const part = outputs(ops, { y: [M, C], u: [M, C], w: dynamic ? [M, C * W] : [1] });
    ops.gatherRows(part.u, u, ids);
    const seqStart = [0];
    for (const count of counts) seqStart.push(seqStart.at(-1)! + count);
    const starts32 = ops.fromArray([seqStart.length], Int32Array.from(seqStart));
    const slots = { state, stride, slots: ops.fromArray([active.length], Int32Array.from(active)) };
    if (dynamic) {
      ops.gatherRows(part.w, { ...w, shape: [N, C * W] }, ids);
      ops.dynamicConv(part.y, part.u, { ...part.w, shape: [M, C, W] }, starts32, slots);
    } else {
      ops.shortConv(part.y, part.u, w, bias, starts32, slots);
    }
    const got = ops.toFloat32(part.y);
    for (const [i, row] of index.entries()) values.set(got.subarray(i * C, (i + 1) * C), row * C);
    active.forEach((s, i) => {
      done[s] = done[s]! + counts[i]!;
    });
  }
  return { values, state: ops.toFloat32(state) };
}

test.each([false, true])(
  "convolutions match the reference and any chunks of themselves (dynamic: %p)",
  async (dynamic) => {
    const ops = await opsOf("simt");
    const [actual, expected] = [convolve(ops, whole, dynamic), convolve(await opsOf("reference"), whole, dynamic)];
    expectClose(actual.values, expected.values, 1e-6, "y");
    expectClose(actual.state, expected.state, 1e-7, "state");
    for (const size of [1, 3, 64]) {
      const parts = convolve(ops, chunks(size), dynamic);
      expectSameBits(parts.values, actual.values, `chunks of ${size}`);
      expectSameBits(parts.state, actual.state, `state after chunks of ${size}`);
    }
  },
);

const linearSizes = (Hq: number, Hk: number, Hv: number, Dk: number, Dv: number) => {
  return { numQueryHeads: Hq, numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv };
};
const linearCases: [string, LinearCase, number][] = [
  ["gla, small", linearCase("gla", linearSizes(2, 1, 1, 8, 8), [21, 1]), 16],
  ["gla, grouped", linearCase("gla", linearSizes(6, 2, 2, 24, 40), [37, 50]), 16],
  ["gla, sliced", linearCase("gla", linearSizes(2, 2, 2, 16, 64), [40]), 32],
  ["gla, wide", linearCase("gla", linearSizes(1, 1, 1, 32, 136), [19]), 8],
  ["gdn, small", linearCase("gdn", linearSizes(1, 1, 1, 8, 8), [21, 1]), 16],
  ["gdn, grouped", linearCase("gdn", linearSizes(2, 2, 4, 24, 40), [37, 50]), 16],
  ["gdn, sliced", linearCase("gdn", linearSizes(2, 2, 2, 16, 64), [40]), 32],
  ["gdn, wide", linearCase("gdn", linearSizes(1, 1, 1, 32, 192), [19]), 1],
];

describe.each(linearCases)("%s", (_, base, block) => {
  test.each(["f32", "bf16"] as const)(
    "matches the reference and any chunks of itself, state in %s",
    async (stateDtype) => {
      const [ops, reference] = [await opsOf("simt"), await opsOf("reference")];
      const c: LinearCase = { ...base, stateDtype };
      const plan = together(c, 1000);
      const [actual, expected] = [serve(ops, c, block, plan), serve(reference, c, block, plan)];
      const limit = stateDtype === "f32" ? 3e-5 : 2 ** -6;
      expectClose(actual.o, expected.o, limit, "o");
      for (let s = 0; s + 1 < c.seqStart.length; s++) {
        expectClose(actual.state(s), expected.state(s), limit, `state of ${s}`);
      }
      const others: [string, Plan][] = [
        ["token by token", together(c, 1)],
        ["alone, token by token", pieces(c, 1)],
        ["chunks of 7", together(c, 7)],
        ["alone, chunks of 20", pieces(c, 20)],
      ];
      for (const [name, other] of others) {
        const served = serve(ops, c, block, other);
        expectSameBits(served.o, actual.o, name);
        for (let s = 0; s + 1 < c.seqStart.length; s++)
          expectSameBits(served.state(s), actual.state(s), `${name}: ${s}`);
      }
      expect(actual.o.length).toBe(c.seqStart.at(-1)! * outputHeads(c) * c.sizes.valueDim);
    },
  );
});

test("a slot that stands elsewhere is complained of, and rows that a call of one row each cannot have", async () => {
  const ops = await opsOf("simt");
  const sizes = linearSizes(1, 1, 1, 8, 8);
  const [stride, ints] = [
    ops.glaStateFloats(sizes, 16, "f32"),
    (...values: number[]) => ops.fromArray([values.length], Int32Array.from(values)),
  ];
  const slots = { state: ops.empty([stride]), stride, dtype: "f32" as const, slots: ints(0) };
  const row = () => random(ops, [1, 8], 1);
  const step = (position: number) => {
    ops.gla(row(), row(), row(), row(), row(), ints(0, 1), ints(position), slots, sizes, 16);
  };
  step(0);
  step(1);
  expect(() => step(5)).toThrow("sequence 0 starts at 5, its slot holds the state at position 2");
  const heads = { numQueryHeads: 1, numKvHeads: 1, headDim: 32 };
  const cache = makeCache(ops, heads, { numSeqs: 2, length: 32, pageSize: 16, dtype: "bf16" });
  const qkv = { q: random(ops, [2, 32], 1), k: random(ops, [2, 32], 2), v: random(ops, [2, 32], 3) };
  const pieces = [0, 2].map((count, seq) => ({ seq, start: 0, count, from: 0 }));
  expect(() => attendPieces(ops, heads, cache, qkv, pieces)).toThrow("sequence 1 has 2 rows, expected 1");
});
