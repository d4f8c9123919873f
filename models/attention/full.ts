// Softmax attention of all four families, serving form: projections, optional per-head norms of q and k (Qwen3), rope
// (all but GPT-2), paged cache. Formulas: layers.md section 1. Knows not whose pages it reads.
import { KernelError } from "../../src/errors.ts";
import type { AttentionSizes, Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { Linear } from "../linear.ts";
import type { Context, MixerBatch, RaggedRows, StateSpec, TokenMixer } from "./mixer.ts";

/** Gains [D] of the per-head norms before rope. */
export interface HeadNorms {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly eps: number;
}

/** Weights of one attention layer. */
export interface FullAttentionWeights {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  readonly headNorms: HeadNorms | null;
  /** [P, D], shared by all layers; null where positions are learned. */
  readonly ropeTable: Tensor | null;
}

/** Serving form of one layer's softmax attention. */
export class FullAttention implements TokenMixer {
  readonly kind = "full_attention";
  readonly sizes: AttentionSizes;
  readonly #ops: Ops;
  readonly #weights: FullAttentionWeights;

  /** Owns its weights, but not the rope table. */
  constructor(ops: Ops, sizes: AttentionSizes, weights: FullAttentionWeights) {
    this.sizes = sizes;
    this.#ops = ops;
    this.#weights = weights;
  }

  forward(ctx: Context, x: Tensor, y: Tensor, batch: MixerBatch): void {
    const { kv } = batch;
    if (!kv) throw new KernelError("Cannot run full attention: the batch has no KV cache");
    ctx.arena.scope(() => {
      const { q, k, v } = this.#project(ctx, x, batch.positions);
      ctx.ops.kvWrite(kv, k, v, kv.slots, this.sizes);
      const o = ctx.arena.alloc(q.shape);
      ctx.ops.attention(o, q, kv, batch.seqStart, batch.startPos, this.sizes);
      this.#weights.o.into(ctx, o, y);
    });
  }

  /** Whole sequences without a cache: what conversion runs the parent with. */
  forwardDense(ctx: Context, x: Tensor, y: Tensor, rows: RaggedRows): void {
    ctx.arena.scope(() => {
      const { q, k, v } = this.#project(ctx, x, rows.positions);
      const o = ctx.arena.alloc(q.shape);
      const lse = ctx.arena.alloc([rows.numRows, this.sizes.numQueryHeads]);
      ctx.ops.attentionTrain(o, lse, q, k, v, rows.seqStart, this.sizes);
      this.#weights.o.into(ctx, o, y);
    });
  }

  stateSpec(): StateSpec {
    const floats = 2 * this.sizes.numKvHeads * this.sizes.headDim;
    return {
      kvBytesPerToken: { f32: 4 * floats, bf16: 2 * floats },
      recurrentFloats: { f32: 0, bf16: 0 },
      convFloats: 0,
    };
  }

  weightBytes(): number {
    const { q, k, v, o } = this.#weights;
    return q.bytes() + k.bytes() + v.bytes() + o.bytes();
  }

  free(): void {
    const { q, k, v, o, headNorms } = this.#weights;
    for (const linear of [q, k, v, o]) linear.free(this.#ops);
    if (headNorms) {
      this.#ops.free(headNorms.q);
      this.#ops.free(headNorms.k);
    }
  }

  /** q[N,Hq*D], k and v[N,Hkv*D] as attention takes them. */
  #project(ctx: Context, x: Tensor, positions: Tensor): { q: Tensor; k: Tensor; v: Tensor } {
    const { headNorms, ropeTable } = this.#weights;
    let q = this.#weights.q.apply(ctx, x);
    let k = this.#weights.k.apply(ctx, x);
    const v = this.#weights.v.apply(ctx, x);
    if (headNorms) {
      q = normed(ctx, q, headNorms.q, headNorms.eps);
      k = normed(ctx, k, headNorms.k, headNorms.eps);
    }
    if (ropeTable) {
      ctx.ops.rope(q, q, positions, ropeTable);
      ctx.ops.rope(k, k, positions, ropeTable);
    }
    return { q, k, v };
  }
}

function normed(ctx: Context, x: Tensor, gain: Tensor, eps: number): Tensor {
  const y = ctx.arena.alloc(x.shape);
  ctx.ops.rmsNorm(y, x, gain, eps);
  return y;
}
