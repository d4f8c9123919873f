// Softmax attention, training form: forward and backward over whole sequences (layers.md sections 1 and 9).
import type { AttentionSizes } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { linearBackward, linearBackwardNew, linearForward } from "../linear.ts";
import { optionalParameter, type Parameter, type ParameterSet, parameter, parameterRows } from "../parameters.ts";
import type { Context, RaggedRows, Saved, TrainableMixer } from "./mixer.ts";

interface Projection {
  readonly weight: Parameter;
  readonly bias: Parameter | null;
}

/** What the backward pass needs; q and k as attention saw them. */
export interface SavedFull extends Saved {
  readonly x: Tensor;
  readonly rows: RaggedRows;
  /** Before the per-head norms; null where there are none. */
  readonly qRaw: Tensor | null;
  readonly kRaw: Tensor | null;
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly o: Tensor;
  readonly lse: Tensor;
}

/** What a layer is beyond its parameters. */
export interface FullAttentionOptions {
  readonly sizes: AttentionSizes;
  /** [P, D]; null where positions are learned. */
  readonly ropeTable: Tensor | null;
  /** eps of the per-head norms. */
  readonly normEps: number;
}

/** Training form of one layer's softmax attention. */
export class TrainableFullAttention implements TrainableMixer<SavedFull> {
  readonly params: ParameterSet;
  readonly #options: FullAttentionOptions;
  readonly #q: Projection;
  readonly #k: Projection;
  readonly #v: Projection;
  readonly #o: Projection;
  readonly #qNorm: Parameter | null;
  readonly #kNorm: Parameter | null;

  /** @param params the layer's tensors under their checkpoint names without prefix: q_proj.weight or GPT-2's c_attn.weight. */
  constructor(params: ParameterSet, options: FullAttentionOptions) {
    this.params = params;
    this.#options = options;
    const [q, k, v, o] = params.has("c_attn.weight") ? fused(params) : separate(params);
    this.#q = q;
    this.#k = k;
    this.#v = v;
    this.#o = o;
    this.#qNorm = optionalParameter(params, "q_norm.weight");
    this.#kNorm = optionalParameter(params, "k_norm.weight");
  }

  forward(ctx: Context, x: Tensor, rows: RaggedRows): SavedFull {
    const { sizes } = this.#options;
    const qRaw = linearForward(ctx, x, this.#q.weight, this.#q.bias);
    const kRaw = linearForward(ctx, x, this.#k.weight, this.#k.bias);
    const v = linearForward(ctx, x, this.#v.weight, this.#v.bias);
    const q = this.#positioned(ctx, qRaw, this.#qNorm, rows);
    const k = this.#positioned(ctx, kRaw, this.#kNorm, rows);
    const o = ctx.arena.alloc(q.shape);
    const lse = ctx.arena.alloc([rows.numRows, sizes.numQueryHeads]);
    ctx.ops.attentionTrain(o, lse, q, k, v, rows.seqStart, sizes);
    const y = linearForward(ctx, o, this.#o.weight, this.#o.bias);
    return { x, rows, qRaw: this.#qNorm && qRaw, kRaw: this.#kNorm && kRaw, q, k, v, o, lse, y };
  }

  backward(ctx: Context, dy: Tensor, saved: SavedFull, dx: Tensor | null): void {
    ctx.arena.scope(() => {
      const { x, rows, q, k, v, o, lse } = saved;
      const dO = linearBackwardNew(ctx, dy, o, this.#o.weight, this.#o.bias);
      const [dq, dk, dv] = [ctx.arena.alloc(q.shape), ctx.arena.alloc(k.shape), ctx.arena.alloc(v.shape)];
      ctx.ops.attentionBackward({ dq, dk, dv }, dO, { o, lse, q, k, v }, rows.seqStart, this.#options.sizes);
      const dqRaw = this.#unpositioned(ctx, dq, saved.qRaw, this.#qNorm, rows);
      const dkRaw = this.#unpositioned(ctx, dk, saved.kRaw, this.#kNorm, rows);
      linearBackward(ctx, dqRaw, x, this.#q.weight, this.#q.bias, dx);
      linearBackward(ctx, dkRaw, x, this.#k.weight, this.#k.bias, dx);
      linearBackward(ctx, dv, x, this.#v.weight, this.#v.bias, dx);
    });
  }

  /** Norm per head, then rope. Overwrites `raw` where there is no norm. */
  #positioned(ctx: Context, raw: Tensor, norm: Parameter | null, rows: RaggedRows): Tensor {
    const { ropeTable, normEps } = this.#options;
    let y = raw;
    if (norm) {
      y = ctx.arena.alloc(raw.shape);
      ctx.ops.rmsNorm(y, raw, norm.value, normEps);
    }
    if (ropeTable) ctx.ops.rope(y, y, rows.positions, ropeTable);
    return y;
  }

  /** Gradient of the projection from that of the positioned heads, which is overwritten. */
  #unpositioned(ctx: Context, dy: Tensor, raw: Tensor | null, norm: Parameter | null, rows: RaggedRows): Tensor {
    const { ropeTable, normEps } = this.#options;
    if (ropeTable) ctx.ops.rope(dy, dy, rows.positions, ropeTable, -1);
    if (!norm || !raw) return dy;
    const dRaw = ctx.arena.alloc(raw.shape);
    ctx.ops.rmsNormBackward(dRaw, norm.grad, dy, raw, norm.value, normEps);
    return dRaw;
  }
}

type Projections = [q: Projection, k: Projection, v: Projection, o: Projection];

function separate(params: ParameterSet): Projections {
  const one = (name: string) => ({
    weight: parameter(params, `${name}_proj.weight`),
    bias: optionalParameter(params, `${name}_proj.bias`),
  });
  return [one("q"), one("k"), one("v"), one("o")];
}

/** GPT-2: q, k and v are thirds of one matrix. */
function fused(params: ParameterSet): Projections {
  const weight = parameter(params, "c_attn.weight");
  const bias = parameter(params, "c_attn.bias");
  const width = weight.value.shape[0]! / 3;
  const third = (i: number) => ({
    weight: parameterRows(weight, i * width, width),
    bias: parameterRows(bias, i * width, width),
  });
  const o = { weight: parameter(params, "c_proj.weight"), bias: parameter(params, "c_proj.bias") };
  return [third(0), third(1), third(2), o];
}
