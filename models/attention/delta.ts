// The gated delta rule with its gates and output, which gdn and jet share (layers.md sections 3 and 4).
//   q, k = l2(q), l2(k) per head;  β = σ(Wb x) (×2 with negative eigenvalues);  g = -exp(A_log) softplus(Wa x + dt_bias)
//   S̄ = e^g S;  u = β (v - S̄ᵀ k);  S = S̄ + k uᵀ;  o = Dk^-1/2 Sᵀ q
import { GdnStruct, type LinearSizes, type Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Linear, linearBackward, linearForward } from "../linear.ts";
import { type Parameter, type ParameterSet, parameter } from "../parameters.ts";
import type { WeightLoader } from "../weights.ts";
import { type Convs, freeConvs, loadConvs, type Qkv } from "./conv.ts";
import type { Context, LinearShape, MixerBatch, MixerIo, RaggedRows } from "./mixer.ts";
import { outputGate, type SavedOutput, TrainableOutput } from "./output.ts";
import { linearSizes } from "./shape.ts";
import { layerStates } from "./state.ts";

function betaScale(shape: LinearShape): number {
  return shape.variant === "gdn" && shape.allowNegEigval ? 2 : 1;
}

/** q, k, v, the decay and the write strength of every row, and the gate of the output where there is one. */
export interface DeltaInputs {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly za: Tensor;
  readonly zb: Tensor;
  readonly gate: Tensor | null;
  /** Of a JetBlock: [N,Hv*Dv,W]. */
  readonly kernels: Tensor | null;
}

/** Projections of the layer input that the delta rule needs beside q, k and v: decay, write strength, output gate. */
export function deltaProjections(weights: WeightLoader): { linear: Linear }[] {
  return [{ linear: weights.linear("a_proj") }, { linear: weights.linear("b_proj") }, ...outputGate(weights)];
}

/** Serving form: everything after the projections. */
export class DeltaRule {
  readonly sizes: LinearSizes;
  readonly #ops: Ops;
  readonly #aLog: Tensor;
  readonly #dtBias: Tensor;
  readonly #outputNorm: Tensor;
  readonly #convs: Convs | null;
  readonly #output: Linear;
  readonly #layer: GdnStruct;

  constructor(weights: WeightLoader, shape: LinearShape) {
    this.sizes = linearSizes(shape);
    this.#ops = weights.ops;
    this.#aLog = weights.vector("A_log");
    this.#dtBias = weights.vector("dt_bias");
    this.#outputNorm = weights.vector("o_norm.weight");
    this.#convs = shape.variant === "jet" ? null : loadConvs(weights, shape);
    this.#output = weights.linear("o_proj");
    this.#layer = new GdnStruct(weights.ops, {
      convs: this.#convs,
      taps: shape.convKernel,
      sizes: this.sizes,
      block: shape.block,
      outputNorm: this.#outputNorm,
      normEps: shape.normEps,
      aLog: this.#aLog,
      dtBias: this.#dtBias,
      betaScale: betaScale(shape),
    });
  }

  /** y[N,C] (+ residual); advances the states. */
  into(ctx: Context, inputs: DeltaInputs, { y, residual }: MixerIo, batch: MixerBatch): void {
    const o = ctx.arena.alloc(inputs.v.shape); // [N,Hv*Dv]
    ctx.ops.gdnStep(o, inputs, batch, layerStates(batch), this.#layer);
    this.#output.into(ctx, o, y, residual);
  }

  bytes(): number {
    return this.#output.bytes();
  }

  free(): void {
    this.#output.free(this.#ops);
    freeConvs(this.#ops, this.#convs);
    for (const t of [this.#aLog, this.#dtBias, this.#outputNorm]) this.#ops.free(t);
    this.#layer.free();
  }
}

/** What the training form keeps. */
export interface SavedDelta {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly qn: Tensor;
  readonly kn: Tensor;
  readonly za: Tensor;
  readonly zb: Tensor;
  readonly g: Tensor;
  readonly beta: Tensor;
  readonly workspace: Tensor;
  readonly output: SavedOutput;
}

/** Training form. */
export class TrainableDeltaRule {
  readonly #sizes: LinearSizes;
  readonly #betaScale: number;
  readonly #decay: Parameter;
  readonly #write: Parameter;
  readonly #aLog: Parameter;
  readonly #dtBias: Parameter;
  readonly #output: TrainableOutput;

  constructor(params: ParameterSet, shape: LinearShape) {
    this.#sizes = linearSizes(shape);
    this.#betaScale = betaScale(shape);
    this.#decay = parameter(params, "a_proj.weight");
    this.#write = parameter(params, "b_proj.weight");
    this.#aLog = parameter(params, "A_log");
    this.#dtBias = parameter(params, "dt_bias");
    this.#output = new TrainableOutput(params, shape.normEps);
  }

  forward(ctx: Context, { q, k, v }: Qkv, x: Tensor, rows: RaggedRows): SavedDelta {
    const { ops, arena } = ctx;
    const [qn, kn] = [arena.alloc(q.shape), arena.alloc(k.shape)];
    ops.l2Norm(qn, q, this.#sizes.keyDim);
    ops.l2Norm(kn, k, this.#sizes.keyDim);
    const za = linearForward(ctx, x, this.#decay, null);
    const zb = linearForward(ctx, x, this.#write, null);
    const [g, beta] = [arena.alloc(za.shape), arena.alloc(zb.shape)];
    ops.gdnGate(g, beta, za, zb, this.#aLog.value, this.#dtBias.value, this.#betaScale);
    const o = arena.alloc(v.shape);
    const workspace = arena.alloc([ops.gdnTrainFloats(rows.numRows, rows.numSeqs, this.#sizes)]);
    ops.gdnTrain({ o, workspace }, { q: qn, k: kn, v, g, beta }, rows.seqStart, this.#sizes);
    return { q, k, v, qn, kn, za, zb, g, beta, workspace, output: this.#output.forward(ctx, o, x) };
  }

  /** Returns the gradients of the activated q, k, v. */
  backward(ctx: Context, dy: Tensor, s: SavedDelta, x: Tensor, rows: RaggedRows, dx: Tensor | null): Qkv {
    const { ops, arena } = ctx;
    const dO = this.#output.backward(ctx, dy, s.output, x, dx);
    const like = (t: Tensor) => arena.alloc(t.shape);
    const normed = { dq: like(s.qn), dk: like(s.kn), dv: like(s.v), dg: like(s.g), dbeta: like(s.beta) };
    const inputs = { q: s.qn, k: s.kn, v: s.v, g: s.g, beta: s.beta, workspace: s.workspace };
    ops.gdnBackward(normed, { dO }, inputs, rows.seqStart, this.#sizes);
    const [dza, dzb] = [like(s.za), like(s.zb)];
    ops.gdnGateBackward(
      { dza, dzb, dALog: this.#aLog.grad, dDtBias: this.#dtBias.grad },
      { dg: normed.dg, dbeta: normed.dbeta },
      { za: s.za, zb: s.zb, aLog: this.#aLog.value, dtBias: this.#dtBias.value },
      this.#betaScale,
    );
    linearBackward(ctx, dza, x, this.#decay, null, dx);
    linearBackward(ctx, dzb, x, this.#write, null, dx);
    const [dq, dk] = [like(s.q), like(s.k)];
    ops.l2NormBackward(dq, normed.dq, s.q, this.#sizes.keyDim);
    ops.l2NormBackward(dk, normed.dk, s.k, this.#sizes.keyDim);
    return { q: dq, k: dk, v: normed.dv };
  }
}
