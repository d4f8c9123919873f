// The products of training: the reference at awkward sizes, accumulation, and one answer for any number of threads.
import { describe, expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { rows } from "../../src/tensor/tensor.ts";
import { isas, opsOf } from "../support/kernels.ts";
import { expectClose, expectSameBits, fastIsas, outputs, random } from "../support/op_case.ts";

const sizes = [
  [1, 1, 1],
  [7, 8, 17],
  [33, 17, 64],
  [63, 100, 33],
  [100, 64, 352],
  [129, 352, 100],
  [600, 130, 300],
] as const;
const names = ["nt", "ntAdded", "nn", "nnAdded", "tn", "tnAdded", "sums", "sumsAdded"] as const;

/** Every product of one size, overwriting and accumulating. */
function everything(ops: Ops, N: number, M: number, K: number) {
  const [x, dy, w] = [random(ops, [N, K], 1), random(ops, [N, M], 2), random(ops, [M, K], 3)];
  const [bias, y0] = [random(ops, [M], 4), random(ops, [N, M], 5)];
  const y = outputs(ops, {
    nt: [N, M],
    ntAdded: [N, M],
    nn: [N, K],
    nnAdded: [N, K],
    tn: [M, K],
    tnAdded: [M, K],
    sums: [M],
    sumsAdded: [M],
  });
  ops.copy(y.ntAdded, y0);
  ops.copy(y.nnAdded, x);
  ops.copy(y.tnAdded, w);
  ops.copy(y.sumsAdded, bias);
  ops.matmulNt(y.nt, x, w, bias);
  ops.matmulNt(y.ntAdded, x, w, null, true);
  ops.matmulNn(y.nn, dy, w);
  ops.matmulNn(y.nnAdded, dy, w, true);
  ops.matmulTn(y.tn, dy, x);
  ops.matmulTn(y.tnAdded, dy, x, true);
  ops.sumRows(y.sums, dy);
  ops.sumRows(y.sumsAdded, dy, true);
  return y.read();
}

for (const isa of fastIsas) {
  describe(isa, () => {
    test.each(sizes.map(([N, M, K]) => [N, M, K] as [number, number, number]))(
      "products match the reference at N = %d, M = %d, K = %d",
      async (N, M, K) => {
        const actual = everything(await opsOf(isa), N, M, K);
        const expected = everything(await opsOf("reference"), N, M, K);
        for (const name of names) expectClose(actual[name], expected[name], 1e-5, name);
      },
    );

    test("products give the same bits with 1, 2 and 5 threads", async () => {
      const ops = await opsOf(isa);
      const two = everything(ops, 600, 130, 300);
      for (const threads of [1, 5]) {
        ops.setThreads(threads);
        const other = everything(ops, 600, 130, 300);
        for (const name of names) expectSameBits(other[name], two[name], `${name} with ${threads} threads`);
      }
      ops.setThreads(2);
    });

    test("matmulNt() of a row does not depend on the rows beside it and equals linear()", async () => {
      const ops = await opsOf(isa);
      const [N, M, K] = [50, 100, 333];
      const [x, w, bias] = [random(ops, [N, K], 1), random(ops, [M, K], 2), random(ops, [M], 3)];
      const y = outputs(ops, { all: [N, M], alone: [N, M], serving: [N, M] });
      ops.matmulNt(y.all, x, w, bias);
      for (let i = 0; i < N; i++) ops.matmulNt(rows(y.alone, i, 1), rows(x, i, 1), w, bias);
      const packed = ops.linearPack(w);
      ops.linear(y.serving, x, packed, bias);
      ops.freePacked(packed);
      const { all, alone, serving } = y.read();
      expectSameBits(alone, all, "row by row");
      expectSameBits(serving, all, "serving form");
    });

    test("products cut a deep sum into slabs without changing it", async () => {
      const ops = await opsOf(isa);
      const [N, M, K] = [5, 1500, 1300]; // B[depth 1300, 1504] is more than one slab
      const [x, w] = [random(ops, [N, K], 1), random(ops, [M, K], 2)];
      const y = outputs(ops, { nt: [N, M], serving: [N, M] });
      ops.matmulNt(y.nt, x, w);
      const packed = ops.linearPack(w);
      ops.linear(y.serving, x, packed);
      ops.freePacked(packed);
      const { nt, serving } = y.read();
      expectSameBits(nt, serving, "slabs");
    });
  });
}

test.each(isas)("products refuse impossible arguments on %s", async (isa) => {
  const ops = await opsOf(isa);
  const t = random(ops, [4, 4], 1);
  const p = t.ptr as never;
  expect(ops.symbols.graft_matmul_nt(p, p, null, null, 1, 1, 1, 0)).toBe(1);
  expect(ops.lastError()).toContain("null");
  expect(ops.symbols.graft_matmul_nn(p, p, p, 1, 0, 1, 0)).toBe(1);
  expect(ops.lastError()).toContain("M = 0");
  expect(ops.symbols.graft_matmul_tn(p, p, p, -1, 1, 1, 0)).toBe(1);
  expect(ops.lastError()).toContain("N = -1");
  expect(ops.symbols.graft_sum_rows(p, p, 1, 0, 0)).toBe(1);
  expect(ops.lastError()).toContain("M = 0");
});
