// Softmax attention on the CUDA kernels, in the emulator, where keys lie in many spans and stretches: rows one by one,
// many together, mixed with other sequences, against the reference and against one another bit by bit.
import { expect, test } from "bun:test";
import type { AttentionSizes, Ops } from "../../src/ops/ops.ts";
import { rows } from "../../src/tensor/tensor.ts";
import { attendPieces, makeCache, type Piece } from "../support/attention_case.ts";
import { opsOf } from "../support/kernels.ts";
import { expectClose, expectSameBits, random } from "../support/op_case.ts";

interface Case {
  readonly heads: readonly [number, number, number];
  /** Positions that are written before anything attends, then those that attend. */
  readonly contexts: readonly number[];
  readonly count: number;
  readonly pageSize: number;
}

const cases: Case[] = [
  { heads: [3, 1, 64], contexts: [255, 0, 1023], count: 3, pageSize: 16 },
  { heads: [7, 1, 128], contexts: [760], count: 2, pageSize: 48 },
];

/** Beyond a stretch of 4096 positions: rows whose stretches are parted among blocks, and enough rows to do without. */
const longCases: Case[] = [
  { heads: [22, 1, 32], contexts: [8190], count: 3, pageSize: 32 },
  { heads: [108, 12, 32], contexts: [4095], count: 2, pageSize: 64 },
];

/** A cache whose sequences hold `contexts` positions of random keys and values; the rows that attend come after. */
function prepare(ops: Ops, { heads, contexts, count, pageSize }: Case) {
  const [Hq, Hkv, D] = heads;
  const sizes: AttentionSizes = { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D };
  const length = Math.max(...contexts) + count;
  const cache = makeCache(ops, sizes, { numSeqs: contexts.length, length, pageSize, dtype: "bf16" });
  const tableRows = ops.fromArray([1], Int32Array.of(0));
  contexts.forEach((context, seq) => {
    if (context === 0) return;
    const slots = Int32Array.from({ length: context }, (_, p) => {
      return cache.table[seq * cache.tableStride + Math.floor(p / pageSize)]! * pageSize + (p % pageSize);
    });
    const [k, v] = [random(ops, [context, Hkv, D], 10 + seq, 2), random(ops, [context, Hkv, D], 20 + seq)];
    ops.kvWrite({ ...cache, tableRows }, k, v, ops.fromArray([context], slots), sizes);
    for (const t of [k, v]) ops.free(t);
  });
  const N = contexts.length * count;
  const qkv = { q: random(ops, [N, Hq, D], 1, 2), k: random(ops, [N, Hkv, D], 2, 2), v: random(ops, [N, Hkv, D], 3) };
  return { sizes, cache, qkv };
}

/** o of all rows; `plan` lists the calls, each a list of [sequence, first of its new rows, how many]. */
function attend(ops: Ops, one: Case, plan: [number, number, number][][]): Float32Array {
  const { sizes, cache, qkv } = prepare(ops, one);
  const floats = sizes.numQueryHeads * sizes.headDim;
  const out = new Float32Array(rows(qkv.q, 0, one.contexts.length * one.count).shape[0]! * floats).fill(Number.NaN);
  for (const call of plan) {
    const pieces: Piece[] = call.map(([seq, from, count]) => {
      return { seq, start: one.contexts[seq]! + from, count, from: seq * one.count + from };
    });
    const o = attendPieces(ops, sizes, cache, qkv, pieces);
    let at = 0;
    for (const piece of pieces) {
      out.set(o.subarray(at * floats, (at + piece.count) * floats), piece.from * floats);
      at += piece.count;
    }
  }
  return out;
}

const all = (one: Case) => [one.contexts.map((_, seq): [number, number, number] => [seq, 0, one.count])];
const oneByOne = (one: Case) => {
  return Array.from({ length: one.count }, (_, i) => {
    return one.contexts.map((_, seq): [number, number, number] => [seq, i, 1]);
  });
};
const alone = (one: Case) => {
  return one.contexts.flatMap((_, seq) => {
    return Array.from({ length: one.count }, (_, i): [number, number, number][] => [[seq, i, 1]]);
  });
};

test.each(cases.map((one) => [`${one.heads} behind ${one.contexts}`, one] as const))(
  "%s: decoded and prefilled rows match the reference and have the same bits",
  async (_, one) => {
    const ops = await opsOf("simt");
    const decoded = attend(ops, one, oneByOne(one));
    expectClose(decoded, attend(await opsOf("reference"), one, all(one)), 1e-2, "against the reference");
    expectSameBits(attend(ops, one, all(one)), decoded, "together");
    expectSameBits(attend(ops, one, alone(one)), decoded, "each sequence alone");
    expectSameBits(attend(ops, one, oneByOne(one)), decoded, "once more");
  },
);

test.each(longCases.map((one) => [`${one.heads} behind ${one.contexts}`, one] as const))(
  "%s: long rows match the reference and have the same bits",
  async (_, one) => {
    const ops = await opsOf("simt");
    const decoded = attend(ops, one, oneByOne(one));
    expectClose(decoded, attend(await opsOf("reference"), one, all(one)), 1e-2, "against the reference");
    expectSameBits(attend(ops, one, all(one)), decoded, "together");
  },
);

test("a long chunk beside sequences that decode", async () => {
  const ops = await opsOf("simt");
  const one: Case = { heads: [6, 2, 32], contexts: [600, 0, 250], count: 30, pageSize: 32 };
  const decode = (seq: number, i: number): [number, number, number] => [seq, i, 1];
  const mixed: [number, number, number][][] = [[decode(0, 0), [1, 0, 30], decode(2, 0)]];
  for (let i = 1; i < 30; i++) mixed.push(i % 9 === 0 ? [decode(2, i), decode(0, i)] : [decode(0, i), decode(2, i)]);
  expectSameBits(attend(ops, one, mixed), attend(ops, one, all(one)), "mixed calls");
});

test("a row beyond its table and a page that is none are complained of", async () => {
  const ops = await opsOf("simt");
  const one: Case = { heads: [2, 1, 32], contexts: [30], count: 3, pageSize: 16 };
  const { sizes, cache, qkv } = prepare(ops, one);
  const ints = (...values: number[]) => ops.fromArray([values.length], Int32Array.from(values));
  const [o, q] = [ops.empty([1, 2, 32]), rows(qkv.q, 0, 1)];
  const kv = { ...cache, tableRows: ints(0) };
  const at = (position: number, pageTable = cache.pageTable) => {
    ops.attention(o, q, { ...kv, pageTable }, ints(0, 1), ints(position), sizes);
  };
  at(5);
  expect(() => at(48)).toThrow("row 0 names 48, expected 0 to 47");
  expect(() => at(-1)).toThrow("row 0 names -1, expected 0 to 47");
  expect(() => at(20, ints(0, -7, 1))).toThrow("row 1 names -7");
  at(5);
});
