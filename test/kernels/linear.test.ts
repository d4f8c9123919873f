// The serving linear layer: the reference at awkward sizes, and one answer for any number of rows and threads.
import { describe, expect, test } from "bun:test";
import type { Ops, PackedLinear } from "../../src/ops/ops.ts";
import { rows, type Tensor } from "../../src/tensor/tensor.ts";
import { guarded, isas, opsOf } from "../support/kernels.ts";
import { expectClose, expectSameBits, fastIsas, outputs, random } from "../support/op_case.ts";

type WeightType = "f32" | "bf16";
const dtypes: WeightType[] = ["f32", "bf16"];
const heights = [1, 7, 33, 63, 100] as const;
const widths = [1, 8, 17, 64, 100, 352, 512] as const;

/** Row-major weight of one dtype, the same numbers in every library. */
function weightOf(ops: Ops, out: number, inputs: number, dtype: WeightType): Tensor {
  const wide = random(ops, [out, inputs], 7 + out);
  if (dtype === "f32") return wide;
  const narrow = ops.empty([out, inputs], "bf16");
  ops.convert(narrow, wide);
  ops.free(wide);
  return narrow;
}

function packed(ops: Ops, out: number, inputs: number, dtype: WeightType): PackedLinear {
  const weight = weightOf(ops, out, inputs, dtype);
  const w = ops.linearPack(weight);
  ops.free(weight);
  return w;
}

/** Plain, with bias, and with bias and a residual that is the output itself. */
function everything(ops: Ops, N: number, out: number, inputs: number, dtype: WeightType) {
  const w = packed(ops, out, inputs, dtype);
  const x = random(ops, [N, inputs], 3);
  const [bias, residual] = [random(ops, [out], 4), random(ops, [N, out], 5)];
  const y = outputs(ops, { plain: [N, out], biased: [N, out], added: [N, out] });
  ops.linear(y.plain, x, w);
  ops.linear(y.biased, x, w, bias, residual);
  ops.copy(y.added, residual);
  ops.linear(y.added, x, w, bias, y.added);
  const result = y.read();
  ops.freePacked(w);
  for (const t of [x, bias, residual]) ops.free(t);
  return result;
}

for (const isa of fastIsas) {
  describe(isa, () => {
    for (const dtype of dtypes) {
      test.each(widths.map((out) => [out] as [number]))(
        `linear() matches the reference in ${dtype} with %d outputs`,
        async (out) => {
          const [ops, reference] = [await opsOf(isa), await opsOf("reference")];
          for (const inputs of widths) {
            const N = heights[(out + inputs) % heights.length]!;
            const actual = everything(ops, N, out, inputs, dtype);
            const expected = everything(reference, N, out, inputs, dtype);
            for (const name of ["plain", "biased", "added"] as const) {
              expectClose(actual[name], expected[name], 1e-5, `${name} [${N}, ${out}, ${inputs}]`);
            }
          }
        },
      );

      test(`linear() gives a row the same bits alone, in any batch and with 1 or 2 threads in ${dtype}`, async () => {
        const ops = await opsOf(isa);
        for (const [out, inputs] of [
          [352, 512],
          [100, 1024],
          [8, 17],
          [512, 1100],
        ] as const) {
          const [w, N] = [packed(ops, out, inputs, dtype), 100];
          const [x, bias, residual] = [random(ops, [N, inputs], 1), random(ops, [out], 2), random(ops, [N, out], 3)];
          const y = outputs(ops, { all: [N, out], alone: [N, out], single: [N, out], chunks: [N, out] });
          ops.linear(y.all, x, w, bias, residual);
          ops.setThreads(1);
          ops.linear(y.single, x, w, bias, residual);
          ops.setThreads(2);
          const step = (to: Tensor, first: number, count: number) => {
            const [part, own] = [rows(to, first, count), rows(residual, first, count)];
            ops.linear(part, rows(x, first, count), w, bias, own);
          };
          for (let i = 0; i < N; i++) step(y.alone, i, 1);
          let first = 0;
          for (const count of [2, 3, 5, 7, 8, 13, 25, 37]) {
            step(y.chunks, first, count);
            first += count;
          }
          expect(first).toBe(N);
          const { all, alone, single, chunks } = y.read();
          expectSameBits(alone, all, `row by row [${out}, ${inputs}]`);
          expectSameBits(single, all, `one thread [${out}, ${inputs}]`);
          expectSameBits(chunks, all, `chunks [${out}, ${inputs}]`);
          ops.freePacked(w);
        }
      });
    }

    test("linear() splits many rows and panels over threads without changing a bit", async () => {
      const ops = await opsOf(isa);
      const [N, out, inputs] = [1100, 130, 300];
      const [w, x] = [packed(ops, out, inputs, "f32"), random(ops, [N, inputs], 1)];
      const y = outputs(ops, { two: [N, out], one: [N, out], five: [N, out] });
      ops.linear(y.two, x, w);
      for (const [threads, to] of [
        [1, y.one],
        [5, y.five],
      ] as const) {
        ops.setThreads(threads);
        ops.linear(to, x, w);
      }
      ops.setThreads(2);
      const { one, two, five } = y.read();
      expectSameBits(one, two, "1 and 2 threads");
      expectSameBits(five, two, "5 and 2 threads");
    });

    test("linearPack() stays inside the bytes it asks for, and embedding() reads rows back from it", async () => {
      const ops = await opsOf(isa);
      for (const dtype of dtypes) {
        for (const [V, C] of [
          [1, 1],
          [17, 7],
          [100, 33],
          [131, 64],
        ] as const) {
          const table = weightOf(ops, V, C, dtype);
          const code = dtype === "f32" ? 0 : 1;
          const bytes = ops.symbols.graft_linear_packed_bytes(V, C, code);
          const room = guarded(ops, [bytes / 4]);
          expect(ops.symbols.graft_linear_pack(room.ptr as never, table.ptr as never, V, C, code)).toBe(0);
          room.check();
          const w = { ptr: room.ptr, out: V, in: C, dtype, bytes };
          const ids = ops.fromArray(
            [V],
            Int32Array.from({ length: V }, (_, i) => (i * 13) % V),
          );
          const y = outputs(ops, { packed: [V, C], plain: [V, C] });
          ops.embedding(y.packed, ids, w);
          ops.embedding(y.plain, ids, table);
          const { packed: fromHead, plain } = y.read();
          expectSameBits(fromHead, plain, `${dtype} [${V}, ${C}]`);
        }
      }
    });
  });
}

test.each(isas)("linear() refuses impossible arguments on %s", async (isa) => {
  const ops = await opsOf(isa);
  const [w, x] = [packed(ops, 8, 4, "f32"), random(ops, [2, 4], 1)];
  const y = ops.empty([2, 8]);
  const call = (N: number, out: number, inputs: number, dtype: number, to: number | null = y.ptr) =>
    ops.symbols.graft_linear(to as never, x.ptr as never, w.ptr as never, null, null, N, out, inputs, dtype);
  expect(call(2, 8, 4, 0)).toBe(0);
  expect(call(0, 8, 4, 0)).toBe(1);
  expect(ops.lastError()).toContain("0 rows");
  expect(call(2, -8, 4, 0)).toBe(1);
  expect(ops.lastError()).toContain("[-8, 4]");
  expect(call(2, 8, 4, 2)).toBe(1);
  expect(ops.lastError()).toContain("dtype is 2");
  expect(call(2, 8, 4, 0, null)).toBe(1);
  expect(ops.lastError()).toContain("null");
  expect(ops.symbols.graft_linear_packed_bytes(0, 4, 0)).toBe(0);
});
