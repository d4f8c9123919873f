// Gated DeltaNet, serving form (layers.md section 3): q, k, v = silu(conv(W x)), or silu(W x) without convolution, then the
// gated delta rule.
import type { LinearSizes, Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { WeightLoader } from "../weights.ts";
import { ConvolvedProjections, type Qkv } from "./conv.ts";
import { DeltaRule } from "./delta.ts";
import type { Context, LinearShape, MixerBatch, StateSpec, TokenMixer } from "./mixer.ts";
import { linearStateSpec } from "./state.ts";

/** Serving form of one Gated DeltaNet layer. */
export class GdnAttention implements TokenMixer {
  readonly kind = "gdn";
  readonly shape: LinearShape;
  readonly #ops: Ops;
  readonly #projections: ConvolvedProjections;
  readonly #rule: DeltaRule;

  /** @param weights scoped to this layer's tensors, already verified against the shape. */
  constructor(weights: WeightLoader, shape: LinearShape) {
    this.shape = shape;
    this.#ops = weights.ops;
    this.#projections = new ConvolvedProjections(weights, shape);
    this.#rule = new DeltaRule(weights, shape);
  }

  get sizes(): LinearSizes {
    return this.#rule.sizes;
  }

  forward(ctx: Context, x: Tensor, y: Tensor, batch: MixerBatch): void {
    ctx.arena.scope(() => {
      const qkv = this.#projections.apply(ctx, x, batch); // [N,Hk*Dk], [N,Hk*Dk], [N,Hv*Dv]
      this.#rule.into(ctx, this.shape.convKernel > 0 ? qkv : activated(ctx, qkv), x, y, batch);
    });
  }

  stateSpec(): StateSpec {
    return linearStateSpec(this.#ops, this.shape);
  }

  weightBytes(): number {
    return this.#projections.bytes() + this.#rule.bytes();
  }

  free(): void {
    this.#projections.free(this.#ops);
    this.#rule.free();
  }
}

/** silu of q, k and v. */
export function activated(ctx: Context, { q, k, v }: Qkv): Qkv {
  const silu = (x: Tensor): Tensor => {
    const y = ctx.arena.alloc(x.shape);
    ctx.ops.silu(y, x);
    return y;
  };
  return { q: silu(q), k: silu(k), v: silu(v) };
}
