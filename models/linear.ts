// A linear layer y = x Wᵀ + b, in its serving form (packed weight) and its training form (plain float32 with gradients).
// Knows nothing of what the layer is for.
import { type Activation, type Ops, type PackedLinear, ProjectionSet, type RowNorm } from "../src/ops/ops.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import type { Context } from "./attention/mixer.ts";
import type { Parameter } from "./parameters.ts";

/** Serving form; owns its packed weight and bias. */
export class Linear {
  readonly weight: PackedLinear;
  readonly bias: Tensor | null;

  constructor(weight: PackedLinear, bias: Tensor | null) {
    this.weight = weight;
    this.bias = bias;
  }

  /** x[N,in] -> new y[N,out] in the arena. */
  apply(ctx: Context, x: Tensor): Tensor {
    const y = ctx.arena.alloc([x.shape[0]!, this.weight.out]);
    ctx.ops.linear(y, x, this.weight, this.bias);
    return y;
  }

  /** y[N,out] = x Wᵀ + b (+ residual, which may be y). */
  into(ctx: Context, x: Tensor, y: Tensor, residual: Tensor | null = null): void {
    ctx.ops.linear(y, x, this.weight, this.bias, residual);
  }

  bytes(): number {
    return this.weight.bytes + (this.bias ? this.weight.out * 4 : 0);
  }

  free(ops: Ops): void {
    ops.freePacked(this.weight);
    if (this.bias) ops.free(this.bias);
  }
}

/** Serving form of linear layers that share an input, norm included; owns them. */
export class Projections {
  readonly #ops: Ops;
  readonly #linears: readonly Linear[];
  /** By weight type, of which a checkpoint may mix two. */
  readonly #sets: readonly { readonly set: ProjectionSet; readonly members: readonly number[] }[];

  constructor(ops: Ops, linears: readonly { readonly linear: Linear; readonly activation?: Activation }[]) {
    this.#ops = ops;
    this.#linears = linears.map(({ linear }) => linear);
    const dtypes = [...new Set(this.#linears.map(({ weight }) => weight.dtype))];
    this.#sets = dtypes.map((dtype) => {
      const members = linears.flatMap(({ linear }, i) => (linear.weight.dtype === dtype ? [i] : []));
      const projections = members.map((i) => {
        const { linear, activation = "identity" } = linears[i]!;
        return { weight: linear.weight, bias: linear.bias, activation };
      });
      return { set: new ProjectionSet(ops, projections), members };
    });
  }

  /** New outputs [N,out] in the arena, in the order of the layers, of norm(x[N,in]). */
  apply(ctx: Context, x: Tensor, norm: RowNorm | null): Tensor[] {
    const ys = this.#linears.map(({ weight }) => ctx.arena.alloc([x.shape[0]!, weight.out]));
    this.into(ctx, x, norm, ys);
    return ys;
  }

  /** Outputs [N,out] into ys, none of which may be x. */
  into(ctx: Context, x: Tensor, norm: RowNorm | null, ys: readonly Tensor[]): void {
    for (const { set, members } of this.#sets) {
      const own = members.length === ys.length ? ys : members.map((i) => ys[i]!);
      ctx.ops.projections(own, x, norm, set);
    }
  }

  bytes(): number {
    return this.#linears.reduce((sum, linear) => sum + linear.bytes(), 0);
  }

  free(): void {
    for (const linear of this.#linears) linear.free(this.#ops);
    for (const { set } of this.#sets) set.free();
  }
}

/** Training form: x[N,in] -> new y[N,out] in the arena. */
export function linearForward(ctx: Context, x: Tensor, weight: Parameter, bias: Parameter | null): Tensor {
  const y = ctx.arena.alloc([x.shape[0]!, weight.value.shape[0]!]);
  ctx.ops.matmulNt(y, x, weight.value, bias?.value ?? null);
  return y;
}

/** Adds to the gradients of weight and bias, and to dx[N,in] where it is wanted. */
export function linearBackward(
  ctx: Context,
  dy: Tensor,
  x: Tensor,
  weight: Parameter,
  bias: Parameter | null,
  dx: Tensor | null,
): void {
  ctx.ops.matmulTn(weight.grad, dy, x, true);
  if (bias) ctx.ops.sumRows(bias.grad, dy, true);
  if (dx) ctx.ops.matmulNn(dx, dy, weight.value, true);
}

/** As linearBackward, with the gradient of the input in a new tensor. */
export function linearBackwardNew(
  ctx: Context,
  dy: Tensor,
  x: Tensor,
  weight: Parameter,
  bias: Parameter | null,
): Tensor {
  linearBackward(ctx, dy, x, weight, bias, null);
  const dx = ctx.arena.alloc(x.shape);
  ctx.ops.matmulNn(dx, dy, weight.value);
  return dx;
}
