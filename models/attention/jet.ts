// JetBlock, serving form (layers.md section 4): silu on q and k, and on v a causal convolution whose kernel a small network
// generates from the layer input for every token:  K_t = W2 silu(W1 x_t) + b2,  then the gated delta rule.
import type { LinearSizes, Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Linear, Projections } from "../linear.ts";
import type { WeightLoader } from "../weights.ts";
import { DeltaRule, deltaProjections } from "./delta.ts";
import type { Context, LinearShape, MixerBatch, MixerIo, StateSpec, TokenMixer } from "./mixer.ts";
import { linearStateSpec } from "./state.ts";

/** Serving form of one JetBlock layer. */
export class JetAttention implements TokenMixer {
  readonly kind = "jet";
  readonly shape: LinearShape;
  readonly #ops: Ops;
  readonly #projections: Projections;
  readonly #generatorUp: Linear;
  readonly #rule: DeltaRule;

  /** @param weights scoped to this layer's tensors, already verified against the shape. */
  constructor(weights: WeightLoader, shape: LinearShape) {
    this.shape = shape;
    this.#ops = weights.ops;
    this.#projections = new Projections(weights.ops, [
      { linear: weights.linear("q_proj"), activation: "silu" },
      { linear: weights.linear("k_proj"), activation: "silu" },
      { linear: weights.linear("v_proj") },
      { linear: weights.linear("dynamic_conv1d.kernel_generator.w1"), activation: "silu" },
      ...deltaProjections(weights),
    ]);
    this.#generatorUp = weights.linear("dynamic_conv1d.kernel_generator.w2");
    this.#rule = new DeltaRule(weights, shape);
  }

  get sizes(): LinearSizes {
    return this.#rule.sizes;
  }

  forward(ctx: Context, io: MixerIo, batch: MixerBatch): void {
    ctx.arena.scope(() => {
      // [N,H*Dk], [N,H*Dk], [N,H*Dv], [N,m], [N,H], [N,H], [N,H*Dv]
      const projected = this.#projections.apply(ctx, io.x, io.norm) as [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];
      const [q, k, v, hidden, za, zb, gate = null] = projected;
      const kernels = this.#generatorUp.apply(ctx, hidden); // [N,H*Dv*W]
      this.#rule.into(ctx, { q, k, v, za, zb, gate, kernels }, io, batch);
    });
  }

  stateSpec(): StateSpec {
    return linearStateSpec(this.#ops, this.shape);
  }

  weightBytes(): number {
    return this.#projections.bytes() + this.#generatorUp.bytes() + this.#rule.bytes();
  }

  free(): void {
    this.#projections.free();
    this.#generatorUp.free(this.#ops);
    this.#rule.free();
  }
}
