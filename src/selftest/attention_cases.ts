// Self-test cases of softmax attention: paged serving form in both cache types, and the training form.
import { LIMITS, range, type SelftestCase, startsOf } from "./case.ts";
import type { Workbench } from "./workbench.ts";

const sizes = { numQueryHeads: 6, numKvHeads: 2, headDim: 24 };
const { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D } = sizes;

/** Sequences of 70, 1 and 33 tokens; the last 20, 1 and 33 are new rows. Pages lie backwards in the cache. */
function paged(b: Workbench, dtype: "f32" | "bf16"): void {
  const [lengths, fresh, pageSize, stride] = [[70, 1, 33], [20, 1, 33], 16, 5];
  const pageOf = (s: number, position: number) =>
    stride * lengths.length - 1 - (s * stride + Math.floor(position / pageSize));
  const slots = lengths.flatMap((n, s) => range(n).map((i) => pageOf(s, i) * pageSize + (i % pageSize)));
  const total = slots.length;
  const cache = () => b.zeros([stride * lengths.length * pageSize, Hkv, D], dtype);
  const kv = {
    kCache: cache(),
    vCache: cache(),
    tableRows: b.ints(range(lengths.length)),
    pageTable: b.ints(lengths.flatMap((_, s) => range(stride).map((page) => pageOf(s, page * pageSize)))),
    tableStride: stride,
    pageSize,
  };
  b.ops.kvWrite(kv, b.random("k", [total, Hkv, D], 2), b.random("v", [total, Hkv, D]), b.ints(slots), sizes);
  const starts = startsOf(fresh);
  const o = b.output("o", [starts.at(-1)!, Hq, D]);
  const startPos = b.ints(lengths.map((n, s) => n - fresh[s]!));
  b.ops.attention(o, b.random("q", o.shape, 2), kv, b.ints(starts), startPos, sizes);
}

function train(b: Workbench): void {
  const seqStart = b.ints(startsOf([33, 1, 70]));
  const N = 104;
  const [q, k, v] = [b.random("q", [N, Hq, D], 2), b.random("k", [N, Hkv, D], 2), b.random("v", [N, Hkv, D])];
  const [o, lse] = [b.output("o", q.shape), b.output("lse", [N, Hq])];
  b.ops.attentionTrain(o, lse, q, k, v, seqStart, sizes);
  const grads = { dq: b.output("dq", q.shape), dk: b.output("dk", k.shape), dv: b.output("dv", v.shape) };
  const dO = b.random("dO", q.shape);
  b.ops.attentionBackward(grads, dO, { o, lse, q, k, v }, seqStart, sizes);
}

/** Cases of softmax attention over pages. */
export const attentionCases: readonly SelftestCase[] = [
  { name: "kv_write, attention over f32 pages", limit: LIMITS.forward, run: (b) => paged(b, "f32") },
  { name: "kv_write, attention over bf16 pages", limit: LIMITS.forward, run: (b) => paged(b, "bf16") },
  { name: "attention_train and gradients, 33 + 1 + 70 rows", limit: LIMITS.gradient, training: true, run: train },
];
