// Self-test cases of a layer's softmax attention, from projected rows to o: many rows in one call, and the last ones in
// calls of one row each, which have to give the same bits.
import type { AttentionSizes } from "../ops/ops.ts";
import { rows, type Tensor } from "../tensor/tensor.ts";
import { LIMITS, range, type SelftestCase, startsOf } from "./case.ts";
import type { Workbench } from "./workbench.ts";

const PAGE = 16;
/** Tensor cores take queries and weights in bfloat16: 8 bits of each. */
const BF16_PRODUCTS = 2e-2;

interface StepCase {
  readonly sizes: AttentionSizes;
  /** Rows of each sequence. */
  readonly lengths: readonly number[];
  /** Last rows of each sequence that come one by one. */
  readonly single: number;
  readonly dtype: "f32" | "bf16";
}

/** A cache for all sequences; pages lie backwards. */
function pagesOf(b: Workbench, { sizes, lengths, dtype }: StepCase) {
  const stride = Math.ceil(Math.max(...lengths) / PAGE);
  const count = stride * lengths.length;
  const cache = () => b.zeros([count * PAGE, sizes.numKvHeads, sizes.headDim], dtype);
  return {
    kCache: cache(),
    vCache: cache(),
    tableRows: b.ints(range(lengths.length)),
    pageTable: b.ints(range(count).map((page) => count - 1 - page)),
    tableStride: stride,
    pageSize: PAGE,
  };
}

function step(b: Workbench, one: StepCase): void {
  const { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D } = one.sizes;
  const starts = startsOf(one.lengths);
  const [N, longest] = [starts.at(-1)!, Math.max(...one.lengths)];
  const ropeTable = b.zeros([longest, D]);
  b.ops.ropeTable(ropeTable, b.random("frequencies", [D / 2], 0.5, 0.5));
  const weights = { norms: { q: b.random("q_norm", [D], 2), k: b.random("k_norm", [D], 2), eps: 1e-6 }, ropeTable };
  const projected = () => ({
    q: b.random("q", [N, Hq * D]),
    k: b.random("k", [N, Hkv * D]),
    v: b.random("v", [N, Hkv * D]),
  });
  const o = b.output("o", [N, Hq * D]);
  const none = b.ints(one.lengths.map(() => 0));
  const batch = { seqStart: b.ints(starts), startPos: none, longest };
  b.ops.attentionStep(o, projected(), pagesOf(b, one), batch, weights, one.sizes);

  const kv = pagesOf(b, one);
  const inputs = projected();
  const again = b.zeros([N, Hq * D]);
  const call = (from: (s: number) => number, count: (s: number) => number) => {
    const part = startsOf(one.lengths.map((_, s) => count(s)));
    const pick = (t: Tensor) => {
      const to = b.zeros([part.at(-1)!, t.shape[1]!]);
      one.lengths.forEach((_, s) => {
        b.ops.copy(rows(to, part[s]!, count(s)), rows(t, starts[s]! + from(s), count(s)));
      });
      return to;
    };
    const [q, k, v, out] = [pick(inputs.q), pick(inputs.k), pick(inputs.v), b.zeros([part.at(-1)!, Hq * D])];
    const places = { seqStart: b.ints(part), startPos: b.ints(one.lengths.map((_, s) => from(s))), longest };
    b.ops.attentionStep(out, { q, k, v }, kv, places, weights, one.sizes);
    one.lengths.forEach((_, s) => {
      b.ops.copy(rows(again, starts[s]! + from(s), count(s)), rows(out, part[s]!, count(s)));
    });
  };
  call(
    () => 0,
    (s) => one.lengths[s]! - one.single,
  );
  for (let i = one.single; i > 0; i--) {
    call(
      (s) => one.lengths[s]! - i,
      () => 1,
    );
  }
  const [whole, single] = [b.ops.toFloat32(o), b.ops.toFloat32(again)];
  const other = whole.findIndex((value, i) => value !== single[i]);
  if (other >= 0)
    throw new Error(`Row ${Math.floor(other / (Hq * D))} is not the same when the last rows come one by one`);
}

const heads = (numQueryHeads: number, numKvHeads: number, headDim: number) => ({ numQueryHeads, numKvHeads, headDim });

/** Cases of graft_attention_step. */
export const attentionStepCases: readonly SelftestCase[] = [
  {
    name: "attention_step, 3 heads of 128 over one, bf16 pages",
    limit: BF16_PRODUCTS,
    run: (b) => step(b, { sizes: heads(3, 1, 128), lengths: [260, 30], single: 6, dtype: "bf16" }),
  },
  {
    name: "attention_step, 14 heads of 64 over 2, bf16 pages",
    limit: BF16_PRODUCTS,
    run: (b) => step(b, { sizes: heads(14, 2, 64), lengths: [70, 9], single: 8, dtype: "bf16" }),
  },
  {
    name: "attention_step, 4 heads of 40 over 2, f32 pages",
    limit: LIMITS.forward,
    run: (b) => step(b, { sizes: heads(4, 2, 40), lengths: [33, 20], single: 2, dtype: "f32" }),
  },
];
