// Every golden layer, on every kernel library of this machine: training form (forward, all gradients), serving form whole,
// continued from its state as a chunk and token by token, and the states themselves.
import { describe, expect, test } from "bun:test";
import type { TokenMixer, TrainableMixer, Variant } from "../../models/attention/mixer.ts";
import type { SavedFull } from "../../models/attention/train_full.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { Arena } from "../../src/tensor/arena.ts";
import { type Golden, goldenDir, goldenFiles, relativeError } from "../support/golden.ts";
import { GoldenAttention, goldenLinear, goldenShape, goldenTrainableLinear } from "../support/golden_layers.ts";
import { forwardLibraries, isas, opsOf } from "../support/kernels.ts";
import { createRows } from "../support/rows.ts";
import { MixerHost, type Segment } from "../support/run_mixer.ts";

/** Largest relative errors of the golden README: forward and states, gradients. */
const LIMITS = {
  attn_layer: [5e-5, 1e-4],
  gpt2_attn_layer: [5e-5, 1e-4],
  gla_layer: [5e-5, 3e-4],
  gdn_layer: [5e-5, 2e-4],
  jet_layer: [5e-5, 3e-4],
} as const;
type Kind = keyof typeof LIMITS;
/** Of a bf16 state against double precision: numbers of 8 bits, rounded once per block of tokens. */
const BF16_STATE_LIMIT = 1e-2;
/** Of keys and values kept in bf16, likewise. */
const BF16_KV_LIMIT = 1e-2;

const VARIANTS: Partial<Record<Kind, Variant>> = { gla_layer: "gla", gdn_layer: "gdn", jet_layer: "jet" };

interface Sizes {
  readonly B: number;
  readonly T: number;
  readonly C: number;
  readonly extra: number;
}

function sizesOf(golden: Golden): Sizes {
  const [B, T, C] = golden.shape("input.hidden_states") as [number, number, number];
  const extra = golden.shape("continuation.input.hidden_states")[1]!;
  return { B, T, C, extra };
}

function compare(actual: Float32Array, golden: Golden, name: string, limit: number): void {
  const error = relativeError(actual, golden.f32(name));
  if (!(error <= limit)) throw new Error(`${golden.name} ${name}: relative error ${error}, limit ${limit}`);
}

function training(ops: Ops, golden: Golden, mixer: TrainableMixer, forward: number, grads: number): void {
  const { B, T, C } = sizesOf(golden);
  const ctx = { ops, arena: new Arena(ops) };
  const rows = createRows(
    ops,
    Array.from({ length: B + 1 }, (_, s) => s * T),
  );
  const x = ops.fromArray([B * T, C], golden.f32("input.hidden_states"));
  const dy = ops.fromArray([B * T, C], golden.f32("upstream.hidden_states"));
  const dx = ops.empty([B * T, C]);
  const saved = mixer.forward(ctx, x, rows);
  compare(ops.toFloat32(saved.y), golden, "output.hidden_states", forward);
  if (golden.has("state.k_cache")) {
    const { k, v } = saved as SavedFull;
    compare(ops.toFloat32(k), golden, "state.k_cache", forward);
    compare(ops.toFloat32(v), golden, "state.v_cache", forward);
  }
  mixer.backward(ctx, dy, saved, dx);
  compare(ops.toFloat32(dx), golden, "grad.input.hidden_states", grads);
  for (const name of mixer.params.names()) compare(mixer.params.readGrad(name), golden, `grad.param.${name}`, grads);
  const withDx = mixer.params.names().map((name) => mixer.params.readGrad(name));
  mixer.params.zeroGrads();
  mixer.backward(ctx, dy, mixer.forward(ctx, x, rows), null);
  expect(mixer.params.names().map((name) => mixer.params.readGrad(name))).toEqual(withDx);
  mixer.params.free();
  ctx.arena.close();
  for (const t of [x, dy, dx, rows.seqStart, rows.positions]) ops.free(t);
}

/** [B, T, C] values of one step t as rows. */
function column(values: Float32Array, B: number, T: number, C: number, t: number): Float32Array {
  const out = new Float32Array(B * C);
  for (let b = 0; b < B; b++) out.set(values.subarray((b * T + t) * C, (b * T + t + 1) * C), b * C);
  return out;
}

function serving(ops: Ops, golden: Golden, mixer: TokenMixer, limit: number): void {
  const { B, T, C, extra } = sizesOf(golden);
  const options = { sequences: B, maxTokens: T + extra };
  const segments = (start: number, count: number): Segment[] =>
    Array.from({ length: B }, (_, sequence) => ({ sequence, start, count }));
  const input = golden.f32("input.hidden_states");
  const next = golden.f32("continuation.input.hidden_states");
  const whole = new MixerHost(ops, mixer, options);
  compare(whole.run(input, C, segments(0, T)), golden, "output.hidden_states", limit);
  if (mixer.kind !== "full_attention") compareStates(whole, golden, "state.", T, limit);
  const chunk = whole.run(next, C, segments(T, extra));
  compare(chunk, golden, "continuation.output.hidden_states", limit);
  if (mixer.kind !== "full_attention") compareStates(whole, golden, "continuation.state.", T + extra, limit);
  const single = new MixerHost(ops, mixer, options);
  for (let t = 0; t < T + extra; t++) {
    const [values, length, at] = t < T ? [input, T, t] : [next, extra, t - T];
    const y = single.run(column(values, B, length, C, at), C, segments(t, 1));
    if (t >= T) expect(y).toEqual(column(chunk, B, extra, C, t - T));
  }
  if (mixer.kind !== "full_attention") {
    const narrow = new MixerHost(ops, mixer, { ...options, stateDtype: "bf16" });
    compare(narrow.run(input, C, segments(0, T)), golden, "output.hidden_states", BF16_STATE_LIMIT);
    compare(narrow.run(next, C, segments(T, extra)), golden, "continuation.output.hidden_states", BF16_STATE_LIMIT);
    compareStates(narrow, golden, "continuation.state.", T + extra, BF16_STATE_LIMIT);
    narrow.close();
  }
  if (mixer.kind === "full_attention") {
    const narrow = new MixerHost(ops, mixer, { ...options, kvDtype: "bf16" });
    compare(narrow.run(input, C, segments(0, T)), golden, "output.hidden_states", BF16_KV_LIMIT);
    compare(narrow.run(next, C, segments(T, extra)), golden, "continuation.output.hidden_states", BF16_KV_LIMIT);
    narrow.close();
  }
  for (const host of [whole, single]) host.close();
  mixer.free();
}

/** Recurrent state, and the last W-1 of the golden file's W convolution inputs. */
function compareStates(host: MixerHost, golden: Golden, prefix: string, position: number, limit: number): void {
  const [B = 1] = golden.shape(`${prefix}recurrent`);
  const recurrent = Array.from({ length: B }, (_, s) => [...host.recurrent(s, position)]).flat();
  compare(Float32Array.from(recurrent), golden, `${prefix}recurrent`, limit);
  const names = ["conv_q", "conv_k", "conv_v"].map((name) => prefix + name).filter((name) => golden.has(name));
  if (names.length === 0) return;
  for (let s = 0; s < B; s++) {
    const expected = names.flatMap((name) => {
      const [, channels, W] = golden.shape(name) as [number, number, number];
      const values = golden.f32(name).subarray(s * channels * W, (s + 1) * channels * W);
      return Array.from({ length: (W - 1) * channels }, (_, i) => {
        const [row, c] = [Math.floor(i / channels), i % channels];
        return values[c * W + row + 1]!;
      });
    });
    const error = relativeError(host.conv(s), Float32Array.from(expected));
    if (!(error <= limit)) throw new Error(`${golden.name} ${prefix}conv: relative error ${error}, limit ${limit}`);
  }
}

const files = goldenFiles(...Object.keys(LIMITS));
if (files.length === 0) console.log(`skipped: no golden layers in ${goldenDir}`);

for (const isa of isas) {
  describe(`golden layers on ${isa}`, () => {
    for (const golden of files) {
      const kind = golden.kind as Kind;
      const [forward, grads] = LIMITS[kind];
      const variant = VARIANTS[kind];
      test(`${golden.name} training form on ${isa}`, async () => {
        const ops = await opsOf(isa);
        const mixer = variant
          ? goldenTrainableLinear(ops, golden, variant)
          : new GoldenAttention(ops, golden).training();
        expect(mixer.params.names().length).toBe(golden.names("grad.param.").length);
        training(ops, golden, mixer, forward, grads);
      });
    }
  });
}

for (const library of forwardLibraries) {
  describe(`golden layers on ${library}`, () => {
    for (const golden of files) {
      const kind = golden.kind as Kind;
      const variant = VARIANTS[kind];
      test(`${golden.name} serving form on ${library}`, async () => {
        const ops = await opsOf(library);
        const mixer = variant ? goldenLinear(ops, golden, variant) : new GoldenAttention(ops, golden).serving();
        if (variant) expect(goldenShape(golden, variant).variant).toBe(variant);
        serving(ops, golden, mixer, LIMITS[kind][0]);
      });
    }
  });
}
