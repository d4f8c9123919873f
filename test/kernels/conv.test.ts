// Convolutions: golden files, the reference at awkward sizes, and state carried over any chunking.
import { describe, expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import { rows, type Tensor } from "../../src/tensor/tensor.ts";
import type { Golden } from "../support/golden.ts";
import { guarded, isas, opsOf, randomFloats } from "../support/kernels.ts";
import { eachGolden, expectClose, expectSameBits, fastIsas, outputs, random, zeros } from "../support/op_case.ts";

const int32 = (ops: Ops, ...values: number[]) => ops.fromArray([values.length], Int32Array.from(values));

/** [B, C, W] with the newest entry last -> the last W-1 entries as [B, W-1, C]. */
function contextOf(state: Float32Array, B: number, C: number, W: number): Float32Array {
  const out = new Float32Array(B * (W - 1) * C);
  for (let b = 0; b < B; b++)
    for (let i = 0; i < W - 1; i++)
      for (let c = 0; c < C; c++) out[(b * (W - 1) + i) * C + c] = state[(b * C + c) * W + i + 1]!;
  return out;
}

interface GoldenConv {
  readonly B: number;
  readonly T: number;
  readonly C: number;
  readonly W: number;
}

/** Rows of `context` [B, W-1, C] in front of the rows of x [B, T, C]. */
function withContext({ B, T, C, W }: GoldenConv, context: Float32Array, x: Float32Array): Float32Array {
  const long = T + W - 1;
  const out = new Float32Array(B * long * C);
  for (let b = 0; b < B; b++) {
    out.set(context.subarray(b * (W - 1) * C, (b + 1) * (W - 1) * C), b * long * C);
    out.set(x.subarray(b * T * C, (b + 1) * T * C), (b * long + W - 1) * C);
  }
  return out;
}

/** The last T rows, or the first W-1, of every sequence of T+W-1 rows. */
function part({ B, T, C, W }: GoldenConv, x: Float32Array, which: "rows" | "context"): Float32Array {
  const long = T + W - 1;
  const [first, count] = which === "rows" ? [W - 1, T] : [0, W - 1];
  const out = new Float32Array(B * count * C);
  for (let b = 0; b < B; b++)
    out.set(x.subarray((b * long + first) * C, (b * long + first + count) * C), b * count * C);
  return out;
}

function sizesOf(golden: Golden): GoldenConv {
  const [B, T, C] = golden.shape("input.x") as [number, number, number];
  return { B, T, C, W: golden.hyperparameters.kernel_size as number };
}

/** Serves the golden sequences from their initial state, then compares outputs and the state behind them. */
function serveGolden(
  ops: Ops,
  golden: Golden,
  limit: number,
  run: (y: Tensor, u: Tensor, state: Tensor) => void,
): void {
  const s = sizesOf(golden);
  const u = ops.fromArray([s.B * s.T, s.C], golden.f32("input.x"));
  const state = guarded(ops, [s.B, s.W - 1, s.C]);
  ops.upload(state, contextOf(golden.f32("input.initial_state"), s.B, s.C, s.W));
  const y = guarded(ops, [s.B * s.T, s.C]);
  run(y, u, state);
  y.check();
  state.check();
  expectClose(ops.toFloat32(y), golden.f32("output.y"), limit, `${golden.name} y`);
  const expected = contextOf(golden.f32("state.conv"), s.B, s.C, s.W);
  expectClose(ops.toFloat32(state), expected, 1e-7, `${golden.name} state`);
}

/** Starts of B sequences of equal length. */
const evenStarts = (ops: Ops, B: number, length: number) =>
  int32(ops, ...Array.from({ length: B + 1 }, (_, b) => b * length));

/** The gradient of the last W-1 entries of the golden initial state, as [B, W-1, C]. */
const contextGradient = (golden: Golden, s: GoldenConv) =>
  contextOf(golden.f32("grad.input.initial_state"), s.B, s.C, s.W);

describe("golden files", () => {
  eachGolden(["short_conv"], (ops, golden) => {
    const s = sizesOf(golden);
    const w = ops.fromArray([s.C, s.W], golden.f32("param.weight"));
    const bias = golden.has("param.bias") ? ops.fromArray([s.C], golden.f32("param.bias")) : null;
    serveGolden(ops, golden, 1e-5, (y, u, state) => {
      const slots = { state, stride: (s.W - 1) * s.C, slots: int32(ops, 0, 1) };
      ops.shortConv(y, u, w, bias, evenStarts(ops, s.B, s.T), slots);
    });
    // The training form starts from nothing: the state goes in front as rows whose outputs nobody looks at.
    const shape = [s.B * (s.T + s.W - 1), s.C];
    const context = contextOf(golden.f32("input.initial_state"), s.B, s.C, s.W);
    const u = ops.fromArray(shape, withContext(s, context, golden.f32("input.x")));
    const dy = ops.fromArray(
      shape,
      withContext(
        s,
        context.map(() => 0),
        golden.f32("upstream.y"),
      ),
    );
    const grads = { du: guarded(ops, shape), dw: zeros(ops, [s.C, s.W]), dbias: bias ? zeros(ops, [s.C]) : null };
    ops.shortConvBackward(grads.du, grads.dw, grads.dbias, dy, u, w, bias, evenStarts(ops, s.B, s.T + s.W - 1));
    for (const t of Object.values(grads)) t?.check();
    const du = ops.toFloat32(grads.du);
    expectClose(part(s, du, "rows"), golden.f32("grad.input.x"), 3e-5, `${golden.name} du`);
    expectClose(part(s, du, "context"), contextGradient(golden, s), 3e-5, `${golden.name} d state`);
    expectClose(ops.toFloat32(grads.dw), golden.f32("grad.param.weight"), 3e-5, `${golden.name} dw`);
    if (grads.dbias)
      expectClose(ops.toFloat32(grads.dbias), golden.f32("grad.param.bias"), 3e-5, `${golden.name} dbias`);
  });

  eachGolden(["dynamic_conv"], (ops, golden) => {
    const s = sizesOf(golden);
    const kernels = ops.fromArray([s.B * s.T, s.C, s.W], golden.f32("intermediate.kernels"));
    serveGolden(ops, golden, 2e-5, (y, u, state) => {
      const slots = { state, stride: (s.W - 1) * s.C, slots: int32(ops, 0, 1) };
      ops.dynamicConv(y, u, kernels, evenStarts(ops, s.B, s.T), slots);
    });
    const shape = [s.B * (s.T + s.W - 1), s.C];
    const context = contextOf(golden.f32("input.initial_state"), s.B, s.C, s.W);
    const u = ops.fromArray(shape, withContext(s, context, golden.f32("input.x")));
    const dy = ops.fromArray(
      shape,
      withContext(
        s,
        context.map(() => 0),
        golden.f32("upstream.y"),
      ),
    );
    const taps = { ...s, C: s.C * s.W };
    const padding = new Float32Array(context.length * s.W);
    const long = ops.fromArray([shape[0]!, s.C, s.W], withContext(taps, padding, golden.f32("intermediate.kernels")));
    const grads = outputs(ops, { du: shape, dkernels: [shape[0]!, s.C, s.W] });
    ops.dynamicConvBackward(grads.du, grads.dkernels, dy, u, long, evenStarts(ops, s.B, s.T + s.W - 1));
    const { du, dkernels } = grads.read();
    expectClose(part(s, du, "rows"), golden.f32("grad.input.x"), 5e-5, `${golden.name} du`);
    expectClose(part(s, du, "context"), contextGradient(golden, s), 5e-5, `${golden.name} d state`);
    // The generator's static part is the sum of dkernels over the rows.
    const bias = new Float32Array(s.C * s.W);
    dkernels.forEach((x, i) => {
      bias[i % bias.length] = bias[i % bias.length]! + x;
    });
    expectClose(bias, golden.f32("grad.param.kernel_generator.w2.bias"), 5e-5, `${golden.name} dkernels`);
  });
});

/** Every output of both convolutions, forward without state and backward, over three ragged sequences. */
function everything(ops: Ops, C: number, W: number, silu: boolean) {
  const starts = [0, 1, 3, 40];
  const N = starts.at(-1)!;
  const seqStart = int32(ops, ...starts);
  const [u, dy] = [random(ops, [N, C], 1, 2), random(ops, [N, C], 2)];
  const [w, bias, kernels] = [random(ops, [C, W], 3), random(ops, [C], 4), random(ops, [N, C, W], 5)];
  const out = outputs(ops, {
    short: [N, C],
    bare: [N, C],
    dynamic: [N, C],
    du: [N, C],
    dw: [C, W],
    dbias: [C],
    dynamicDu: [N, C],
    dkernels: [N, C, W],
  });
  ops.copy(out.dw, w);
  ops.copy(out.dbias, bias);
  ops.shortConv(out.short, u, w, bias, seqStart, null, silu);
  ops.shortConv(out.bare, u, w, null, seqStart, null, silu);
  ops.dynamicConv(out.dynamic, u, kernels, seqStart, null);
  ops.shortConvBackward(out.du, out.dw, out.dbias, dy, u, w, bias, seqStart, silu);
  ops.dynamicConvBackward(out.dynamicDu, out.dkernels, dy, u, kernels, seqStart);
  return out.read() as Record<string, Float32Array>;
}

const cases = [8, 40, 257, 300].flatMap((C) => [2, 3, 4].flatMap((W) => [true, false].map((silu) => ({ C, W, silu }))));

for (const isa of fastIsas) {
  test.each(cases)(`convolutions on ${isa} match the reference: %j`, async ({ C, W, silu }) => {
    const ops = await opsOf(isa);
    const [actual, expected] = [everything(ops, C, W, silu), everything(await opsOf("reference"), C, W, silu)];
    for (const name in expected) expectClose(actual[name]!, expected[name]!, 2e-6, name);
    ops.setThreads(1);
    const alone = everything(ops, C, W, silu);
    ops.setThreads(2);
    for (const name in alone) expectSameBits(alone[name]!, actual[name]!, `${name} with one thread`);
  });
}

/** Two sequences of 11 and 6 rows in one slot buffer, in calls of `size` rows each. */
function served(ops: Ops, W: number, size: number, dynamic: boolean) {
  const [C, lengths] = [72, [11, 6]];
  const [w, bias] = [random(ops, [C, W], 1), random(ops, [C], 2)];
  const stride = (W - 1) * C + 5;
  const state = guarded(ops, [2, stride]);
  ops.zero(state);
  const y = lengths.map((length) => guarded(ops, [length, C]));
  for (let at = 0; at < 11; at += size)
    for (const [s, length] of lengths.entries()) {
      const count = Math.min(size, length - at);
      if (count <= 0) continue;
      const u = rows(random(ops, [length, C], 3 + s), at, count);
      const kernels = rows(random(ops, [length, C, W], 5 + s), at, count);
      const slots = { state, stride, slots: int32(ops, 1 - s) };
      if (dynamic) ops.dynamicConv(rows(y[s]!, at, count), u, kernels, int32(ops, 0, count), slots);
      else ops.shortConv(rows(y[s]!, at, count), u, w, bias, int32(ops, 0, count), slots);
    }
  state.check();
  for (const t of y) t.check();
  return [...y.map((t) => ops.toFloat32(t)), ops.toFloat32({ ...state, dtype: "f32" })];
}

for (const isa of isas) {
  test.each([2, 3, 4])(`conv state is carried to the bit over any chunking on ${isa} with %d taps`, async (W) => {
    const ops = await opsOf(isa);
    for (const dynamic of [false, true]) {
      const whole = served(ops, W, 11, dynamic);
      for (const size of [1, 2, 3, 5])
        served(ops, W, size, dynamic).forEach((part, i) => {
          expectSameBits(part, whole[i]!, `buffer ${i} in chunks of ${size}`);
        });
      // Without a state the context is zero, which is what a zeroed slot holds.
      const u = random(ops, [11, 72], 3);
      const y = guarded(ops, [11, 72]);
      if (dynamic) ops.dynamicConv(y, u, random(ops, [11, 72, W], 5), int32(ops, 0, 11), null);
      else ops.shortConv(y, u, random(ops, [72, W], 1), random(ops, [72], 2), int32(ops, 0, 11), null);
      expectSameBits(ops.toFloat32(y), whole[0]!, "no state");
    }
  });

  test(`convolutions refuse 5 taps, ragged rows that do not add up and short states on ${isa}`, async () => {
    const ops = await opsOf(isa);
    const u = ops.fromArray([4, 8], randomFloats(32, 1));
    const y = guarded(ops, [4, 8]);
    const starts = int32(ops, 0, 4);
    expect(() => ops.shortConv(y, u, random(ops, [8, 5], 1), null, starts, null)).toThrow("W is 5, expected 2 to 4");
    expect(() => ops.shortConv(y, u, random(ops, [8, 4], 1), null, int32(ops, 0, 3), null)).toThrow(
      "seq_start runs from 0 to 3, expected 0 to N = 4",
    );
    const slots = { state: random(ops, [16], 1), stride: 16, slots: int32(ops, 0) };
    expect(() => ops.shortConv(y, u, random(ops, [8, 4], 1), null, starts, slots)).toThrow(
      "state_stride is 16 floats, expected at least 24",
    );
  });
}
