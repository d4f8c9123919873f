// Embedding, gather, scatter and element-wise sums: the reference at awkward sizes, ids that repeat, ids out of range.
import { describe, expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { isas, opsOf } from "../support/kernels.ts";
import { expectClose, expectSameBits, fastIsas, outputs, random } from "../support/op_case.ts";

const sizes = [
  [1, 1, 1],
  [7, 3, 17],
  [63, 100, 33],
  [1000, 130, 64],
  [100, 10, 1000],
] as const;
const exact = ["wide", "narrow", "gathered", "scattered", "sum"] as const;

/** Every row op for N ids into a table [V, C]. */
function everything(ops: Ops, N: number, V: number, C: number) {
  const [table, dy, other] = [random(ops, [V, C], 1), random(ops, [N, C], 2), random(ops, [N, C], 3)];
  const narrow = ops.empty([V, C], "bf16");
  ops.convert(narrow, table);
  const ids = ops.fromArray(
    [N],
    Int32Array.from({ length: N }, (_, i) => Math.imul(i, 7919) % V),
  );
  const reversed = ops.fromArray(
    [N],
    Int32Array.from({ length: N }, (_, i) => N - 1 - i),
  );
  const shape = [N, C];
  const y = outputs(ops, {
    wide: shape,
    narrow: shape,
    gathered: shape,
    scattered: shape,
    sum: shape,
    dtable: [V, C],
    axpy: shape,
  });
  ops.embedding(y.wide, ids, table);
  ops.embedding(y.narrow, ids, narrow);
  ops.gatherRows(y.gathered, table, ids);
  ops.scatterRows(y.scattered, dy, reversed);
  ops.add(y.sum, dy, other);
  ops.copy(y.dtable, table);
  ops.embeddingBackward(y.dtable, ids, dy);
  ops.copy(y.axpy, other);
  ops.axpy(y.axpy, dy, -0.3);
  return y.read();
}

for (const isa of fastIsas) {
  describe(isa, () => {
    test.each(sizes.map(([N, V, C]) => [N, V, C] as [number, number, number]))(
      "row ops match the reference at %d rows, %d ids, %d channels",
      async (N, V, C) => {
        const actual = everything(await opsOf(isa), N, V, C);
        const expected = everything(await opsOf("reference"), N, V, C);
        for (const name of exact) expectSameBits(actual[name], expected[name], name);
        expectSameBits(actual.dtable, expected.dtable, "dtable"); // rows are added in the same order
        expectClose(actual.axpy, expected.axpy, 1e-6, "axpy");
      },
    );

    test("row ops give the same bits with 1 and 2 threads", async () => {
      const ops = await opsOf(isa);
      const two = everything(ops, 1000, 50, 200);
      ops.setThreads(1);
      const one = everything(ops, 1000, 50, 200);
      ops.setThreads(2);
      for (const name of [...exact, "dtable", "axpy"] as const) expectSameBits(one[name], two[name], name);
    });
  });
}

test.each(isas)("row ops refuse ids and indices outside their table on %s", async (isa) => {
  const ops = await opsOf(isa);
  const [table, y] = [random(ops, [5, 4], 1), ops.empty([2, 4])];
  const ids = (...values: number[]) => ops.fromArray([values.length], Int32Array.from(values));
  expect(() => ops.embedding(y, ids(0, 5), table)).toThrow("id 5 of row 1, expected 0 to 4");
  expect(() => ops.embedding(y, ids(-1, 0), table)).toThrow("id -1 of row 0");
  expect(() => ops.embeddingBackward(table, ids(0, 7), y)).toThrow("id 7 of row 1");
  expect(() => ops.gatherRows(y, table, ids(0, -3))).toThrow("index -3 of row 1");
  expect(() => ops.scatterRows(table, y, ids(-2, 0))).toThrow("index -2 of row 0");
  expect(ops.symbols.graft_add(y.ptr as never, null, y.ptr as never, 4)).toBe(1);
  expect(ops.lastError()).toContain("null");
});
