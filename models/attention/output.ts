// The end of every linear layer: norm per head, output gate from the layer input, output projection.
//   y = Wo concat_h( rms(o_h; o_norm) ⊙ silu((Wg x)_h) ) (+ b)
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Linear, linearBackward, linearBackwardNew, linearForward } from "../linear.ts";
import { optionalParameter, type Parameter, type ParameterSet, parameter } from "../parameters.ts";
import type { WeightLoader } from "../weights.ts";
import type { Context } from "./mixer.ts";

/** Serving form: the gate's projection of the layer input, where there is one. */
export function outputGate(weights: WeightLoader): { linear: Linear }[] {
  return weights.has("g_proj.weight") ? [{ linear: weights.linear("g_proj") }] : [];
}

/** What the training form keeps. */
export interface SavedOutput {
  readonly o: Tensor;
  readonly gate: Tensor | null;
  readonly normed: Tensor;
  readonly y: Tensor;
}

/** Training form. */
export class TrainableOutput {
  readonly #gate: Parameter | null;
  readonly #norm: Parameter;
  readonly #weight: Parameter;
  readonly #bias: Parameter | null;
  readonly #eps: number;

  constructor(params: ParameterSet, eps: number) {
    this.#gate = optionalParameter(params, "g_proj.weight");
    this.#norm = parameter(params, "o_norm.weight");
    this.#weight = parameter(params, "o_proj.weight");
    this.#bias = optionalParameter(params, "o_proj.bias");
    this.#eps = eps;
  }

  forward(ctx: Context, o: Tensor, x: Tensor): SavedOutput {
    const gate = this.#gate ? linearForward(ctx, x, this.#gate, null) : null;
    const normed = ctx.arena.alloc(o.shape);
    ctx.ops.gatedRmsNorm(normed, o, gate, this.#norm.value, this.#eps);
    return { o, gate, normed, y: linearForward(ctx, normed, this.#weight, this.#bias) };
  }

  /** Returns the gradient of o; adds to the parameters' and, where wanted, to dx. */
  backward(ctx: Context, dy: Tensor, saved: SavedOutput, x: Tensor, dx: Tensor | null): Tensor {
    const { o, gate, normed } = saved;
    const dnormed = linearBackwardNew(ctx, dy, normed, this.#weight, this.#bias);
    const dO = ctx.arena.alloc(o.shape);
    const dgate = gate ? ctx.arena.alloc(gate.shape) : null;
    ctx.ops.gatedRmsNormBackward(dO, dgate, this.#norm.grad, dnormed, o, gate, this.#norm.value, this.#eps);
    if (this.#gate && dgate) linearBackward(ctx, dgate, x, this.#gate, null, dx);
    return dO;
  }
}
