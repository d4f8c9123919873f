// What the tests of gla and gdn share: ragged random inputs, both training passes, and the serving form under any plan
// of calls. Rows of sequence s are seqStart[s]..seqStart[s+1]-1 of every input.
import type { LinearSizes, Ops, RecurrentSlots, StateDtype } from "../../src/ops/ops.ts";
import { type Tensor, view } from "../../src/tensor/tensor.ts";
import { guarded, randomFloats } from "./kernels.ts";
import { type Guarded, outputs } from "./op_case.ts";

export type LinearVariant = "gla" | "gdn";

interface HostTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Inputs of one op over ragged sequences, in host memory. `names` in the op's order: q, k, v, then the gates. */
export interface LinearCase {
  readonly variant: LinearVariant;
  readonly sizes: LinearSizes;
  readonly seqStart: readonly number[];
  readonly inputs: Readonly<Record<string, HostTensor>>;
  readonly initialState: Float32Array | null;
  /** Of the serving form's slots; default f32. */
  readonly stateDtype?: StateDtype;
}

/** Query-side heads of o, and heads of the state. */
export const outputHeads = (c: { variant: LinearVariant; sizes: LinearSizes }) =>
  c.variant === "gla" ? c.sizes.numQueryHeads : c.sizes.numValueHeads;
export const stateHeads = (c: { variant: LinearVariant; sizes: LinearSizes }) =>
  c.variant === "gla" ? c.sizes.numKeyHeads : c.sizes.numValueHeads;

/** Shapes of the inputs for N rows. */
export function inputShapes(variant: LinearVariant, sizes: LinearSizes, N: number): Record<string, number[]> {
  const { numQueryHeads: Hq, numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
  if (variant === "gla") return { q: [N, Hq, Dk], k: [N, Hk, Dk], v: [N, Hk, Dv], a: [N, Hk, Dk] };
  return { q: [N, Hk, Dk], k: [N, Hk, Dk], v: [N, Hv, Dv], g: [N, Hv], beta: [N, Hv] };
}

function normaliseRows(data: Float32Array, width: number): void {
  for (let i = 0; i < data.length; i += width) {
    let sum = 1e-6;
    for (let j = i; j < i + width; j++) sum += data[j]! ** 2;
    for (let j = i; j < i + width; j++) data[j] = data[j]! / Math.sqrt(sum);
  }
}

/** Log decays: mostly mild, one in eight strong, one in thirty-two so strong that e^x is nothing. */
function logDecays(count: number, seed: number): Float32Array {
  return randomFloats(count, seed).map((x, i) => {
    const strength = i % 32 === 5 ? 300 : i % 8 === 3 ? 4 : 0.15;
    return -Math.abs(x) * strength;
  });
}

/** Random inputs for sequences of the given lengths. */
export function linearCase(
  variant: LinearVariant,
  sizes: LinearSizes,
  lengths: readonly number[],
  options: { seed?: number; initial?: boolean } = {},
): LinearCase {
  const seqStart = [0];
  for (const length of lengths) seqStart.push(seqStart.at(-1)! + length);
  const shapes = inputShapes(variant, sizes, seqStart.at(-1)!);
  const inputs: Record<string, HostTensor> = {};
  let seed = options.seed ?? 1;
  for (const name in shapes) {
    const shape = shapes[name]!;
    const count = shape.reduce((a, b) => a * b, 1);
    const gate = name === "a" || name === "g";
    const data = gate ? logDecays(count, seed++) : randomFloats(count, seed++);
    if (variant === "gdn" && (name === "q" || name === "k")) normaliseRows(data, sizes.keyDim);
    if (name === "beta") for (let i = 0; i < count; i++) data[i] = (data[i]! + 1) / 2;
    inputs[name] = { shape, data };
  }
  const heads = variant === "gla" ? sizes.numKeyHeads : sizes.numValueHeads;
  const stateCount = lengths.length * heads * sizes.keyDim * sizes.valueDim;
  return { variant, sizes, seqStart, inputs, initialState: options.initial ? randomFloats(stateCount, seed) : null };
}

const int32 = (ops: Ops, values: readonly number[]) => ops.fromArray([values.length], Int32Array.from(values));

function onDevice(ops: Ops, c: LinearCase): Record<string, Tensor> {
  const out: Record<string, Tensor> = {};
  for (const name in c.inputs) out[name] = ops.fromArray(c.inputs[name]!.shape, c.inputs[name]!.data);
  return out;
}

export interface Upstream {
  readonly dO: Float32Array;
  readonly dFinal: Float32Array | null;
}

export type Results = Record<string, Float32Array>;

/** o and finalState of the training form; with `upstream` also the gradient of every input (and initialState). */
export function train(ops: Ops, c: LinearCase, upstream?: Upstream): Results {
  const { sizes, variant, seqStart } = c;
  const [N, S] = [seqStart.at(-1)!, seqStart.length - 1];
  const stateShape = [S, stateHeads(c), sizes.keyDim, sizes.valueDim];
  const x = onDevice(ops, c);
  const starts = int32(ops, seqStart);
  const initialState = c.initialState ? ops.fromArray(stateShape, c.initialState) : null;
  const out = outputs(ops, { o: [N, outputHeads(c), sizes.valueDim], finalState: stateShape });
  const floats = variant === "gla" ? ops.glaTrainFloats(N, S, sizes) : ops.gdnTrainFloats(N, S, sizes);
  const workspace = guarded(ops, [Math.ceil(floats)]);
  const forward = { o: out.o, finalState: out.finalState, workspace };
  if (variant === "gla") ops.glaTrain(forward, { ...(x as GlaTensors), initialState }, starts, sizes);
  else ops.gdnTrain(forward, { ...(x as GdnTensors), initialState }, starts, sizes);
  const results: Results = out.read();
  if (upstream) {
    const dO = ops.fromArray(out.o.shape, upstream.dO);
    const dFinal = upstream.dFinal ? ops.fromArray(stateShape, upstream.dFinal) : null;
    Object.assign(results, backward(ops, c, { dO, dFinal }, { x, initialState, workspace }, starts, stateShape));
  }
  workspace.check();
  return results;
}

type GlaTensors = Record<"q" | "k" | "v" | "a", Tensor>;
type GdnTensors = Record<"q" | "k" | "v" | "g" | "beta", Tensor>;

function backward(
  ops: Ops,
  c: LinearCase,
  upstream: { dO: Tensor; dFinal: Tensor | null },
  saved: { x: Record<string, Tensor>; initialState: Tensor | null; workspace: Tensor },
  seqStart: Tensor,
  stateShape: readonly number[],
): Results {
  const shapes: Record<string, readonly number[]> = { dInitial: stateShape };
  for (const name in saved.x) shapes[`d${name}`] = saved.x[name]!.shape;
  const grads = outputs(ops, shapes) as unknown as Record<string, Guarded> & { read(): Results };
  const all = { ...saved.x, initialState: saved.initialState, workspace: saved.workspace };
  const targets = grads as unknown as Parameters<Ops["glaBackward"]>[0] & Parameters<Ops["gdnBackward"]>[0];
  if (c.variant === "gla")
    ops.glaBackward(targets, upstream, all as Parameters<Ops["glaBackward"]>[2], seqStart, c.sizes);
  else ops.gdnBackward(targets, upstream, all as Parameters<Ops["gdnBackward"]>[2], seqStart, c.sizes);
  return grads.read();
}

/** One call of the serving form: how many further rows of which sequences. */
export type Plan = readonly (readonly { readonly seq: number; readonly count: number }[])[];

/** Every sequence alone, in pieces of `size` rows. */
export function pieces(c: LinearCase, size: number): Plan {
  return c.seqStart.slice(1).flatMap((end, seq) => {
    const length = end - c.seqStart[seq]!;
    return Array.from({ length: Math.ceil(length / size) }, (_, i) => [
      { seq, count: Math.min(size, length - i * size) },
    ]);
  });
}

/** All sequences side by side, in pieces of `size` rows. */
export function together(c: LinearCase, size: number): Plan {
  const alone = c.seqStart.slice(1).map((end, seq) => ({ seq, length: end - c.seqStart[seq]! }));
  const rounds = Math.max(...alone.map(({ length }) => Math.ceil(length / size)));
  return Array.from({ length: rounds }, (_, i) =>
    alone
      .filter(({ length }) => length > i * size)
      .map(({ seq, length }) => ({ seq, count: Math.min(size, length - i * size) })),
  );
}

export interface Served {
  /** Rows of every sequence, in the order of the inputs. */
  readonly o: Float32Array;
  /** Bytes of every sequence's slot at the end. */
  readonly slots: Float32Array;
  /** The recurrent state of a sequence, at its position now. */
  state(seq: number): Float32Array;
}

/** Runs the serving form. Slots start as NaN and lie in reverse order of the sequences. */
export function serve(
  ops: Ops,
  c: LinearCase,
  block: number,
  plan: Plan,
  onCall: (positions: readonly number[], served: Served) => void = () => {},
): Served {
  const { sizes, variant, stateDtype: dtype = "f32" } = c;
  const S = c.seqStart.length - 1;
  const stride = variant === "gla" ? ops.glaStateFloats(sizes, block, dtype) : ops.gdnStateFloats(sizes, block, dtype);
  const state = guarded(ops, [S, stride]);
  const width = outputHeads(c) * sizes.valueDim;
  const o = new Float32Array(c.seqStart.at(-1)! * width);
  const positions = new Array<number>(S).fill(0);
  const slotOf = (seq: number) => S - 1 - seq;
  const served: Served = {
    o,
    get slots() {
      return ops.toFloat32({ ...state, dtype: "f32" });
    },
    state(seq) {
      const recurrent = guarded(ops, [stateHeads(c), sizes.keyDim, sizes.valueDim]);
      const slot = { state: view(state, slotOf(seq) * stride, [stride]), block, dtype };
      if (variant === "gla") ops.glaStateRead(recurrent, slot, sizes, positions[seq]!);
      else ops.gdnStateRead(recurrent, slot, sizes, positions[seq]!);
      recurrent.check();
      return ops.toFloat32(recurrent);
    },
  };
  for (const call of plan) {
    const first = call.map(({ seq }) => c.seqStart[seq]! + positions[seq]!);
    const slots = {
      state,
      stride,
      dtype,
      slots: int32(
        ops,
        call.map(({ seq }) => slotOf(seq)),
      ),
    };
    const part = runCall(
      ops,
      c,
      call,
      first,
      call.map(({ seq }) => positions[seq]!),
      slots,
      block,
    );
    let at = 0;
    call.forEach(({ seq, count }, i) => {
      o.set(part.subarray(at * width, (at + count) * width), first[i]! * width);
      at += count;
      positions[seq] = positions[seq]! + count;
    });
    state.check();
    onCall(positions, served);
  }
  return served;
}

function runCall(
  ops: Ops,
  c: LinearCase,
  call: Plan[number],
  first: readonly number[],
  startPos: readonly number[],
  slots: RecurrentSlots,
  block: number,
): Float32Array {
  const N = call.reduce((sum, { count }) => sum + count, 0);
  const seqStart = [0];
  for (const { count } of call) seqStart.push(seqStart.at(-1)! + count);
  const x: Record<string, Tensor> = {};
  for (const name in c.inputs) {
    const { shape, data } = c.inputs[name]!;
    const inner = shape.slice(1).reduce((a, b) => a * b, 1);
    const part = new Float32Array(N * inner);
    call.forEach(({ count }, i) => {
      part.set(data.subarray(first[i]! * inner, (first[i]! + count) * inner), seqStart[i]! * inner);
    });
    x[name] = ops.fromArray([N, ...shape.slice(1)], part);
  }
  const o = guarded(ops, [N, outputHeads(c), c.sizes.valueDim]);
  const [starts, from] = [int32(ops, seqStart), int32(ops, startPos)];
  if (c.variant === "gla") {
    const { q, k, v, a } = x as GlaTensors;
    ops.gla(o, q, k, v, a, starts, from, slots, c.sizes, block);
  } else {
    const { q, k, v, g, beta } = x as GdnTensors;
    ops.gdn(o, q, k, v, g, beta, starts, from, slots, c.sizes, block);
  }
  o.check();
  const values = ops.toFloat32(o);
  for (const t of [...Object.values(x), o, starts, from, slots.slots]) ops.free(t);
  return values;
}

/** Rows first..first+count-1 of a case as a case of one sequence. */
export function prefix(c: LinearCase, seq: number, count: number): LinearCase {
  const inputs: Record<string, HostTensor> = {};
  for (const name in c.inputs) {
    const { shape, data } = c.inputs[name]!;
    const inner = shape.slice(1).reduce((a, b) => a * b, 1);
    const first = c.seqStart[seq]! * inner;
    inputs[name] = { shape: [count, ...shape.slice(1)], data: data.slice(first, first + count * inner) };
  }
  return { ...c, seqStart: [0, count], inputs, initialState: null };
}
