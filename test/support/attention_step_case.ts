// graft_attention_step over a paged cache with shuffled pages, for tests: any plan of calls, each a list of pieces.
import type { AttentionSizes, Ops } from "../../src/ops/ops.ts";
import { rows, type Tensor } from "../../src/tensor/tensor.ts";
import { type Cache, makeCache } from "./attention_case.ts";
import { guarded } from "./kernels.ts";
import { random } from "./op_case.ts";

export interface StepCase {
  /** Query heads, kv heads, head size. */
  readonly heads: readonly [number, number, number];
  /** New rows of each sequence. */
  readonly lengths: readonly number[];
  readonly pageSize: number;
  readonly dtype: "f32" | "bf16";
  readonly norms: boolean;
  readonly rope: boolean;
}

/** [sequence, first row, how many] */
export type StepPiece = readonly [number, number, number];

/** All rows at once. */
export const wholeStep = ({ lengths }: StepCase): StepPiece[][] => [lengths.map((length, s) => [s, 0, length])];

/** Every sequence in pieces of at most `size`, those of all sequences in one call. */
export function stepsOf({ lengths }: StepCase, size: number): StepPiece[][] {
  const plan: StepPiece[][] = [];
  for (let at = 0; at < Math.max(...lengths); at += size) {
    plan.push(lengths.flatMap((length, s) => (at < length ? [[s, at, Math.min(size, length - at)] as const] : [])));
  }
  return plan;
}

/** One layer's inputs, weights and cache. */
export function stepLayer(ops: Ops, one: StepCase) {
  const [Hq, Hkv, D] = one.heads;
  const sizes: AttentionSizes = { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D };
  const [N, longest] = [one.lengths.reduce((a, b) => a + b, 0), Math.max(...one.lengths)];
  const layout = { numSeqs: one.lengths.length, length: longest, pageSize: one.pageSize, dtype: one.dtype };
  const cache: Cache = makeCache(ops, sizes, layout);
  const ropeTable = one.rope ? ops.empty([longest, D]) : null;
  if (ropeTable) {
    const inverse = Float32Array.from({ length: D / 2 }, (_, i) => 10000 ** ((-2 * i) / D));
    ops.ropeTable(ropeTable, ops.fromArray([D / 2], inverse));
  }
  return {
    sizes,
    cache,
    longest,
    q: random(ops, [N, Hq * D], 1, 2),
    k: random(ops, [N, Hkv * D], 2, 2),
    v: random(ops, [N, Hkv * D], 3),
    weights: {
      norms: one.norms ? { q: random(ops, [D], 4), k: random(ops, [D], 5), eps: 1e-6 } : null,
      ropeTable,
    },
  };
}

/** Tables of one call. */
export function stepBatch(ops: Ops, cache: Cache, pieces: readonly StepPiece[], longest: number) {
  const starts = [0];
  for (const [, , count] of pieces) starts.push(starts.at(-1)! + count);
  const ints = (values: readonly number[]) => ops.fromArray([values.length], Int32Array.from(values));
  return {
    kv: { ...cache, tableRows: ints(pieces.map(([s]) => s)) },
    batch: { seqStart: ints(starts), startPos: ints(pieces.map(([, from]) => from)), longest },
    N: starts.at(-1)!,
  };
}

/** o of all rows in the order of the sequences, by the calls of `plan`. */
export function attendSteps(ops: Ops, one: StepCase, plan: readonly (readonly StepPiece[])[]): Float32Array {
  const layer = stepLayer(ops, one);
  const [Hq, Hkv, D] = one.heads;
  const first = one.lengths.map((_, s) => one.lengths.slice(0, s).reduce((a, b) => a + b, 0));
  const out = new Float32Array(layer.q.shape[0]! * Hq * D).fill(Number.NaN);
  for (const pieces of plan) {
    const longest = Math.max(...pieces.map(([, from, count]) => from + count));
    const { kv, batch, N } = stepBatch(ops, layer.cache, pieces, longest);
    const part = { q: ops.empty([N, Hq * D]), k: ops.empty([N, Hkv * D]), v: ops.empty([N, Hkv * D]) };
    let at = 0;
    for (const [s, from, count] of pieces) {
      for (const name of ["q", "k", "v"] as const) {
        if (count > 0) ops.copy(rows(part[name], at, count), rows(layer[name], first[s]! + from, count));
      }
      at += count;
    }
    const o = guarded(ops, [N, Hq * D]);
    ops.attentionStep(o, part, kv, batch, layer.weights, layer.sizes);
    o.check();
    for (const t of [layer.cache.kCache, layer.cache.vCache]) (t as typeof o).check();
    const got = ops.toFloat32(o);
    at = 0;
    for (const [s, from, count] of pieces) {
      out.set(got.subarray(at * Hq * D, (at + count) * Hq * D), (first[s]! + from) * Hq * D);
      at += count;
    }
    for (const t of Object.values(part) as Tensor[]) ops.free(t);
  }
  return out;
}
