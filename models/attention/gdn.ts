// Gated DeltaNet, serving form (layers.md section 3): q, k, v = silu(conv(W x)), or silu(W x) without convolution, then the
// gated delta rule.
import type { LinearSizes, Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { Projections } from "../linear.ts";
import type { WeightLoader } from "../weights.ts";
import { DeltaRule, deltaProjections } from "./delta.ts";
import type { Context, LinearShape, MixerBatch, MixerIo, StateSpec, TokenMixer } from "./mixer.ts";
import { linearStateSpec } from "./state.ts";

/** Serving form of one Gated DeltaNet layer. */
export class GdnAttention implements TokenMixer {
  readonly kind = "gdn";
  readonly shape: LinearShape;
  readonly #ops: Ops;
  readonly #projections: Projections;
  readonly #rule: DeltaRule;

  /** @param weights scoped to this layer's tensors, already verified against the shape. */
  constructor(weights: WeightLoader, shape: LinearShape) {
    this.shape = shape;
    this.#ops = weights.ops;
    // A convolution brings the silu with it.
    const activation = shape.convKernel > 0 ? "identity" : "silu";
    const qkv = ["q_proj", "k_proj", "v_proj"].map((name) => ({ linear: weights.linear(name), activation }) as const);
    this.#projections = new Projections(weights.ops, [...qkv, ...deltaProjections(weights)]);
    this.#rule = new DeltaRule(weights, shape);
  }

  get sizes(): LinearSizes {
    return this.#rule.sizes;
  }

  forward(ctx: Context, io: MixerIo, batch: MixerBatch): void {
    ctx.arena.scope(() => {
      // [N,Hk*Dk], [N,Hk*Dk], [N,Hv*Dv], [N,Hv], [N,Hv], [N,Hv*Dv]
      const projected = this.#projections.apply(ctx, io.x, io.norm) as [Tensor, Tensor, Tensor, Tensor, Tensor];
      const [q, k, v, za, zb, gate = null] = projected;
      this.#rule.into(ctx, { q, k, v, za, zb, gate, kernels: null }, io, batch);
    });
  }

  stateSpec(): StateSpec {
    return linearStateSpec(this.#ops, this.shape);
  }

  weightBytes(): number {
    return this.#projections.bytes() + this.#rule.bytes();
  }

  free(): void {
    this.#projections.free();
    this.#rule.free();
  }
}
