// JetBlock, serving form (layers.md section 4): silu on q and k, and on v a causal convolution whose kernel a small network
// generates from the layer input for every token:  K_t = W2 silu(W1 x_t) + b2,  then the gated delta rule.
import type { LinearSizes, Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { Linear } from "../linear.ts";
import type { WeightLoader } from "../weights.ts";
import { DeltaRule } from "./delta.ts";
import type { Context, LinearShape, MixerBatch, StateSpec, TokenMixer } from "./mixer.ts";
import { convSlots, linearStateSpec } from "./state.ts";

/** Serving form of one JetBlock layer. */
export class JetAttention implements TokenMixer {
  readonly kind = "jet";
  readonly shape: LinearShape;
  readonly #ops: Ops;
  readonly #q: Linear;
  readonly #k: Linear;
  readonly #v: Linear;
  readonly #generatorDown: Linear;
  readonly #generatorUp: Linear;
  readonly #rule: DeltaRule;

  /** @param weights scoped to this layer's tensors, already verified against the shape. */
  constructor(weights: WeightLoader, shape: LinearShape) {
    this.shape = shape;
    this.#ops = weights.ops;
    this.#q = weights.linear("q_proj");
    this.#k = weights.linear("k_proj");
    this.#v = weights.linear("v_proj");
    this.#generatorDown = weights.linear("dynamic_conv1d.kernel_generator.w1");
    this.#generatorUp = weights.linear("dynamic_conv1d.kernel_generator.w2");
    this.#rule = new DeltaRule(weights, shape);
  }

  get sizes(): LinearSizes {
    return this.#rule.sizes;
  }

  forward(ctx: Context, x: Tensor, y: Tensor, batch: MixerBatch): void {
    ctx.arena.scope(() => {
      const q = this.#activated(ctx, this.#q.apply(ctx, x)); // [N,H*Dk]
      const k = this.#activated(ctx, this.#k.apply(ctx, x)); // [N,H*Dk]
      const u = this.#v.apply(ctx, x); // [N,H*Dv]
      const v = ctx.arena.alloc(u.shape);
      ctx.arena.scope(() => {
        const hidden = this.#activated(ctx, this.#generatorDown.apply(ctx, x)); // [N,m]
        const kernels = this.#generatorUp.apply(ctx, hidden); // [N,H*Dv*W]
        ctx.ops.dynamicConv(v, u, kernels, batch.seqStart, convSlots(batch, 0));
      });
      this.#rule.into(ctx, { q, k, v }, x, y, batch);
    });
  }

  stateSpec(): StateSpec {
    return linearStateSpec(this.#ops, this.shape);
  }

  weightBytes(): number {
    const linears = [this.#q, this.#k, this.#v, this.#generatorDown, this.#generatorUp];
    return linears.reduce((sum, linear) => sum + linear.bytes(), this.#rule.bytes());
  }

  free(): void {
    for (const linear of [this.#q, this.#k, this.#v, this.#generatorDown, this.#generatorUp]) linear.free(this.#ops);
    this.#rule.free();
  }

  #activated(ctx: Context, x: Tensor): Tensor {
    const y = ctx.arena.alloc(x.shape);
    ctx.ops.silu(y, x);
    return y;
  }
}
