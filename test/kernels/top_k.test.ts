// topK() against sorting: ids exactly, ties by the lowest id, log-probabilities to rounding, rows that want none.
import { describe, expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { ROW_BROKEN, ROW_EMPTY } from "../../src/ops/sampling_ops.ts";
import { guarded, isas, opsOf, randomFloats } from "../support/kernels.ts";
import { expectSameBits } from "../support/op_case.ts";

function topK(ops: Ops, logits: Float32Array, V: number, counts: readonly number[], K: number) {
  const N = counts.length;
  const [ids, logprob] = [guarded(ops, [N, K], "i32"), guarded(ops, [N, K])];
  const input = ops.fromArray([N, V], logits);
  ops.topK(ids, logprob, input, ops.fromArray([N], Int32Array.from(counts)));
  ops.free(input);
  ids.check();
  logprob.check();
  return { ids: ops.toInt32(ids), logprob: ops.toFloat32(logprob) };
}

function plain(row: Float32Array, k: number): { id: number; logprob: number }[] {
  const max = row.reduce((a, b) => Math.max(a, b));
  const log = max + Math.log(row.reduce((sum, x) => sum + Math.exp(x - max), 0));
  const order = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]! || a - b);
  return order.slice(0, k).map((id) => ({ id, logprob: row[id]! - log }));
}

describe.each(isas)("%s", (isa) => {
  test.each([1, 7, 33, 1000, 8193, 20011])("the most likely of %d ids, many of them equal", async (V) => {
    const ops = await opsOf(isa);
    const K = Math.min(V, 20);
    const counts = [K, 0, 1, Math.ceil(K / 2), K];
    const logits = randomFloats(counts.length * V, V).map((x) => Math.round(x * 40) / 4);
    logits.fill(3, 4 * V); // a row of equal logits
    const { ids, logprob } = topK(ops, logits, V, counts, K);
    counts.forEach((count, i) => {
      const expected = plain(logits.subarray(i * V, (i + 1) * V), count);
      expect(Array.from(ids.subarray(i * K, i * K + count))).toEqual(expected.map(({ id }) => id));
      expected.forEach(({ logprob: value }, j) => {
        expect(Math.abs(logprob[i * K + j]! - value)).toBeLessThan(1e-5);
      });
      // What was not asked for is not written.
      expect(ids.subarray(i * K + count, (i + 1) * K).every((id) => id === -1)).toBe(true);
      expect(logprob.subarray(i * K + count, (i + 1) * K).every(Number.isNaN)).toBe(true);
    });
  });

  test("the best of a falling and of a rising row", async () => {
    const ops = await opsOf(isa);
    const V = 300;
    const logits = Float32Array.from({ length: 2 * V }, (_, i) => (i < V ? -i : i));
    const { ids } = topK(ops, logits, V, [5, 5], 5);
    expect(Array.from(ids)).toEqual([0, 1, 2, 3, 4, 299, 298, 297, 296, 295]);
  });

  test("-infinity ranks last, and a row without an answer says why", async () => {
    const ops = await opsOf(isa);
    const [V, none] = [40, Number.NEGATIVE_INFINITY];
    const logits = new Float32Array(4 * V).fill(none);
    logits[7] = 1;
    logits[2 * V + 39] = Number.NaN;
    logits[3 * V] = Number.POSITIVE_INFINITY;
    const { ids, logprob } = topK(ops, logits, V, [2, 2, 2, 2], 2);
    expect(Array.from(ids)).toEqual([7, 0, ROW_EMPTY, ROW_EMPTY, ROW_BROKEN, ROW_BROKEN, ROW_BROKEN, ROW_BROKEN]);
    expect(Array.from(logprob)).toEqual([0, none, ...Array(6).fill(Number.NaN)]);
  });

  test("a row's result depends on neither its neighbours nor threads, and equals logProb()", async () => {
    const ops = await opsOf(isa);
    const [N, V, K] = [9, 20000, 20];
    const logits = randomFloats(N * V, 3).map((x) => x * 12);
    const counts = Array(N).fill(K);
    const together = topK(ops, logits, V, counts, K);
    if (isa !== "reference") {
      ops.setThreads(1);
      expectSameBits(topK(ops, logits, V, counts, K).logprob, together.logprob, "one thread");
      ops.setThreads(2);
    }
    for (let i = 0; i < N; i++) {
      const row = logits.slice(i * V, (i + 1) * V);
      const alone = topK(ops, row, V, [K], K);
      expect(alone.ids).toEqual(together.ids.slice(i * K, (i + 1) * K));
      const logprob = guarded(ops, [1]);
      const best = ops.fromArray([1], alone.ids.slice(3, 4));
      ops.logProb(logprob, null, ops.fromArray([1, V], row), best);
      expectSameBits(ops.toFloat32(logprob), together.logprob.slice(i * K + 3, i * K + 4), `row ${i}`);
    }
  });

  test("sizes out of range are refused", async () => {
    const ops = await opsOf(isa);
    const logits = new Float32Array(8);
    expect(() => topK(ops, logits, 4, [1, 3], 2)).toThrow("count of row 1 is 3, expected 0 to 2");
    expect(() => topK(ops, logits, 4, [1, -1], 2)).toThrow("count of row 1 is -1, expected 0 to 2");
    expect(() => topK(ops, logits, 4, [1, 1], 5)).toThrow("V is 4 and K is 5, expected 0 < K <= V");
  });
});
