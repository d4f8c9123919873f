// Softmax attention of all four families, serving form: projections, optional per-head norms of q and k (Qwen3), rope
// (all but GPT-2), paged cache. Formulas: layers.md section 1. Knows not whose pages it reads.
import { KernelError } from "../../src/errors.ts";
import type { AttentionSizes, Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Linear, Projections } from "../linear.ts";
import type { Context, MixerBatch, MixerIo, RaggedRows, StateSpec, TokenMixer } from "./mixer.ts";

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
  readonly #qkv: Projections;
  readonly #output: Linear;
  readonly #norms: HeadNorms | null;
  readonly #ropeTable: Tensor | null;

  /** Owns its weights, but not the rope table. */
  constructor(ops: Ops, sizes: AttentionSizes, { q, k, v, o, headNorms, ropeTable }: FullAttentionWeights) {
    this.sizes = sizes;
    this.#ops = ops;
    this.#qkv = new Projections(ops, [{ linear: q }, { linear: k }, { linear: v }]);
    this.#output = o;
    this.#norms = headNorms;
    this.#ropeTable = ropeTable;
  }

  forward(ctx: Context, { x, norm, y, residual }: MixerIo, batch: MixerBatch): void {
    const { kv } = batch;
    if (!kv) throw new KernelError("Cannot run full attention: the batch has no KV cache");
    ctx.arena.scope(() => {
      const [q, k, v] = this.#qkv.apply(ctx, x, norm) as [Tensor, Tensor, Tensor];
      const o = ctx.arena.alloc(q.shape);
      const weights = { norms: this.#norms, ropeTable: this.#ropeTable };
      ctx.ops.attentionStep(o, { q, k, v }, kv, batch, weights, this.sizes);
      this.#output.into(ctx, o, y, residual);
    });
  }

  /** Whole sequences without a cache: what conversion runs the parent with. */
  forwardDense(ctx: Context, x: Tensor, y: Tensor, rows: RaggedRows): void {
    ctx.arena.scope(() => {
      let [q, k, v] = this.#qkv.apply(ctx, x, null) as [Tensor, Tensor, Tensor];
      if (this.#norms) {
        q = normed(ctx, q, this.#norms.q, this.#norms.eps);
        k = normed(ctx, k, this.#norms.k, this.#norms.eps);
      }
      if (this.#ropeTable) for (const t of [q, k]) ctx.ops.rope(t, t, rows.positions, this.#ropeTable);
      const o = ctx.arena.alloc(q.shape);
      const lse = ctx.arena.alloc([rows.numRows, this.sizes.numQueryHeads]);
      ctx.ops.attentionTrain(o, lse, q, k, v, rows.seqStart, this.sizes);
      this.#output.into(ctx, o, y);
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
    return this.#qkv.bytes() + this.#output.bytes();
  }

  free(): void {
    this.#qkv.free();
    this.#output.free(this.#ops);
    if (this.#norms) {
      this.#ops.free(this.#norms.q);
      this.#ops.free(this.#norms.k);
    }
  }
}

function normed(ctx: Context, x: Tensor, gain: Tensor, eps: number): Tensor {
  const y = ctx.arena.alloc(x.shape);
  ctx.ops.rmsNorm(y, x, gain, eps);
  return y;
}
