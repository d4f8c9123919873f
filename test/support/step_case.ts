// What the tests of gla_step and gdn_step share: a layer with random weights, ragged random rows, and the step run under
// any plan of calls. Rows of sequence s are seqStart[s]..seqStart[s+1]-1 of every input.
import {
  type ConvWeights,
  GdnStruct,
  GlaStruct,
  type LinearSizes,
  type Ops,
  type StateDtype,
} from "../../src/ops/ops.ts";
import { type Tensor, view } from "../../src/tensor/tensor.ts";
import { guarded, randomFloats } from "./kernels.ts";
import type { Plan } from "./linear_case.ts";

/** One layer and its sequences. */
export interface StepCase {
  readonly variant: "gla" | "gdn" | "jet";
  readonly sizes: LinearSizes;
  readonly lengths: readonly number[];
  /** Taps of the convolutions; 0: none (not for jet). */
  readonly taps: number;
  readonly convBias?: boolean;
  readonly gate: boolean;
  readonly block: number;
  readonly stateDtype: StateDtype;
}

/** Channels of the convolutions' windows, in the order in which they lie. */
function windowChannels({ variant, sizes, taps }: StepCase): number[] {
  const { numQueryHeads: Hq, numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
  if (taps === 0) return [];
  if (variant === "jet") return [Hv * Dv];
  return [(variant === "gla" ? Hq : Hk) * Dk, Hk * Dk, Hv * Dv];
}

/** Width of each input's rows. */
function widths(c: StepCase): Record<string, number> {
  const { numQueryHeads: Hq, numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = c.sizes;
  const gate: Record<string, number> = c.gate ? { gate: (c.variant === "gla" ? Hq : Hv) * Dv } : {};
  const qkv = { q: (c.variant === "gla" ? Hq : Hk) * Dk, k: Hk * Dk, v: Hv * Dv };
  if (c.variant === "gla") return { ...qkv, z: Hk * Dk, ...gate };
  const kernels: Record<string, number> = c.variant === "jet" ? { kernels: Hv * Dv * c.taps } : {};
  return { ...qkv, za: Hv, zb: Hv, ...kernels, ...gate };
}

function describe(ops: Ops, c: StepCase): GlaStruct | GdnStruct {
  const { sizes } = c;
  const floats = (count: number, seed: number, offset = 0) =>
    ops.fromArray(
      [count],
      randomFloats(count, seed).map((x) => x + offset),
    );
  const conv = (channels: number, seed: number): ConvWeights => ({
    weight: ops.fromArray([channels, c.taps], randomFloats(channels * c.taps, seed)),
    bias: c.convBias ? floats(channels, seed + 1) : null,
  });
  const [q, k, v] = windowChannels(c);
  const shared = {
    convs: c.taps > 0 && c.variant !== "jet" ? { q: conv(q!, 50), k: conv(k!, 52), v: conv(v!, 54) } : null,
    taps: c.taps,
    sizes,
    block: c.block,
    outputNorm: floats(sizes.valueDim, 56, 1.5),
    normEps: 1e-5,
  };
  if (c.variant === "gla") return new GlaStruct(ops, { ...shared, gateNormalizer: 4 });
  const heads = sizes.numValueHeads;
  return new GdnStruct(ops, { ...shared, aLog: floats(heads, 57, -1), dtBias: floats(heads, 58), betaScale: 2 });
}

/** What a plan of calls left. */
export interface Stepped {
  /** Rows of every sequence, in the order of the inputs. */
  readonly y: Float32Array;
  /** The recurrent state of each sequence, then its windows. */
  readonly states: readonly Float32Array[];
}

/** Runs the step. Recurrent states start as NaN, windows as zeros; slots lie in reverse order of the sequences. */
export function step(ops: Ops, c: StepCase, plan: Plan): Stepped {
  const { sizes, block, stateDtype: dtype, lengths } = c;
  const S = lengths.length;
  const gla = c.variant === "gla";
  const recurrent = gla ? ops.glaStateFloats(sizes, block, dtype) : ops.gdnStateFloats(sizes, block, dtype);
  const windows = windowChannels(c).reduce((sum, channels) => sum + (c.taps - 1) * channels, 0);
  const stride = Math.ceil((recurrent + windows) / 16) * 16;
  const zeros = new Float32Array(S * stride).fill(Number.NaN);
  for (let s = 0; s < S; s++) zeros.fill(0, s * stride + recurrent, s * stride + recurrent + windows);
  const memory = ops.fromArray([S * stride], zeros);
  const starts = lengths.map((_, s) => lengths.slice(0, s).reduce((a, b) => a + b, 0));
  const N = lengths.reduce((a, b) => a + b, 0);
  const inputs = Object.entries(widths(c)).map(([name, width], i) => {
    return { name, width, data: randomFloats(N * width, i + 1) };
  });
  const layer = describe(ops, c);
  const width = (gla ? sizes.numQueryHeads : sizes.numValueHeads) * sizes.valueDim;
  const y = new Float32Array(N * width);
  const done = new Array<number>(S).fill(0);
  for (const call of plan) {
    const rows = call.flatMap(({ seq, count }) =>
      Array.from({ length: count }, (_, i) => starts[seq]! + done[seq]! + i),
    );
    const ints = (values: number[]) => ops.fromArray([values.length], Int32Array.from(values));
    const seqStart = [0];
    for (const { count } of call) seqStart.push(seqStart.at(-1)! + count);
    const batch = { seqStart: ints(seqStart), startPos: ints(call.map(({ seq }) => done[seq]!)) };
    const x = { gate: null, kernels: null } as Record<string, Tensor | null>;
    for (const input of inputs) {
      const part = new Float32Array(rows.length * input.width);
      rows.forEach((row, i) => {
        part.set(input.data.subarray(row * input.width, (row + 1) * input.width), i * input.width);
      });
      x[input.name] = ops.fromArray([rows.length, input.width], part);
    }
    const slots = ints(call.map(({ seq }) => S - 1 - seq));
    const conv = windows > 0 ? view(memory, recurrent, [S * stride - recurrent]) : null;
    const states = { recurrent: memory, conv, stride, slots, dtype };
    const out = guarded(ops, [rows.length, width]);
    if (gla) ops.glaStep(out, x as Parameters<Ops["glaStep"]>[1], batch, states, layer as GlaStruct);
    else ops.gdnStep(out, x as Parameters<Ops["gdnStep"]>[1], batch, states, layer as GdnStruct);
    out.check();
    const part = ops.toFloat32(out);
    rows.forEach((row, i) => {
      y.set(part.subarray(i * width, (i + 1) * width), row * width);
    });
    for (const { seq, count } of call) done[seq] = done[seq]! + count;
    for (const t of [out, slots, batch.seqStart, batch.startPos, ...Object.values(x)]) if (t) ops.free(t);
  }
  const heads = gla ? sizes.numKeyHeads : sizes.numValueHeads;
  const states = lengths.map((_, s) => {
    const from = (S - 1 - s) * stride;
    const state = guarded(ops, [heads, sizes.keyDim, sizes.valueDim]);
    const slot = { state: view(memory, from, [recurrent]), block, dtype };
    if (gla) ops.glaStateRead(state, slot, sizes, done[s]!);
    else ops.gdnStateRead(state, slot, sizes, done[s]!);
    state.check();
    const kept = ops.toFloat32(view(memory, from + recurrent, [windows]));
    return Float32Array.of(...ops.toFloat32(state), ...(windows > 0 ? kept : []));
  });
  layer.free();
  return { y, states };
}
