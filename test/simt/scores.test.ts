// CUDA kernels over logits, in the emulator: draws, scores, most likely ids and adjustments, against the reference.
import { expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { ROW_BROKEN, ROW_EMPTY } from "../../src/ops/sampling_ops.ts";
import { guarded, opsOf, randomFloats } from "../support/kernels.ts";
import { expectClose } from "../support/op_case.ts";

interface Params {
  readonly temperature?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly topK?: number;
  readonly seed?: number;
  readonly position?: number;
}

/** One draw per params from rows of logits (one for all, or one each). */
function draw(ops: Ops, logits: Float32Array, V: number, params: readonly Params[]) {
  const N = params.length;
  const words = new Uint32Array(N * 8);
  const floats = new Float32Array(words.buffer);
  const rows = new Float32Array(N * V);
  params.forEach((p, i) => {
    floats.set([p.temperature ?? 1, p.topP ?? 1, p.minP ?? 0], i * 8);
    words.set([p.topK ?? 0, p.seed ?? 1, 0, 0, p.position ?? 0], i * 8 + 3);
    rows.set(logits.length === V ? logits : logits.subarray(i * V, (i + 1) * V), i * V);
  });
  const [ids, logprob] = [guarded(ops, [N], "i32"), guarded(ops, [N])];
  ops.sample(ids, logprob, ops.fromArray([N, V], rows), ops.fromArray([N * 8], words, "i32"));
  ids.check();
  logprob.check();
  return { ids: Array.from(ops.toInt32(ids)), logprob: ops.toFloat32(logprob) };
}

const cuts: Params[] = [
  { temperature: 0 },
  {},
  { temperature: 3 },
  { topK: 1 },
  { topK: 7 },
  { topP: 0.01 },
  { topP: 0.5 },
  { topP: 0.95, temperature: 1.5 },
  { topP: 0.999, temperature: 20 },
  { minP: 0.2 },
  { topK: 40, topP: 0.8 },
  { topK: 20, topP: 0.95, minP: 0.1, temperature: 0.8 },
];

test("the same tokens as the reference under every cut", async () => {
  const [ops, reference] = [await opsOf("simt"), await opsOf("reference")];
  for (const [V, spread, seed] of [
    [7, 2, 1],
    [1000, 6, 2],
    [4097, 3, 3],
    [20_001, 3, 4],
  ] as const) {
    const logits = randomFloats(V, seed).map((x) => x * spread);
    const few = V > 10_000 ? cuts.slice(1, 3) : cuts;
    const params = few.flatMap((cut) => [0, 1, 2, 3].map((position) => ({ ...cut, position })));
    const [actual, expected] = [draw(ops, logits, V, params), draw(reference, logits, V, params)];
    expect(actual.ids).toEqual(expected.ids);
    expectClose(actual.logprob, expected.logprob, 1e-6, "logprob");
  }
});

test("among equals the lower index is kept", async () => {
  const ops = await opsOf("simt");
  const reference = await opsOf("reference");
  const logits = randomFloats(900, 5).map((x) => Math.round(x * 4));
  for (const cut of [{ topK: 3 }, { topK: 500 }, { topP: 0.1 }, { topP: 0.6 }, { topK: 100, topP: 0.5 }]) {
    const params = Array.from({ length: 12 }, (_, position) => ({ ...cut, position }));
    expect(draw(ops, logits, 900, params).ids).toEqual(draw(reference, logits, 900, params).ids);
  }
});

test("a row that nothing can be drawn from says why", async () => {
  const ops = await opsOf("simt");
  const V = 1030;
  const good = randomFloats(V, 17);
  for (const params of [{ temperature: 0 }, { topK: 5 }, { topP: 0.9, minP: 0.1 }]) {
    const logits = new Float32Array(5 * V);
    for (let i = 0; i < 5; i++) logits.set(good, i * V);
    logits[V + 1029] = Number.NaN;
    logits[2 * V + 4] = Number.POSITIVE_INFINITY;
    logits.fill(Number.NEGATIVE_INFINITY, 3 * V, 4 * V);
    const { ids, logprob } = draw(ops, logits, V, Array(5).fill(params));
    const [one] = draw(ops, good, V, [params]).ids;
    expect(ids).toEqual([one!, ROW_BROKEN, ROW_BROKEN, ROW_EMPTY, one!]);
    expect(Array.from(logprob, Number.isNaN)).toEqual([false, true, true, true, false]);
  }
});

test("log-probabilities, most likely ids and adjustments match the reference", async () => {
  const run = (ops: Ops) => {
    const [N, V] = [3, 1500];
    const logits = ops.fromArray(
      [N, V],
      randomFloats(N * V, 9).map((x) => Math.round(x * 300) / 20),
    );
    const ints = (...values: number[]) => ops.fromArray([values.length], Int32Array.from(values));
    const words = new Uint32Array(9);
    words.set([3, 0, 0, 1499, 0, 0, 20, 0, 0]);
    new Float32Array(words.buffer).set([1.5, -2], 1);
    new Float32Array(words.buffer).set([1, 4], 4);
    new Float32Array(words.buffer).set([0.5, 0], 7);
    const masks = new Int32Array(Math.ceil(V / 32)).fill(0x0f0f0f0f);
    ops.adjustLogits(logits, {
      entries: ops.fromArray([9], words, "i32"),
      entryStart: ints(0, 2, 2, 3),
      masks: ops.fromArray([1, masks.length], masks),
      maskRows: ints(-1, -1, 0),
    });
    const [logprob, argmax] = [guarded(ops, [N]), guarded(ops, [N], "i32")];
    ops.logProb(logprob, argmax, logits, ints(3, 700, 16));
    const [ids, top] = [guarded(ops, [N, 20], "i32"), guarded(ops, [N, 20])];
    ops.topK(ids, top, logits, ints(20, 0, 7));
    for (const t of [logprob, argmax, ids, top]) t.check();
    return {
      logits: ops.toFloat32(logits),
      logprob: ops.toFloat32(logprob),
      argmax: Array.from(ops.toInt32(argmax)),
      ids: Array.from(ops.toInt32(ids)),
      top: ops.toFloat32(top),
    };
  };
  const [actual, expected] = [run(await opsOf("simt")), run(await opsOf("reference"))];
  expect(actual.argmax).toEqual(expected.argmax);
  expect(actual.ids).toEqual(expected.ids);
  expectClose(actual.logits.filter(Number.isFinite), expected.logits.filter(Number.isFinite), 1e-7, "logits");
  expect(Array.from(actual.logits, Number.isFinite)).toEqual(Array.from(expected.logits, Number.isFinite));
  expectClose(actual.logprob, expected.logprob, 1e-6, "logprob");
  for (const [row, count] of [
    [0, 20],
    [2, 7],
  ] as const) {
    const part = (x: Float32Array) => x.slice(row * 20, row * 20 + count);
    expectClose(part(actual.top), part(expected.top), 1e-6, `top of row ${row}`);
  }
});
