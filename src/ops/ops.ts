// All ops of a backend: those of the files beside this one, and the training forms of what knows sequences.
// A gradient marked "+=" in graft.h is added to what the tensor holds.
import { numel, type Tensor } from "../tensor/tensor.ts";
import { at, expectCount, expectCounts, expectRows, rowsOf } from "./expect.ts";
import type { AttentionSizes, LinearSizes } from "./forward_ops.ts";
import type { LibraryOptions } from "./library.ts";
import { TrainingOps } from "./training_ops.ts";

export type { PackedLinear } from "./dense_ops.ts";
export type {
  AttentionSizes,
  LinearSizes,
  PagedKv,
  RecurrentSlot,
  RecurrentSlots,
  StateDtype,
  StateSlots,
} from "./forward_ops.ts";
export {
  type Activation,
  type ConvWeights,
  GdnStruct,
  GlaStruct,
  type Projection,
  ProjectionSet,
} from "./layer_structs.ts";
export type { LayerStates, RaggedStarts, RowNorm } from "./step_ops.ts";
export type { AdamwStep } from "./training_ops.ts";

/** Every op of graft.h under its own name in camelCase. */
export class Ops extends TrainingOps {
  /** Opens the kernels of this machine (or those asked for). @throws RequestError if they cannot run here. */
  static async load(options: LibraryOptions = {}): Promise<Ops> {
    return new Ops(await Ops.open(options));
  }

  // ---- softmax attention without a cache ----

  /** o, lse[N,Hq] from ragged q [N,Hq,D], k and v [N,Hkv,D]. */
  attentionTrain(
    o: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seqStart: Tensor,
    sizes: AttentionSizes,
  ): void {
    const { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D } = sizes;
    const N = rowsOf("attentionTrain", "q", q);
    const S = numel(seqStart) - 1;
    expectRows("attentionTrain", "q", q, N, Hq * D);
    expectRows("attentionTrain", "k", k, N, Hkv * D);
    expectRows("attentionTrain", "v", v, N, Hkv * D);
    expectRows("attentionTrain", "o", o, N, Hq * D);
    expectCount("attentionTrain", "lse", lse, N * Hq);
    const status = this.symbols.graft_attention_train(
      at(o),
      at(lse),
      at(q),
      at(k),
      at(v),
      at(seqStart),
      S,
      N,
      Hq,
      Hkv,
      D,
      1 / Math.sqrt(D),
    );
    this.check("attentionTrain", status);
  }

  attentionBackward(
    grads: { dq: Tensor; dk: Tensor; dv: Tensor },
    dO: Tensor,
    saved: { o: Tensor; lse: Tensor; q: Tensor; k: Tensor; v: Tensor },
    seqStart: Tensor,
    sizes: AttentionSizes,
  ): void {
    const { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D } = sizes;
    const N = rowsOf("attentionBackward", "q", saved.q);
    expectCounts("attentionBackward", N * Hq * D, { dq: grads.dq, dO, o: saved.o, q: saved.q });
    expectCounts("attentionBackward", N * Hkv * D, { dk: grads.dk, dv: grads.dv, k: saved.k, v: saved.v });
    const status = this.symbols.graft_attention_backward(
      at(grads.dq),
      at(grads.dk),
      at(grads.dv),
      at(dO),
      at(saved.o),
      at(saved.lse),
      at(saved.q),
      at(saved.k),
      at(saved.v),
      at(seqStart),
      numel(seqStart) - 1,
      N,
      Hq,
      Hkv,
      D,
      1 / Math.sqrt(D),
    );
    this.check("attentionBackward", status);
  }

  // ---- convolutions and gates ----

  shortConvBackward(
    du: Tensor,
    dw: Tensor,
    dbias: Tensor | null,
    dy: Tensor,
    u: Tensor,
    w: Tensor,
    bias: Tensor | null,
    seqStart: Tensor,
    silu = true,
  ): void {
    const C = rowsOf("shortConvBackward", "w", w);
    const W = numel(w) / C;
    const N = rowsOf("shortConvBackward", "u", u);
    expectCounts("shortConvBackward", N * C, { du, dy, u });
    expectCount("shortConvBackward", "dw", dw, C * W);
    const status = this.symbols.graft_short_conv_backward(
      at(du),
      at(dw),
      at(dbias),
      at(dy),
      at(u),
      at(w),
      at(bias),
      at(seqStart),
      numel(seqStart) - 1,
      N,
      C,
      W,
      silu ? 1 : 0,
    );
    this.check("shortConvBackward", status);
  }

  dynamicConvBackward(du: Tensor, dkernels: Tensor, dy: Tensor, u: Tensor, kernels: Tensor, seqStart: Tensor): void {
    const N = rowsOf("dynamicConvBackward", "u", u);
    const C = numel(u) / N;
    const W = numel(kernels) / (N * C);
    expectCounts("dynamicConvBackward", N * C, { du, dy });
    expectCount("dynamicConvBackward", "dkernels", dkernels, N * C * W);
    const S = numel(seqStart) - 1;
    const status = this.symbols.graft_dynamic_conv_backward(
      at(du),
      at(dkernels),
      at(dy),
      at(u),
      at(kernels),
      at(seqStart),
      S,
      N,
      C,
      W,
    );
    this.check("dynamicConvBackward", status);
  }

  glaGateBackward(dz: Tensor, da: Tensor, z: Tensor, normalizer: number): void {
    expectCounts("glaGateBackward", numel(z), { dz, da });
    this.check("glaGateBackward", this.symbols.graft_gla_gate_backward(at(dz), at(da), at(z), numel(z), normalizer));
  }

  gdnGateBackward(
    grads: { dza: Tensor; dzb: Tensor; dALog: Tensor; dDtBias: Tensor },
    upstream: { dg: Tensor; dbeta: Tensor },
    inputs: { za: Tensor; zb: Tensor; aLog: Tensor; dtBias: Tensor },
    betaScale: number,
  ): void {
    const Hv = numel(inputs.aLog);
    const N = rowsOf("gdnGateBackward", "za", inputs.za);
    expectCounts("gdnGateBackward", N * Hv, { dza: grads.dza, dzb: grads.dzb, ...upstream, zb: inputs.zb });
    expectCounts("gdnGateBackward", Hv, { dALog: grads.dALog, dDtBias: grads.dDtBias });
    const status = this.symbols.graft_gdn_gate_backward(
      at(grads.dza),
      at(grads.dzb),
      at(grads.dALog),
      at(grads.dDtBias),
      at(upstream.dg),
      at(upstream.dbeta),
      at(inputs.za),
      at(inputs.zb),
      at(inputs.aLog),
      at(inputs.dtBias),
      N,
      Hv,
      betaScale,
    );
    this.check("gdnGateBackward", status);
  }

  // ---- linear attention, training form ----

  /** Floats of the workspace that glaTrain fills and glaBackward reads. */
  glaTrainFloats(N: number, S: number, sizes: LinearSizes): number {
    const { numQueryHeads: Hq, numKeyHeads: Hkv, keyDim: Dk, valueDim: Dv } = sizes;
    return this.symbols.graft_gla_train_floats(N, S, Hq, Hkv, Dk, Dv);
  }

  glaTrain(
    out: { o: Tensor; finalState?: Tensor | null; workspace: Tensor },
    inputs: { q: Tensor; k: Tensor; v: Tensor; a: Tensor; initialState?: Tensor | null },
    seqStart: Tensor,
    sizes: LinearSizes,
  ): void {
    const { numQueryHeads: Hq, numKeyHeads: Hkv, keyDim: Dk, valueDim: Dv } = sizes;
    const N = rowsOf("glaTrain", "q", inputs.q);
    const S = numel(seqStart) - 1;
    expectCounts("glaTrain", N * Hkv * Dk, { k: inputs.k, a: inputs.a });
    expectCounts("glaTrain", N * Hq * Dk, { q: inputs.q });
    expectCounts("glaTrain", N * Hkv * Dv, { v: inputs.v });
    expectCounts("glaTrain", N * Hq * Dv, { o: out.o });
    const status = this.symbols.graft_gla_train(
      at(out.o),
      at(out.finalState),
      at(out.workspace),
      at(inputs.q),
      at(inputs.k),
      at(inputs.v),
      at(inputs.a),
      at(inputs.initialState),
      at(seqStart),
      S,
      N,
      Hq,
      Hkv,
      Dk,
      Dv,
      1 / Math.sqrt(Dk),
    );
    this.check("glaTrain", status);
  }

  glaBackward(
    grads: { dq: Tensor; dk: Tensor; dv: Tensor; da: Tensor; dInitial?: Tensor | null },
    upstream: { dO: Tensor; dFinal?: Tensor | null },
    saved: { q: Tensor; k: Tensor; v: Tensor; a: Tensor; initialState?: Tensor | null; workspace: Tensor },
    seqStart: Tensor,
    sizes: LinearSizes,
  ): void {
    const { numQueryHeads: Hq, numKeyHeads: Hkv, keyDim: Dk, valueDim: Dv } = sizes;
    const N = rowsOf("glaBackward", "q", saved.q);
    expectCounts("glaBackward", N * Hkv * Dk, { dk: grads.dk, da: grads.da });
    expectCounts("glaBackward", N * Hq * Dk, { dq: grads.dq });
    expectCounts("glaBackward", N * Hkv * Dv, { dv: grads.dv });
    expectCounts("glaBackward", N * Hq * Dv, { dO: upstream.dO });
    const status = this.symbols.graft_gla_backward(
      at(grads.dq),
      at(grads.dk),
      at(grads.dv),
      at(grads.da),
      at(grads.dInitial),
      at(saved.workspace),
      at(upstream.dO),
      at(upstream.dFinal),
      at(saved.q),
      at(saved.k),
      at(saved.v),
      at(saved.a),
      at(saved.initialState),
      at(seqStart),
      numel(seqStart) - 1,
      N,
      Hq,
      Hkv,
      Dk,
      Dv,
      1 / Math.sqrt(Dk),
    );
    this.check("glaBackward", status);
  }

  /** Floats of the workspace that gdnTrain fills and gdnBackward reads. */
  gdnTrainFloats(N: number, S: number, sizes: LinearSizes): number {
    const { numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
    return this.symbols.graft_gdn_train_floats(N, S, Hk, Hv, Dk, Dv);
  }

  gdnTrain(
    out: { o: Tensor; finalState?: Tensor | null; workspace: Tensor },
    inputs: { q: Tensor; k: Tensor; v: Tensor; g: Tensor; beta: Tensor; initialState?: Tensor | null },
    seqStart: Tensor,
    sizes: LinearSizes,
  ): void {
    const { numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
    const N = rowsOf("gdnTrain", "q", inputs.q);
    expectCounts("gdnTrain", N * Hk * Dk, { q: inputs.q, k: inputs.k });
    expectCounts("gdnTrain", N * Hv * Dv, { v: inputs.v, o: out.o });
    expectCounts("gdnTrain", N * Hv, { g: inputs.g, beta: inputs.beta });
    const status = this.symbols.graft_gdn_train(
      at(out.o),
      at(out.finalState),
      at(out.workspace),
      at(inputs.q),
      at(inputs.k),
      at(inputs.v),
      at(inputs.g),
      at(inputs.beta),
      at(inputs.initialState),
      at(seqStart),
      numel(seqStart) - 1,
      N,
      Hk,
      Hv,
      Dk,
      Dv,
      1 / Math.sqrt(Dk),
    );
    this.check("gdnTrain", status);
  }

  gdnBackward(
    grads: { dq: Tensor; dk: Tensor; dv: Tensor; dg: Tensor; dbeta: Tensor; dInitial?: Tensor | null },
    upstream: { dO: Tensor; dFinal?: Tensor | null },
    saved: {
      q: Tensor;
      k: Tensor;
      v: Tensor;
      g: Tensor;
      beta: Tensor;
      initialState?: Tensor | null;
      workspace: Tensor;
    },
    seqStart: Tensor,
    sizes: LinearSizes,
  ): void {
    const { numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
    const N = rowsOf("gdnBackward", "q", saved.q);
    expectCounts("gdnBackward", N * Hk * Dk, { dq: grads.dq, dk: grads.dk });
    expectCounts("gdnBackward", N * Hv * Dv, { dv: grads.dv, dO: upstream.dO });
    expectCounts("gdnBackward", N * Hv, { dg: grads.dg, dbeta: grads.dbeta });
    const status = this.symbols.graft_gdn_backward(
      at(grads.dq),
      at(grads.dk),
      at(grads.dv),
      at(grads.dg),
      at(grads.dbeta),
      at(grads.dInitial),
      at(saved.workspace),
      at(upstream.dO),
      at(upstream.dFinal),
      at(saved.q),
      at(saved.k),
      at(saved.v),
      at(saved.g),
      at(saved.beta),
      at(saved.initialState),
      at(seqStart),
      numel(seqStart) - 1,
      N,
      Hk,
      Hv,
      Dk,
      Dv,
      1 / Math.sqrt(Dk),
    );
    this.check("gdnBackward", status);
  }
}
