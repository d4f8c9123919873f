// JetBlock, training form (layers.md sections 4 and 9); the serving form is jet.ts.
import type { Tensor } from "../../src/tensor/tensor.ts";
import { linearBackward, linearBackwardNew, linearForward } from "../linear.ts";
import { optionalParameter, type Parameter, type ParameterSet, parameter } from "../parameters.ts";
import { type SavedDelta, TrainableDeltaRule } from "./delta.ts";
import type { Context, LinearShape, RaggedRows, Saved, TrainableMixer } from "./mixer.ts";

interface Projection {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
}

/** What the backward pass needs: inputs of every activation and product. */
export interface SavedJet extends Saved {
  readonly x: Tensor;
  readonly rows: RaggedRows;
  readonly qRaw: Tensor;
  readonly kRaw: Tensor;
  /** v before the convolution. */
  readonly u: Tensor;
  readonly hiddenRaw: Tensor;
  readonly hidden: Tensor;
  readonly kernels: Tensor;
  readonly delta: SavedDelta;
}

/** Training form of one JetBlock layer. */
export class TrainableJet implements TrainableMixer<SavedJet> {
  readonly params: ParameterSet;
  readonly #q: Projection;
  readonly #k: Projection;
  readonly #v: Projection;
  readonly #w1: Parameter;
  readonly #w2: Parameter;
  readonly #b2: Parameter;
  readonly #rule: TrainableDeltaRule;

  constructor(params: ParameterSet, shape: LinearShape) {
    const projection = (name: string) => ({
      weight: parameter(params, `${name}_proj.weight`),
      bias: optionalParameter(params, `${name}_proj.bias`),
    });
    this.params = params;
    this.#q = projection("q");
    this.#k = projection("k");
    this.#v = projection("v");
    this.#w1 = parameter(params, "dynamic_conv1d.kernel_generator.w1.weight");
    this.#w2 = parameter(params, "dynamic_conv1d.kernel_generator.w2.weight");
    this.#b2 = parameter(params, "dynamic_conv1d.kernel_generator.w2.bias");
    this.#rule = new TrainableDeltaRule(params, shape);
  }

  forward(ctx: Context, x: Tensor, rows: RaggedRows): SavedJet {
    const qRaw = linearForward(ctx, x, this.#q.weight, this.#q.bias);
    const kRaw = linearForward(ctx, x, this.#k.weight, this.#k.bias);
    const u = linearForward(ctx, x, this.#v.weight, this.#v.bias);
    const hiddenRaw = linearForward(ctx, x, this.#w1, null);
    const hidden = silu(ctx, hiddenRaw);
    const kernels = linearForward(ctx, hidden, this.#w2, this.#b2); // [N,H*Dv*W]
    const v = ctx.arena.alloc(u.shape);
    ctx.ops.dynamicConv(v, u, kernels, rows.seqStart, null);
    const delta = this.#rule.forward(ctx, { q: silu(ctx, qRaw), k: silu(ctx, kRaw), v }, x, rows);
    return { x, rows, qRaw, kRaw, u, hiddenRaw, hidden, kernels, delta, y: delta.output.y };
  }

  backward(ctx: Context, dy: Tensor, saved: SavedJet, dx: Tensor | null): void {
    ctx.arena.scope(() => {
      const { x, rows, u, kernels, hidden, delta } = saved;
      const grads = this.#rule.backward(ctx, dy, delta, x, rows, dx);
      const [du, dkernels] = [ctx.arena.alloc(u.shape), ctx.arena.alloc(kernels.shape)];
      ctx.ops.dynamicConvBackward(du, dkernels, grads.v, u, kernels, rows.seqStart);
      const dhidden = linearBackwardNew(ctx, dkernels, hidden, this.#w2, this.#b2);
      linearBackward(ctx, siluBackward(ctx, dhidden, saved.hiddenRaw), x, this.#w1, null, dx);
      linearBackward(ctx, siluBackward(ctx, grads.q, saved.qRaw), x, this.#q.weight, this.#q.bias, dx);
      linearBackward(ctx, siluBackward(ctx, grads.k, saved.kRaw), x, this.#k.weight, this.#k.bias, dx);
      linearBackward(ctx, du, x, this.#v.weight, this.#v.bias, dx);
    });
  }
}

function silu(ctx: Context, x: Tensor): Tensor {
  const y = ctx.arena.alloc(x.shape);
  ctx.ops.silu(y, x);
  return y;
}

function siluBackward(ctx: Context, dy: Tensor, x: Tensor): Tensor {
  const dx = ctx.arena.alloc(x.shape);
  ctx.ops.siluBackward(dx, dy, x);
  return dx;
}
