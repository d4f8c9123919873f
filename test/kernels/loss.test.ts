// Losses and scores: golden files, the reference at odd sizes, ignored labels, NaN and infinite logits.
import { describe, expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { ROW_BROKEN, ROW_EMPTY } from "../../src/ops/sampling_ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { guarded, isas, opsOf } from "../support/kernels.ts";
import { eachGolden, expectClose, expectGolden, expectSameBits, fastIsas, random } from "../support/op_case.ts";

const ints = (ops: Ops, values: readonly number[]) => ops.fromArray([values.length], Int32Array.from(values));

describe("golden files", () => {
  eachGolden(["cross_entropy"], (ops, golden) => {
    const [B, T, V] = golden.shape("input.logits") as [number, number, number];
    const given = golden.i32("input.labels");
    // The golden loss is causal: the logits of position t answer for the label of t + 1.
    const labels = Int32Array.from({ length: B * T }, (_, i) => (i % T === T - 1 ? -100 : given[i + 1]!));
    const count = labels.filter((label) => label !== -100).length;
    const upstream = golden.f32("upstream.loss")[0]!;
    const logits = ops.fromArray([B * T, V], golden.f32("input.logits"));
    const [loss, dlogits] = [guarded(ops, [B * T]), guarded(ops, [B * T, V])];
    ops.crossEntropy(loss, dlogits, logits, ops.fromArray([B * T], labels), upstream / count);
    loss.check();
    const mean = ops.toFloat32(loss).reduce((a, b) => a + b, 0) / count;
    expectClose(Float32Array.of(mean), golden.f32("output.loss"), 1e-5, "loss");
    expectGolden(ops, dlogits, golden, "grad.input.logits", 3e-5);
    ops.crossEntropy(loss, logits, logits, ops.fromArray([B * T], labels), upstream / count);
    expectSameBits(ops.toFloat32(logits), ops.toFloat32(dlogits), "gradient in place");
  });

  eachGolden(["mse"], (ops, golden) => {
    const n = golden.f32("input.student").length;
    const [y, target] = [
      ops.fromArray([n], golden.f32("input.student")),
      ops.fromArray([n], golden.f32("input.teacher")),
    ];
    const [stats, dy] = [ops.empty([2], "f64"), guarded(ops, [n])];
    ops.mse(stats, dy, y, target, false);
    const upstream = golden.f32("upstream.loss")[0]!;
    expectClose(Float32Array.of(ops.toFloat64(stats)[0]! / n), golden.f32("output.loss"), 1e-5, "loss");
    const scaled = ops.toFloat32(dy).map((x) => x * upstream);
    expectClose(scaled, golden.f32("grad.input.student"), 3e-5, "gradient");
    expectClose(
      scaled.map((x) => -x),
      golden.f32("grad.input.teacher"),
      3e-5,
      "gradient of the target",
    );
    dy.check();
  });
});

function scores(ops: Ops, N: number, V: number) {
  const logits = random(ops, [N, V], 1, 12);
  const labels = Array.from({ length: N }, (_, i) => (i % 5 === 3 ? -100 : (i * 7919) % V));
  const [loss, dlogits, logprob] = [guarded(ops, [N]), guarded(ops, [N, V]), guarded(ops, [N])];
  const argmax = guarded(ops, [N], "i32");
  ops.crossEntropy(loss, dlogits, logits, ints(ops, labels), 0.25);
  const ids = ints(
    ops,
    labels.map((label) => Math.max(label, 0)),
  );
  ops.logProb(logprob, argmax, logits, ids);
  for (const t of [loss, dlogits, logprob, argmax]) t.check();
  return {
    loss: ops.toFloat32(loss),
    dlogits: ops.toFloat32(dlogits),
    logprob: ops.toFloat32(logprob),
    argmax: ops.toInt32(argmax),
  };
}

function errors(ops: Ops, n: number, normalized: boolean) {
  const [y, target] = [random(ops, [n], 1), random(ops, [n], 2)];
  const [stats, dy] = [ops.empty([2], "f64"), guarded(ops, [n])];
  ops.mse(stats, dy, y, target, normalized);
  dy.check();
  return { stats: Float32Array.from(ops.toFloat64(stats)), dy: ops.toFloat32(dy) };
}

for (const isa of fastIsas) {
  describe(isa, () => {
    test.each([
      [1, 1],
      [3, 2],
      [7, 63],
      [5, 1000],
      [4, 8193],
      [2, 50257],
    ])("scores of %d rows over %d tokens match the reference", async (N, V) => {
      const [actual, expected] = [scores(await opsOf(isa), N, V), scores(await opsOf("reference"), N, V)];
      expectClose(actual.loss, expected.loss, 1e-6, "loss");
      expectClose(actual.dlogits, expected.dlogits, 3e-6, "dlogits");
      expectClose(actual.logprob, expected.logprob, 1e-6, "logprob");
      expect(actual.argmax).toEqual(expected.argmax);
    });

    test.each([1, 7, 1000, 16384, 50001])("mse() of %d elements matches the reference", async (n) => {
      for (const normalized of [false, true]) {
        const [actual, expected] = [
          errors(await opsOf(isa), n, normalized),
          errors(await opsOf("reference"), n, normalized),
        ];
        expectClose(actual.stats, expected.stats, 1e-6, "stats");
        expectClose(actual.dy, expected.dy, 1e-6, "dy");
      }
    });

    test("scores have the same bits with 1 and 2 threads and row by row", async () => {
      const ops = await opsOf(isa);
      const [N, V] = [9, 20000];
      const two = scores(ops, N, V);
      const twoErrors = errors(ops, 100003, true);
      ops.setThreads(1);
      const one = scores(ops, N, V);
      const oneErrors = errors(ops, 100003, true);
      ops.setThreads(2);
      for (const name of ["loss", "dlogits", "logprob"] as const) expectSameBits(one[name], two[name], name);
      expectSameBits(oneErrors.dy, twoErrors.dy, "dy");
      expect(oneErrors.stats).toEqual(twoErrors.stats);
      const logits = random(ops, [N, V], 1, 12);
      for (let i = 0; i < N; i++) {
        const row: Tensor = { ptr: logits.ptr + 4 * i * V, shape: [1, V], dtype: "f32" };
        const logprob = guarded(ops, [1]);
        const id = i % 5 === 3 ? 0 : (i * 7919) % V;
        ops.logProb(logprob, null, row, ints(ops, [id]));
        expectSameBits(ops.toFloat32(logprob), two.logprob.slice(i, i + 1), `row ${i} alone`);
      }
    });
  });
}

describe.each(isas)("%s", (isa) => {
  test("logProb() takes the lowest of equal maxima, and a row that holds NaN has no answer", async () => {
    const ops = await opsOf(isa);
    const V = 9000;
    const values = new Float32Array(3 * V).fill(-1);
    values.set([5, 7, 7], 100);
    values[8999] = 7; // row 0: 7 at 101, 102 and in the second chunk
    values[V + 8500] = Number.NaN; // row 1
    values.fill(Number.NEGATIVE_INFINITY, 2 * V, 3 * V);
    values[2 * V + 17] = 2; // row 2: everything else is masked
    const [logprob, argmax] = [guarded(ops, [3]), guarded(ops, [3], "i32")];
    ops.logProb(logprob, argmax, ops.fromArray([3, V], values), ints(ops, [0, 8500, 17]));
    expect(Array.from(ops.toInt32(argmax))).toEqual([101, ROW_BROKEN, 17]);
    const [first, second, third] = ops.toFloat32(logprob);
    expect(first).toBeCloseTo(-1 - Math.log(3 * Math.exp(7) + Math.exp(5) + (V - 4) * Math.exp(-1)), 4);
    expect(second).toBeNaN();
    expect(third).toBe(0);
  });

  test("logProb() of a row of NaN or of -infinity alone says so", async () => {
    const ops = await opsOf(isa);
    const [logprob, argmax] = [guarded(ops, [2]), guarded(ops, [2], "i32")];
    const values = new Float32Array(8).fill(Number.NaN).fill(Number.NEGATIVE_INFINITY, 4);
    ops.logProb(logprob, argmax, ops.fromArray([2, 4], values), ints(ops, [0, 1]));
    expect(Array.from(ops.toInt32(argmax))).toEqual([ROW_BROKEN, ROW_EMPTY]);
    expect(Array.from(ops.toFloat32(logprob), Number.isNaN)).toEqual([true, true]);
  });

  test("a NaN logit makes the loss NaN", async () => {
    const ops = await opsOf(isa);
    const loss = guarded(ops, [1]);
    const dlogits = guarded(ops, [1, 4]);
    ops.crossEntropy(loss, dlogits, ops.fromArray([1, 4], Float32Array.of(0, Number.NaN, 1, 2)), ints(ops, [0]));
    expect(ops.toFloat32(loss)[0]).toBeNaN();
    expect(ops.toFloat32(dlogits).every(Number.isNaN)).toBe(true);
  });

  test("labels, ids and targets out of range are refused", async () => {
    const ops = await opsOf(isa);
    const [loss, logits] = [guarded(ops, [1]), random(ops, [1, 4], 1)];
    expect(() => ops.crossEntropy(loss, null, logits, ints(ops, [4]))).toThrow("label 4 of row 0 is outside 0..3");
    expect(() => ops.logProb(loss, null, logits, ints(ops, [-1]))).toThrow("id -1 of row 0 is outside 0..3");
    const zero = ops.empty([4]);
    expect(() => ops.mse(ops.empty([2], "f64"), null, zero, zero, true)).toThrow("the target is all zeros");
  });
});
