// The steps of linear attention at a model's own sizes: decoding goes through whole blocks of tokens, so that each state is
// written as often as in serving, and a prompt begins at position 0. Times nothing.
import type { LinearShape } from "../../models/attention/mixer.ts";
import { convStateFloats, linearShapeFor, linearSizes, linearWidths } from "../../models/attention/shape.ts";
import type { ModelConfig } from "../../models/config.ts";
import { GdnStruct, GlaStruct, type Ops, type StateDtype } from "../ops/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { LayerOperands } from "./layer_operands.ts";
import type { LayerCase, Round } from "./rounds.ts";

type Kind = "gla" | "gdn";

/** One row each of `rows` sequences. */
export function decodeCase(name: string, config: ModelConfig, kind: Kind, rows: number, dtype: StateDtype): LayerCase {
  const shape = linearShapeFor(config, kind);
  const matrices = numStates(shape) * shape.keyHeadDim * shape.valueHeadDim * (dtype === "f32" ? 4 : 2);
  return {
    name: `${name} ${kind} ${rows} rows, ${dtype} states`,
    variant: kind,
    bytes: rows * (matrices * (1 + 1 / shape.block) + rowBytes(shape)),
    flops: rows * flopsOf(shape),
    round: (operands) => decodeRound(operands, shape, rows, dtype, operands.copies(rows * matrices)),
  };
}

/** All rows of one prompt. */
export function promptCase(name: string, config: ModelConfig, kind: Kind, rows: number): LayerCase {
  const shape = linearShapeFor(config, kind);
  return {
    name: `${name} ${kind} ${rows} rows of a prompt`,
    variant: kind,
    bytes: rows * rowBytes(shape),
    flops: rows * flopsOf(shape),
    round: (operands) => {
      const step = new LinearStep(operands, shape, { sequences: 1, rows, dtype: "f32", copies: 1 });
      const zero = operands.ints([0]);
      return { calls: 1, run: () => step.call(zero, zero) };
    },
  };
}

function numStates(shape: LinearShape): number {
  return shape.variant === "gla" ? shape.numKeyHeads : shape.numValueHeads;
}

/** What comes in and goes out for one token. */
function rowBytes(shape: LinearShape): number {
  const { q, k, v, o } = linearWidths(shape);
  return 4 * (q + 2 * k + v + 2 * o);
}

/** Of one token: gla writes k vᵀ and reads with q; the delta rule also reads with k. */
function flopsOf(shape: LinearShape): number {
  const passes = shape.variant === "gla" ? shape.numKeyHeads + shape.numQueryHeads : 3 * shape.numValueHeads;
  return 2 * passes * shape.keyHeadDim * shape.valueHeadDim;
}

/** One block of tokens, behind a first one, of every copy. */
function decodeRound(
  operands: LayerOperands,
  shape: LinearShape,
  sequences: number,
  dtype: StateDtype,
  copies: number,
): Round {
  const { block } = shape;
  const step = new LinearStep(operands, shape, { sequences, rows: sequences, dtype, copies });
  const positions = Array.from({ length: block }, (_, i) => operands.ints(new Int32Array(sequences).fill(block + i)));
  const slots = Array.from({ length: copies }, (_, c) =>
    operands.ints(Array.from({ length: sequences }, (_, s) => c * sequences + s)),
  );
  // The first word of a slot says where it stands.
  const entries = Array.from({ length: copies * sequences }, (_, slot) => [slot * step.stride, block]).flat();
  const headers = { ...operands.ints(entries), shape: [copies * sequences, 2] };
  return {
    calls: block * copies,
    run: () => {
      operands.ops.put(step.words, headers);
      for (const startPos of positions) for (const own of slots) step.call(startPos, own);
    },
  };
}

/** A step with all it needs. */
class LinearStep {
  /** Floats of one slot. */
  readonly stride: number;
  /** All slots as integers. */
  readonly words: Tensor;
  /** Both i32 [sequences]. */
  readonly call: (startPos: Tensor, slots: Tensor) => void;

  constructor(
    operands: LayerOperands,
    shape: LinearShape,
    size: { readonly sequences: number; readonly rows: number; readonly dtype: StateDtype; readonly copies: number },
  ) {
    const { ops } = operands;
    const { sequences, rows, dtype, copies } = size;
    const convOffset = recurrentFloats(ops, shape, dtype);
    const convFloats = convStateFloats(shape);
    this.stride = convOffset + Math.ceil(convFloats / 16) * 16;
    const floats = copies * sequences * this.stride;
    // Pairs of small bfloat16 numbers are small in float32 too.
    const { ptr } = operands.random([2 * floats], 0.1, "bf16");
    this.words = { ptr, shape: [floats], dtype: "i32" };
    const recurrent: Tensor = { ptr, shape: [floats], dtype: "f32" };
    const conv: Tensor | null =
      convFloats > 0 ? { ptr: ptr + 4 * convOffset, shape: [floats - convOffset], dtype: "f32" } : null;
    const perSequence = rows / sequences;
    const seqStart = operands.ints(Array.from({ length: sequences + 1 }, (_, s) => s * perSequence));
    const { stride } = this;
    const states = (slots: Tensor) => ({ recurrent, conv, stride, slots, dtype });
    const run = stepOf(operands, shape, rows);
    this.call = (startPos, slots) => run({ seqStart, startPos }, states(slots));
  }
}

type Starts = { readonly seqStart: Tensor; readonly startPos: Tensor };
type States = Parameters<Ops["glaStep"]>[3];

function recurrentFloats(ops: Ops, shape: LinearShape, dtype: StateDtype): number {
  const sizes = linearSizes(shape);
  const { block } = shape;
  const floats =
    shape.variant === "gla" ? ops.glaStateFloats(sizes, block, dtype) : ops.gdnStateFloats(sizes, block, dtype);
  return Math.ceil(floats / 16) * 16;
}

/** The op on inputs of its own. */
function stepOf(operands: LayerOperands, shape: LinearShape, rows: number): (starts: Starts, states: States) => void {
  const { ops } = operands;
  const widths = linearWidths(shape);
  const [q, k, v] = [widths.q, widths.k, widths.v].map((width) => operands.random([rows, width])) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  const [y, gate] = [operands.zeros([rows, widths.o]), operands.random([rows, widths.o])];
  const taps = shape.convKernel;
  const conv = (channels: number) => ({ weight: operands.random([channels, taps], 0.5), bias: null });
  const layer = {
    convs: taps > 0 ? { q: conv(widths.q), k: conv(widths.k), v: conv(widths.v) } : null,
    taps,
    sizes: linearSizes(shape),
    block: shape.block,
    outputNorm: operands.ones(shape.valueHeadDim),
    normEps: shape.normEps,
  };
  if (shape.variant === "gla") {
    const z = operands.random([rows, widths.k]);
    const struct = operands.own(new GlaStruct(ops, { ...layer, gateNormalizer: shape.gateNormalizer }));
    return (starts, states) => ops.glaStep(y, { q, k, v, z, gate }, starts, states, struct);
  }
  const heads = shape.numValueHeads;
  const [za, zb] = [operands.random([rows, heads]), operands.random([rows, heads])];
  const gates = { aLog: operands.random([heads]), dtBias: operands.random([heads]), betaScale: 1 };
  const struct = operands.own(new GdnStruct(ops, { ...layer, ...gates }));
  return (starts, states) => ops.gdnStep(y, { q, k, v, za, zb, gate, kernels: null }, starts, states, struct);
}
