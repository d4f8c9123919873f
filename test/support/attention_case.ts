// A ragged batch over a paged cache with shuffled pages, for tests of softmax attention: writes keys and values, attends.
import type { AttentionSizes, Ops } from "../../src/ops/ops.ts";
import { rows, type Tensor } from "../../src/tensor/tensor.ts";
import { guarded } from "./kernels.ts";

export interface Cache {
  readonly kCache: Tensor;
  readonly vCache: Tensor;
  readonly pageTable: Tensor;
  readonly table: Int32Array;
  readonly tableStride: number;
  readonly pageSize: number;
}

/** A cache for `numSeqs` sequences of `length` positions; pages are dealt out in a mixed order and start as NaN. */
export function makeCache(
  ops: Ops,
  sizes: AttentionSizes,
  layout: { numSeqs: number; length: number; pageSize: number; dtype: "f32" | "bf16" },
): Cache {
  const { numSeqs, length, pageSize, dtype } = layout;
  const tableStride = Math.ceil(length / pageSize);
  const numPages = numSeqs * tableStride;
  const table = new Int32Array(numPages);
  for (let i = 0; i < numPages; i++) table[i] = (i * stepCoprimeTo(numPages) + 3) % numPages;
  const shape = [numPages * pageSize, sizes.numKvHeads, sizes.headDim];
  return {
    kCache: guarded(ops, shape, dtype),
    vCache: guarded(ops, shape, dtype),
    pageTable: ops.fromArray([numPages], table),
    table,
    tableStride,
    pageSize,
  };
}

function stepCoprimeTo(n: number): number {
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
  for (let step = Math.floor(n / 2) + 1; ; step++) if (gcd(step, n) === 1) return step;
}

/** New rows of one sequence: positions start..start+count-1, whose q, k, v are rows `from`.. of the given tensors. */
export interface Piece {
  readonly seq: number;
  readonly start: number;
  readonly count: number;
  readonly from: number;
}

/** Writes the pieces' keys and values, attends, and returns o [rows of all pieces, Hq, D]. */
export function attendPieces(
  ops: Ops,
  sizes: AttentionSizes,
  cache: Cache,
  qkv: { q: Tensor; k: Tensor; v: Tensor },
  pieces: readonly Piece[],
): Float32Array {
  const N = pieces.reduce((sum, piece) => sum + piece.count, 0);
  const { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D } = sizes;
  const [q, k, v] = [ops.empty([N, Hq, D]), ops.empty([N, Hkv, D]), ops.empty([N, Hkv, D])];
  const slots = new Int32Array(N);
  const seqStart = new Int32Array(pieces.length + 1);
  pieces.forEach((piece, i) => {
    const at = seqStart[i]!;
    seqStart[i + 1] = at + piece.count;
    if (piece.count === 0) return;
    ops.copy(rows(q, at, piece.count), rows(qkv.q, piece.from, piece.count));
    ops.copy(rows(k, at, piece.count), rows(qkv.k, piece.from, piece.count));
    ops.copy(rows(v, at, piece.count), rows(qkv.v, piece.from, piece.count));
    for (let j = 0; j < piece.count; j++) {
      const position = piece.start + j;
      const page = cache.table[piece.seq * cache.tableStride + Math.floor(position / cache.pageSize)]!;
      slots[at + j] = page * cache.pageSize + (position % cache.pageSize);
    }
  });
  const S = pieces.length;
  const starts = Int32Array.from(pieces, (piece) => piece.start);
  const tableRows = ops.fromArray(
    [S],
    Int32Array.from(pieces, (piece) => piece.seq),
  );
  const kv = { ...cache, tableRows };
  const o = guarded(ops, [N, Hq, D]);
  ops.kvWrite(kv, k, v, ops.fromArray([N], slots), sizes);
  ops.attention(o, q, kv, ops.fromArray([S + 1], seqStart), ops.fromArray([S], starts), sizes);
  o.check();
  (cache.kCache as typeof o).check();
  (cache.vCache as typeof o).check();
  const out = ops.toFloat32(o);
  for (const t of [q, k, v]) ops.free(t);
  return out;
}
