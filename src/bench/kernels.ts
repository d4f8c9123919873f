// Speed of single kernels as a share of what this machine can do: a streaming read for decode shapes, multiply-adds in
// registers for the others. Every case is compared with the reference before it is timed. Prints nothing.
import { KernelError } from "../errors.ts";
import type { Ops, PackedLinear } from "../ops/ops.ts";
import { rows, type Tensor } from "../tensor/tensor.ts";
import { peakFlops } from "./machine.ts";
import { interleave } from "./measure.ts";
import { randomTensor, relativeError } from "./operands.ts";
import { measureRecurrent, type RecurrentCase, recurrentCases, recurrentFlops, recurrentName } from "./recurrent.ts";

export type WeightType = "f32" | "bf16";

export interface LinearCase {
  readonly op: "linear";
  readonly rows: number;
  readonly out: number;
  readonly in: number;
  readonly dtype: WeightType;
}

/** A product of training in float32: x[rows, in], W[out, in]. */
export interface ProductCase {
  readonly op: "matmul_nt" | "matmul_nn" | "matmul_tn";
  readonly rows: number;
  readonly out: number;
  readonly in: number;
  readonly dtype: "f32";
}

export type KernelCase = LinearCase | ProductCase | RecurrentCase;

export interface KernelFigure {
  readonly case: KernelCase;
  /** Relative error of the outputs that were compared with the reference. */
  readonly error: number;
  readonly bestSeconds: number;
  readonly medianSeconds: number;
  readonly bytesPerSecond: number;
  readonly flopsPerSecond: number;
  /** What bounds this case: reading the weights, or multiply-adds. */
  readonly bound: "read" | "multiply-add";
  /** bytes/s or FLOP/s of the limit, measured between the samples of the kernel. */
  readonly limit: number;
  readonly share: number;
}

const ERROR_LIMIT = 1e-5;
/** Rows of a large case that the reference computes; rows do not depend on each other. */
const CHECKED_ROWS = 2;

const bigShapes = [
  [4096, 4096],
  [11008, 4096],
  [4096, 11008],
] as const;
const smallShapes = [
  [352, 128],
  [128, 128],
  [2048, 1024],
] as const;

/** The cases in order: decode (1 and 8 rows), prefill (256 rows), small models, training, decode of linear attention. */
export const kernelCases: readonly KernelCase[] = [
  ...[1, 8, 256].flatMap((N) =>
    (["bf16", "f32"] as const).flatMap((dtype) => bigShapes.map(([out, inputs]) => linear(N, out, inputs, dtype))),
  ),
  ...[1, 64].flatMap((N) => smallShapes.map(([out, inputs]) => linear(N, out, inputs, "bf16"))),
  ...(["matmul_nt", "matmul_nn", "matmul_tn"] as const).flatMap((op) => [
    { op, rows: 1024, out: 128, in: 352, dtype: "f32" } as const,
    { op, rows: 1024, out: 512, in: 512, dtype: "f32" } as const,
  ]),
  ...recurrentCases,
];

function linear(N: number, out: number, inputs: number, dtype: WeightType): LinearCase {
  return { op: "linear", rows: N, out, in: inputs, dtype };
}

/** "linear 1 × [4096, 4096] bf16" */
export function caseName(one: KernelCase): string {
  if (isRecurrent(one)) return recurrentName(one);
  return `${one.op} ${one.rows} × [${one.out}, ${one.in}] ${one.dtype}`;
}

export interface KernelBenchOptions {
  /** Time per case. */
  readonly seconds: number;
  /** Bytes that no cache of this machine holds: decode weights are spread over at least as many. */
  readonly uncachedBytes: number;
}

/** Measures one case. @throws KernelError if the kernel's result is wrong. */
export function benchKernel(ops: Ops, reference: Ops, one: KernelCase, options: KernelBenchOptions): KernelFigure {
  if (isRecurrent(one)) return benchRecurrent(ops, reference, one, options);
  return one.op === "linear" ? benchLinear(ops, reference, one, options) : benchProduct(ops, reference, one, options);
}

function benchLinear(ops: Ops, reference: Ops, one: LinearCase, options: KernelBenchOptions): KernelFigure {
  const { rows: N, out, in: inputs, dtype } = one;
  const tensors: Tensor[] = [];
  const keep = (t: Tensor) => {
    tensors.push(t);
    return t;
  };
  const packed: PackedLinear[] = [];
  try {
    const [weight, x, y] = [
      keep(weightOf(ops, one)),
      keep(randomTensor(ops, [N, inputs], 2)),
      keep(ops.empty([N, out])),
    ];
    packed.push(ops.linearPack(weight));
    ops.linear(y, x, packed[0]!);
    const error = checkLinear(ops, reference, one, x, y);
    const { bytes } = packed[0]!;
    // A decoder walks through all its layers, so no weight is left in a cache when its turn comes again; small models are.
    const streamed = N <= 16 && bytes >= 1 << 22;
    if (streamed) while (packed.length * bytes < options.uncachedBytes) packed.push(ops.linearPack(weight));
    const call = (turn: number) => ops.linear(y, x, packed[turn % packed.length]!);
    const half = packed.length >> 1; // the copy that was used longest ago, or nearly
    const read = (turn: number) => {
      const copy = packed[(turn + half) % packed.length]!;
      return bytes / ops.symbols.graft_bench_read(copy.ptr as never, bytes, 1);
    };
    const multiply = (_: number, length: number) => peakFlops(ops, dtype, length);
    const timing = interleave(options.seconds, call, streamed ? read : multiply);
    return figure(one, error, timing, bytes, streamed ? "read" : "multiply-add");
  } finally {
    for (const w of packed) ops.freePacked(w);
    for (const t of tensors) ops.free(t);
  }
}

/** Compares the first rows with the reference. */
function checkLinear(ops: Ops, reference: Ops, one: LinearCase, x: Tensor, y: Tensor): number {
  const N = Math.min(one.rows, CHECKED_ROWS);
  const weight = weightOf(reference, one);
  const packed = reference.linearPack(weight);
  const [ownX, ownY] = [reference.fromArray([N, one.in], ops.toFloat32(rows(x, 0, N))), reference.empty([N, one.out])];
  try {
    reference.linear(ownY, ownX, packed);
    return checked(one, ops.toFloat32(rows(y, 0, N)), reference.toFloat32(ownY));
  } finally {
    reference.freePacked(packed);
    for (const t of [weight, ownX, ownY]) reference.free(t);
  }
}

function benchProduct(ops: Ops, reference: Ops, one: ProductCase, options: KernelBenchOptions): KernelFigure {
  const expected = runProduct(reference, one);
  const actual = runProduct(ops, one);
  try {
    const error = checked(one, ops.toFloat32(actual.result), reference.toFloat32(expected.result));
    const timing = interleave(options.seconds, actual.call, (_, length) => peakFlops(ops, "f32", length));
    return figure(one, error, timing, one.out * one.in * 4, "multiply-add");
  } finally {
    for (const t of expected.tensors) reference.free(t);
    for (const t of actual.tensors) ops.free(t);
  }
}

function benchRecurrent(ops: Ops, reference: Ops, one: RecurrentCase, { seconds }: KernelBenchOptions): KernelFigure {
  const { error, timing, bytes } = measureRecurrent(ops, reference, one, seconds);
  return figure(one, acceptable(one, error), timing, bytes, "read");
}

function isRecurrent(one: KernelCase): one is RecurrentCase {
  return one.op === "gla" || one.op === "gdn";
}

function runProduct(ops: Ops, { op, rows: N, out: M, in: K }: ProductCase) {
  const [x, y, w] = [randomTensor(ops, [N, K], 2), randomTensor(ops, [N, M], 3), randomTensor(ops, [M, K], 1)];
  const result = op === "matmul_nt" ? y : op === "matmul_nn" ? x : w;
  const call = () => {
    if (op === "matmul_nt") ops.matmulNt(y, x, w);
    else if (op === "matmul_nn") ops.matmulNn(x, y, w);
    else ops.matmulTn(w, y, x);
  };
  call();
  return { result, call, tensors: [x, y, w] };
}

function figure(
  one: KernelCase,
  error: number,
  timing: { best: number; median: number; limit: number },
  bytes: number,
  bound: KernelFigure["bound"],
): KernelFigure {
  const bytesPerSecond = bytes / timing.best;
  const flops = isRecurrent(one) ? recurrentFlops(one) : 2 * one.rows * one.out * one.in;
  const flopsPerSecond = flops / timing.best;
  return {
    case: one,
    error,
    bestSeconds: timing.best,
    medianSeconds: timing.median,
    bytesPerSecond,
    flopsPerSecond,
    bound,
    limit: timing.limit,
    share: (bound === "read" ? bytesPerSecond : flopsPerSecond) / timing.limit,
  };
}

function checked(one: KernelCase, actual: Float32Array, expected: Float32Array): number {
  return acceptable(one, relativeError(actual, expected));
}

/** @throws KernelError if the error is too large for the case. */
function acceptable(one: KernelCase, error: number): number {
  // States of two libraries may be rounded to neighbouring bfloat16 numbers.
  const limit = isRecurrent(one) && one.dtype === "bf16" ? 2 ** -7 : ERROR_LIMIT;
  if (!(error <= limit)) throw new KernelError(`Cannot time ${caseName(one)}: its relative error is ${error}`);
  return error;
}

function weightOf(ops: Ops, one: LinearCase): Tensor {
  const wide = randomTensor(ops, [one.out, one.in], 1);
  if (one.dtype === "f32") return wide;
  const narrow = ops.empty([one.out, one.in], "bf16");
  ops.convert(narrow, wide);
  ops.free(wide);
  return narrow;
}
