// q, k and v of gla and gdn: projection, then, where the layer has one, a short causal convolution with silu
// (layers.md section 5). A sequence's convolution region holds the states of q, k and v in this order, [W-1, channels] each.
import type { ConvWeights, Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { linearBackward, linearForward } from "../linear.ts";
import { optionalParameter, type Parameter, type ParameterSet, parameter } from "../parameters.ts";
import type { WeightLoader } from "../weights.ts";
import type { Context, LinearShape, RaggedRows } from "./mixer.ts";

const NAMES = ["q", "k", "v"] as const;
type Name = (typeof NAMES)[number];

/** q, k, v: [N, heads * head size]. */
export type Qkv = Readonly<Record<Name, Tensor>>;

/** Short convolutions of q, k and v, serving form. */
export type Convs = Readonly<Record<Name, ConvWeights>>;

/** null where the layer has none. */
export function loadConvs(weights: WeightLoader, shape: LinearShape): Convs | null {
  if (shape.convKernel === 0) return null;
  const conv = (name: Name): ConvWeights => ({
    weight: weights.vector(`${name}_conv1d.weight`),
    bias: shape.convBias ? weights.vector(`${name}_conv1d.bias`) : null,
  });
  return { q: conv("q"), k: conv("k"), v: conv("v") };
}

export function freeConvs(ops: Ops, convs: Convs | null): void {
  if (convs === null) return;
  for (const name of NAMES) {
    ops.free(convs[name].weight);
    if (convs[name].bias) ops.free(convs[name].bias);
  }
}

interface TrainablePart {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
  readonly conv: Parameter | null;
  readonly convBias: Parameter | null;
}

/** Projections and results of the training form; the same tensors where there is no convolution. */
export interface SavedQkv {
  readonly projected: Qkv;
  readonly result: Qkv;
}

/** Training form. */
export class TrainableProjections {
  readonly #parts: Readonly<Record<Name, TrainablePart>>;

  constructor(params: ParameterSet) {
    const part = (name: Name): TrainablePart => ({
      weight: parameter(params, `${name}_proj.weight`),
      bias: optionalParameter(params, `${name}_proj.bias`),
      conv: optionalParameter(params, `${name}_conv1d.weight`),
      convBias: optionalParameter(params, `${name}_conv1d.bias`),
    });
    this.#parts = { q: part("q"), k: part("k"), v: part("v") };
  }

  /** Whether there are convolutions, and with them a silu. */
  get convolved(): boolean {
    return this.#parts.q.conv !== null;
  }

  forward(ctx: Context, x: Tensor, rows: RaggedRows): SavedQkv {
    const project = ({ weight, bias }: TrainablePart) => linearForward(ctx, x, weight, bias);
    const projected = { q: project(this.#parts.q), k: project(this.#parts.k), v: project(this.#parts.v) };
    const convolve = (name: Name): Tensor => {
      const { conv, convBias } = this.#parts[name];
      if (!conv) return projected[name];
      const y = ctx.arena.alloc(projected[name].shape);
      ctx.ops.shortConv(y, projected[name], conv.value, convBias?.value ?? null, rows.seqStart, null);
      return y;
    };
    return { projected, result: { q: convolve("q"), k: convolve("k"), v: convolve("v") } };
  }

  backward(ctx: Context, grads: Qkv, saved: SavedQkv, x: Tensor, rows: RaggedRows, dx: Tensor | null): void {
    for (const name of NAMES) {
      const { weight, bias, conv, convBias } = this.#parts[name];
      let du = grads[name];
      if (conv) {
        const u = saved.projected[name];
        du = ctx.arena.alloc(u.shape);
        const biases = [convBias?.grad ?? null, convBias?.value ?? null] as const;
        ctx.ops.shortConvBackward(du, conv.grad, biases[0], grads[name], u, conv.value, biases[1], rows.seqStart);
      }
      linearBackward(ctx, du, x, weight, bias, dx);
    }
  }
}
