// q, k and v of gla and gdn: projection, then, where the layer has one, a short causal convolution with silu
// (layers.md section 5). A sequence's convolution region holds the states of q, k and v in this order, [W-1, channels] each.
import type { Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Linear, linearBackward, linearForward } from "../linear.ts";
import { optionalParameter, type Parameter, type ParameterSet, parameter } from "../parameters.ts";
import type { WeightLoader } from "../weights.ts";
import type { Context, LinearShape, MixerBatch, RaggedRows } from "./mixer.ts";
import { convSlots } from "./state.ts";

const NAMES = ["q", "k", "v"] as const;
type Name = (typeof NAMES)[number];

/** q, k, v: [N, heads * head size]. */
export type Qkv = Readonly<Record<Name, Tensor>>;

interface Conv {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
}

/** Serving form. */
export class ConvolvedProjections {
  readonly #projections: Readonly<Record<Name, Linear>>;
  readonly #convs: Readonly<Record<Name, Conv>> | null;
  readonly #taps: number;

  constructor(weights: WeightLoader, shape: LinearShape) {
    const conv = (name: Name): Conv => ({
      weight: weights.vector(`${name}_conv1d.weight`),
      bias: shape.convBias ? weights.vector(`${name}_conv1d.bias`) : null,
    });
    this.#projections = { q: weights.linear("q_proj"), k: weights.linear("k_proj"), v: weights.linear("v_proj") };
    this.#taps = shape.convKernel;
    this.#convs = shape.convKernel > 0 ? { q: conv("q"), k: conv("k"), v: conv("v") } : null;
  }

  /** Advances the convolution states. */
  apply(ctx: Context, x: Tensor, batch: MixerBatch): Qkv {
    let offset = 0;
    const one = (name: Name): Tensor => {
      const u = this.#projections[name].apply(ctx, x);
      const conv = this.#convs?.[name];
      if (!conv) return u;
      const y = ctx.arena.alloc(u.shape);
      ctx.ops.shortConv(y, u, conv.weight, conv.bias, batch.seqStart, convSlots(batch, offset));
      offset += (this.#taps - 1) * u.shape[1]!;
      return y;
    };
    return { q: one("q"), k: one("k"), v: one("v") };
  }

  bytes(): number {
    return NAMES.reduce((sum, name) => sum + this.#projections[name].bytes(), 0);
  }

  free(ops: Ops): void {
    for (const name of NAMES) {
      this.#projections[name].free(ops);
      const conv = this.#convs?.[name];
      if (conv) ops.free(conv.weight);
      if (conv?.bias) ops.free(conv.bias);
    }
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
