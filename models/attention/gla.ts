// Gated linear attention, serving form (layers.md section 2). Query heads of a group read one shared state.
//   a = logsigmoid(W1 W0 x + b) / 16;  S = diag(eᵃ) S + k vᵀ;  o = Dk^-1/2 Sᵀ q
import type { LinearSizes, Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { Linear } from "../linear.ts";
import type { WeightLoader } from "../weights.ts";
import { ConvolvedProjections } from "./conv.ts";
import type { Context, LinearShape, MixerBatch, StateSpec, TokenMixer } from "./mixer.ts";
import { GatedOutput } from "./output.ts";
import { linearSizes } from "./shape.ts";
import { linearStateSpec, recurrentSlots } from "./state.ts";

/** Serving form of one gated linear attention layer. */
export class GlaAttention implements TokenMixer {
  readonly kind = "gla";
  readonly shape: LinearShape;
  readonly sizes: LinearSizes;
  readonly #ops: Ops;
  readonly #projections: ConvolvedProjections;
  readonly #gateDown: Linear;
  readonly #gateUp: Linear;
  readonly #output: GatedOutput;

  /** @param weights scoped to this layer's tensors, already verified against the shape. */
  constructor(weights: WeightLoader, shape: LinearShape) {
    this.shape = shape;
    this.sizes = linearSizes(shape);
    this.#ops = weights.ops;
    this.#projections = new ConvolvedProjections(weights, shape);
    this.#gateDown = weights.linear("gk_proj.0");
    this.#gateUp = weights.linear("gk_proj.1");
    this.#output = new GatedOutput(weights, shape.normEps);
  }

  forward(ctx: Context, x: Tensor, y: Tensor, batch: MixerBatch): void {
    ctx.arena.scope(() => {
      const { q, k, v } = this.#projections.apply(ctx, x, batch); // [N,Hq*Dk], [N,Hkv*Dk], [N,Hkv*Dv]
      const z = this.#gateUp.apply(ctx, this.#gateDown.apply(ctx, x)); // [N,Hkv*Dk]
      const a = ctx.arena.alloc(z.shape);
      ctx.ops.glaGate(a, z, this.shape.gateNormalizer);
      const o = ctx.arena.alloc([batch.numRows, this.sizes.numQueryHeads * this.sizes.valueDim]);
      const slots = recurrentSlots(batch);
      ctx.ops.gla(o, q, k, v, a, batch.seqStart, batch.startPos, slots, this.sizes, this.shape.block);
      this.#output.into(ctx, o, x, y);
    });
  }

  stateSpec(): StateSpec {
    return linearStateSpec(this.#ops, this.shape);
  }

  weightBytes(): number {
    return this.#projections.bytes() + this.#gateDown.bytes() + this.#gateUp.bytes() + this.#output.bytes();
  }

  free(): void {
    this.#projections.free(this.#ops);
    this.#gateDown.free(this.#ops);
    this.#gateUp.free(this.#ops);
    this.#output.free(this.#ops);
  }
}
