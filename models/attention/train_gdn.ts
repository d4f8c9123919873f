// Gated DeltaNet, training form (layers.md sections 3 and 9); the serving form is gdn.ts.
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { ParameterSet } from "../parameters.ts";
import { type Qkv, type SavedQkv, TrainableProjections } from "./conv.ts";
import { type SavedDelta, TrainableDeltaRule } from "./delta.ts";
import type { Context, LinearShape, RaggedRows, Saved, TrainableMixer } from "./mixer.ts";

/** What the backward pass needs. */
export interface SavedGdn extends Saved {
  readonly x: Tensor;
  readonly rows: RaggedRows;
  readonly qkv: SavedQkv;
  readonly delta: SavedDelta;
}

/** Training form of one Gated DeltaNet layer. */
export class TrainableGdn implements TrainableMixer<SavedGdn> {
  readonly params: ParameterSet;
  readonly #projections: TrainableProjections;
  readonly #rule: TrainableDeltaRule;

  constructor(params: ParameterSet, shape: LinearShape) {
    this.params = params;
    this.#projections = new TrainableProjections(params);
    this.#rule = new TrainableDeltaRule(params, shape);
  }

  forward(ctx: Context, x: Tensor, rows: RaggedRows): SavedGdn {
    const qkv = this.#projections.forward(ctx, x, rows);
    const inputs = this.#projections.convolved ? qkv.result : activated(ctx, qkv.result);
    const delta = this.#rule.forward(ctx, inputs, x, rows);
    return { x, rows, qkv, delta, y: delta.output.y };
  }

  backward(ctx: Context, dy: Tensor, saved: SavedGdn, dx: Tensor | null): void {
    ctx.arena.scope(() => {
      const { x, rows, qkv, delta } = saved;
      const grads = this.#rule.backward(ctx, dy, delta, x, rows, dx);
      const before = this.#projections.convolved ? grads : throughSilu(ctx, grads, qkv.projected);
      this.#projections.backward(ctx, before, qkv, x, rows, dx);
    });
  }
}

function throughSilu(ctx: Context, grads: Qkv, inputs: Qkv): Qkv {
  const one = (dy: Tensor, x: Tensor): Tensor => {
    const dx = ctx.arena.alloc(x.shape);
    ctx.ops.siluBackward(dx, dy, x);
    return dx;
  };
  return { q: one(grads.q, inputs.q), k: one(grads.k, inputs.k), v: one(grads.v, inputs.v) };
}

/** silu of q, k and v. */
function activated(ctx: Context, { q, k, v }: Qkv): Qkv {
  const silu = (x: Tensor): Tensor => {
    const y = ctx.arena.alloc(x.shape);
    ctx.ops.silu(y, x);
    return y;
  };
  return { q: silu(q), k: silu(k), v: silu(v) };
}
