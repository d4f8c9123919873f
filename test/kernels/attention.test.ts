// Softmax attention, paged and in training form: golden files, the reference at odd sizes and head sizes, one answer for
// every way of cutting a prompt.
import { describe, expect, test } from "bun:test";
import type { AttentionSizes, Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { attendPieces, makeCache, type Piece } from "../support/attention_case.ts";
import type { Golden } from "../support/golden.ts";
import { guarded, isas, opsOf } from "../support/kernels.ts";
import {
  eachGolden,
  expectClose,
  expectGolden,
  expectSameBits,
  fastIsas,
  outputs,
  random,
} from "../support/op_case.ts";

/** q, k after rope, v and the table of a golden case, as one ragged batch of B sequences. */
function goldenInputs(ops: Ops, golden: Golden) {
  const [B, T, Hq, D] = golden.shape("input.q") as [number, number, number, number];
  const Hkv = golden.shape("input.k")[2]!;
  const ids = golden.i32("input.position_ids");
  const positions = ops.fromArray([B * T], ids);
  const table = ops.empty([Math.max(...ids) + 1, D]);
  ops.ropeTable(table, ops.fromArray([D / 2], golden.f32("inv_freq")));
  const load = (name: string, H: number) => ops.fromArray([B * T, H, D], golden.f32(name));
  const [q, k, v] = [load("input.q", Hq), load("input.k", Hkv), load("input.v", Hkv)];
  ops.rope(q, q, positions, table);
  ops.rope(k, k, positions, table);
  const sizes = { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D };
  const seqStart = ops.fromArray(
    [B + 1],
    Int32Array.from({ length: B + 1 }, (_, i) => i * T),
  );
  return { B, T, sizes, q, k, v, dO: load("upstream.o", Hq), positions, table, seqStart };
}

describe("golden files, training form", () => {
  eachGolden(["softmax_attention_op"], (ops, golden) => {
    const { sizes, q, k, v, dO, positions, table, seqStart } = goldenInputs(ops, golden);
    const N = q.shape[0]!;
    const [o, lse] = [guarded(ops, q.shape), guarded(ops, [N, sizes.numQueryHeads])];
    const [dq, dk, dv] = [guarded(ops, q.shape), guarded(ops, k.shape), guarded(ops, v.shape)];
    ops.attentionTrain(o, lse, q, k, v, seqStart, sizes);
    ops.attentionBackward({ dq, dk, dv }, dO, { o, lse, q, k, v }, seqStart, sizes);
    ops.rope(dq, dq, positions, table, -1);
    ops.rope(dk, dk, positions, table, -1);
    lse.check();
    expectGolden(ops, o, golden, "output.o", 3e-5);
    expectGolden(ops, dq, golden, "grad.input.q", 1e-4);
    expectGolden(ops, dk, golden, "grad.input.k", 1e-4);
    expectGolden(ops, dv, golden, "grad.input.v", 1e-4);
  });
});

describe("golden files, paged", () => {
  eachGolden(["softmax_attention_op"], (ops, golden) => {
    const { B, T, sizes, q, k, v } = goldenInputs(ops, golden);
    const pieces = Array.from({ length: B }, (_, s) => ({ seq: s, start: 0, count: T, from: s * T }));
    for (const pageSize of [16, 32]) {
      const cache = makeCache(ops, sizes, { numSeqs: B, length: T, pageSize, dtype: "f32" });
      const o = attendPieces(ops, sizes, cache, { q, k, v }, pieces);
      expectClose(o, golden.f32("output.o"), 3e-5, `${golden.name}, pages of ${pageSize}`);
    }
  });
});

interface Case {
  readonly sizes: AttentionSizes;
  readonly lengths: readonly number[];
}

const sizesOf = (Hq: number, Hkv: number, D: number) => ({ numQueryHeads: Hq, numKvHeads: Hkv, headDim: D });
const cases: Case[] = [
  { sizes: sizesOf(1, 1, 8), lengths: [1, 65] },
  { sizes: sizesOf(3, 3, 16), lengths: [63, 2, 130] },
  { sizes: sizesOf(4, 2, 24), lengths: [64] },
  { sizes: sizesOf(6, 2, 64), lengths: [100, 1, 33] },
  { sizes: sizesOf(7, 1, 80), lengths: [70] },
  { sizes: sizesOf(8, 1, 128), lengths: [128, 5] },
  { sizes: sizesOf(2, 1, 256), lengths: [66] },
  { sizes: sizesOf(2, 2, 40), lengths: [600] },
];
const nameOf = ({ sizes, lengths }: Case) =>
  `${sizes.numQueryHeads}/${sizes.numKvHeads} heads of ${sizes.headDim}, ${lengths.join(" + ")} rows`;

function inputsOf(ops: Ops, { sizes, lengths }: Case) {
  const { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D } = sizes;
  const N = lengths.reduce((a, b) => a + b, 0);
  const starts = [0];
  for (const length of lengths) starts.push(starts.at(-1)! + length);
  return {
    N,
    starts,
    q: random(ops, [N, Hq, D], 1, 2),
    k: random(ops, [N, Hkv, D], 2, 2),
    v: random(ops, [N, Hkv, D], 3),
    dO: random(ops, [N, Hq, D], 4),
    seqStart: ops.fromArray([starts.length], Int32Array.from(starts)),
  };
}

function train(ops: Ops, one: Case) {
  const { q, k, v, dO, seqStart, N } = inputsOf(ops, one);
  const out = outputs(ops, { o: q.shape, lse: [N, one.sizes.numQueryHeads] });
  ops.attentionTrain(out.o, out.lse, q, k, v, seqStart, one.sizes);
  const grads = outputs(ops, { dq: q.shape, dk: k.shape, dv: v.shape });
  ops.attentionBackward(grads, dO, { o: out.o, lse: out.lse, q, k, v }, seqStart, one.sizes);
  return { ...out.read(), ...grads.read() } as Record<string, Float32Array>;
}

/** Whole sequences through the cache, each in one call's batch. */
function paged(ops: Ops, one: Case, pageSize: number, dtype: "f32" | "bf16", cut?: (length: number) => number[]) {
  const inputs = inputsOf(ops, one);
  const numSeqs = one.lengths.length;
  const cache = makeCache(ops, one.sizes, { numSeqs, length: Math.max(...one.lengths), pageSize, dtype });
  const cuts = one.lengths.map((length) => (cut ? cut(length) : [length]));
  const rowFloats = one.sizes.numQueryHeads * one.sizes.headDim;
  const out = new Float32Array(inputs.N * rowFloats);
  const done = one.lengths.map(() => 0);
  for (let step = 0; cuts.some((c) => step < c.length); step++) {
    const pieces: Piece[] = [];
    for (let seq = 0; seq < numSeqs; seq++) {
      const count = cuts[seq]![step];
      if (count === undefined) continue;
      pieces.push({ seq, start: done[seq]!, count, from: inputs.starts[seq]! + done[seq]! });
      done[seq] = done[seq]! + count;
    }
    const o = attendPieces(ops, one.sizes, cache, inputs, pieces);
    let at = 0;
    for (const piece of pieces) {
      out.set(o.subarray(at * rowFloats, (at + piece.count) * rowFloats), piece.from * rowFloats);
      at += piece.count;
    }
  }
  return out;
}

const tokenByToken = (length: number) => new Array<number>(length).fill(1);
const inChunks = (size: number) => (length: number) => {
  const chunks: number[] = [];
  for (let at = 0; at < length; at += size) chunks.push(Math.min(size, length - at));
  return chunks;
};

for (const isa of fastIsas) {
  describe(isa, () => {
    test.each(cases.map((one) => [nameOf(one), one] as const))("training form matches: %s", async (_, one) => {
      const [actual, expected] = [train(await opsOf(isa), one), train(await opsOf("reference"), one)];
      for (const name in expected) expectClose(actual[name]!, expected[name]!, 2e-5, name);
    });

    test.each(cases.map((one) => [nameOf(one), one] as const))("paged form matches: %s", async (_, one) => {
      for (const [pageSize, dtype] of [
        [32, "f32"],
        [32, "bf16"],
        [48, "f32"],
        [5, "bf16"],
        [128, "f32"],
      ] as const) {
        const actual = paged(await opsOf(isa), one, pageSize, dtype);
        const expected = paged(await opsOf("reference"), one, pageSize, dtype);
        expectClose(actual, expected, 2e-5, `pages of ${pageSize} ${dtype}`);
      }
    });

    test.each(cases.map((one) => [nameOf(one), one] as const))("one answer for every cut: %s", async (_, one) => {
      const ops = await opsOf(isa);
      for (const dtype of ["f32", "bf16"] as const) {
        const whole = paged(ops, one, 32, dtype);
        const same = (other: Float32Array, what: string) => expectSameBits(other, whole, `${dtype} ${what}`);
        same(paged(ops, one, 32, dtype, inChunks(7)), "chunks of 7");
        same(paged(ops, one, 32, dtype, inChunks(96)), "chunks of 96");
        same(paged(ops, one, 16, dtype), "pages of 16");
        same(paged(ops, one, 5, dtype, inChunks(50)), "pages of 5, chunks of 50");
        if (Math.max(...one.lengths) <= 130) same(paged(ops, one, 32, dtype, tokenByToken), "token by token");
        ops.setThreads(1);
        const alone = paged(ops, one, 32, dtype, inChunks(31));
        ops.setThreads(2);
        same(alone, "one thread, chunks of 31");
        if (dtype === "f32") same(train(ops, one).o!, "training form");
      }
    });

    test.each(cases.map((one) => [nameOf(one), one] as const))("1 and 2 threads train alike: %s", async (_, one) => {
      const ops = await opsOf(isa);
      const two = train(ops, one);
      ops.setThreads(1);
      const alone = train(ops, one);
      ops.setThreads(2);
      for (const name in two) expectSameBits(alone[name]!, two[name]!, name);
    });
  });

  test(`decode over several spans has the bits of prefill, with any threads, on ${isa}`, async () => {
    const ops = await opsOf(isa);
    const one = { sizes: sizesOf(4, 1, 32), lengths: [1600] };
    const lastRows = (cut: (length: number) => number[]) =>
      paged(ops, one, 32, "f32", cut).slice(-40 * one.sizes.numQueryHeads * one.sizes.headDim);
    const prefill = lastRows(inChunks(512));
    const decode = (length: number) => [length - 40, ...new Array<number>(40).fill(1)];
    expectSameBits(lastRows(decode), prefill, "two threads");
    ops.setThreads(1);
    const alone = lastRows(decode);
    ops.setThreads(3);
    const three = lastRows(decode);
    ops.setThreads(2);
    expectSameBits(alone, prefill, "one thread");
    expectSameBits(three, prefill, "three threads");
  });
}

test.each(isas)("attention ignores what other rows and later slots hold on %s", async (isa) => {
  // makeCache fills the pages with NaN, so any key or value beyond a row's position would show.
  const ops = await opsOf(isa);
  const o = paged(ops, { sizes: sizesOf(2, 1, 16), lengths: [3, 70] }, 32, "f32", inChunks(40));
  expect(o.every((x) => Number.isFinite(x))).toBe(true);
});

test.each(isas)("attention refuses bad sizes, tables and row counts on %s", async (isa) => {
  const ops = await opsOf(isa);
  const sizes = sizesOf(2, 1, 16);
  const cache = makeCache(ops, sizes, { numSeqs: 1, length: 32, pageSize: 16, dtype: "f32" });
  const ints = (...values: number[]) => ops.fromArray([values.length], Int32Array.from(values));
  const q = random(ops, [2, 2, 16], 1);
  const attend = (seqStart: Tensor, startPos: Tensor, pageTable = cache.pageTable, heads = sizes) =>
    ops.attention(q, q, { ...cache, tableRows: ints(0), pageTable }, seqStart, startPos, heads);
  expect(() => attend(ints(0, 1), ints(0))).toThrow("seq_start runs from 0 to 1, expected 0 to 2");
  expect(() => attend(ints(0, 2), ints(31))).toThrow("sequence 0 needs 33 positions, its table has 32");
  expect(() => attend(ints(0, 2), ints(-1))).toThrow("at position -1");
  expect(() => attend(ints(0, 2), ints(16), ints(0, -1))).toThrow("page 1 of sequence 0 is -1");
  expect(() => attend(ints(0, 2), ints(0), cache.pageTable, sizesOf(8, 4, 4))).toThrow("D is 4");
  const kv = { ...cache, tableRows: ints(0) };
  const k = random(ops, [1, 1, 16], 2);
  expect(() => ops.kvWrite(kv, k, k, ints(-5), sizes)).toThrow("slot of row 0 is -5");
});
