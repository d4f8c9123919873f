// Gated linear attention, serving form (layers.md section 2). Query heads of a group read one shared state.
//   a = logsigmoid(W1 W0 x + b) / 16;  S = diag(eᵃ) S + k vᵀ;  o = Dk^-1/2 Sᵀ q
import { GlaStruct, type LinearSizes, type Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Linear, Projections } from "../linear.ts";
import type { WeightLoader } from "../weights.ts";
import { type Convs, freeConvs, loadConvs } from "./conv.ts";
import type { Context, LinearShape, MixerBatch, MixerIo, StateSpec, TokenMixer } from "./mixer.ts";
import { outputGate } from "./output.ts";
import { linearSizes } from "./shape.ts";
import { layerStates, linearStateSpec } from "./state.ts";

/** Serving form of one gated linear attention layer. */
export class GlaAttention implements TokenMixer {
  readonly kind = "gla";
  readonly shape: LinearShape;
  readonly sizes: LinearSizes;
  readonly #ops: Ops;
  /** q, k, v, the inner half of the decay, and the output gate where there is one. */
  readonly #projections: Projections;
  readonly #convs: Convs | null;
  readonly #decay: Linear;
  readonly #outputNorm: Tensor;
  readonly #output: Linear;
  readonly #layer: GlaStruct;

  /** @param weights scoped to this layer's tensors, already verified against the shape. */
  constructor(weights: WeightLoader, shape: LinearShape) {
    const { ops } = weights;
    this.shape = shape;
    this.sizes = linearSizes(shape);
    this.#ops = ops;
    const inputs = ["q_proj", "k_proj", "v_proj", "gk_proj.0"].map((name) => ({ linear: weights.linear(name) }));
    this.#projections = new Projections(ops, [...inputs, ...outputGate(weights)]);
    this.#convs = loadConvs(weights, shape);
    this.#decay = weights.linear("gk_proj.1");
    this.#outputNorm = weights.vector("o_norm.weight");
    this.#output = weights.linear("o_proj");
    this.#layer = new GlaStruct(ops, {
      convs: this.#convs,
      taps: shape.convKernel,
      sizes: this.sizes,
      block: shape.block,
      outputNorm: this.#outputNorm,
      normEps: shape.normEps,
      gateNormalizer: shape.gateNormalizer,
    });
  }

  forward(ctx: Context, { x, norm, y, residual }: MixerIo, batch: MixerBatch): void {
    ctx.arena.scope(() => {
      // [N,Hq*Dk], [N,Hkv*Dk], [N,Hkv*Dv], [N,rank], [N,Hq*Dv]
      const [q, k, v, inner, gate = null] = this.#projections.apply(ctx, x, norm) as [Tensor, Tensor, Tensor, Tensor];
      const z = this.#decay.apply(ctx, inner); // [N,Hkv*Dk]
      const o = ctx.arena.alloc([batch.numRows, this.sizes.numQueryHeads * this.sizes.valueDim]);
      ctx.ops.glaStep(o, { q, k, v, z, gate }, batch, layerStates(batch), this.#layer);
      this.#output.into(ctx, o, y, residual);
    });
  }

  stateSpec(): StateSpec {
    return linearStateSpec(this.#ops, this.shape);
  }

  weightBytes(): number {
    return this.#projections.bytes() + this.#decay.bytes() + this.#output.bytes();
  }

  free(): void {
    this.#projections.free();
    freeConvs(this.#ops, this.#convs);
    for (const linear of [this.#decay, this.#output]) linear.free(this.#ops);
    this.#ops.free(this.#outputNorm);
    this.#layer.free();
  }
}
