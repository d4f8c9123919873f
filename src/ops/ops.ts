// All ops of a backend: the forward ones plus what training needs (products, backward passes, losses, AdamW).
// A gradient marked "+=" in graft.h is added to what the tensor holds.
import { KernelError } from "../errors.ts";
import { numel, type Tensor } from "../tensor/tensor.ts";
import { at, expectCount, expectRows, rowsOf } from "./expect.ts";
import { type AttentionSizes, ForwardOps, type LinearSizes } from "./forward_ops.ts";
import type { LibraryOptions } from "./library.ts";

export type { AttentionSizes, LinearSizes, PackedLinear, PagedKv, StateSlots } from "./forward_ops.ts";

/** Scalars of one AdamW step with decoupled weight decay. */
export interface AdamwStep {
  readonly step: number;
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** Clip of the gradient's norm; used only with a norm. */
  readonly maxNorm: number;
}

/** Every op of graft.h under its own name in camelCase. */
export class Ops extends ForwardOps {
  /** Opens the kernels of this machine (or those asked for). @throws RequestError if they cannot run here. */
  static async load(options: LibraryOptions = {}): Promise<Ops> {
    const { symbols, isa } = await Ops.open(options);
    return new Ops(symbols, isa);
  }

  // ---- products with row-major f32 weights ----

  /** y[N,M] = x[N,K] Wᵀ (+ bias), or added to y. */
  matmulNt(y: Tensor, x: Tensor, w: Tensor, bias: Tensor | null = null, accumulate = false): void {
    const [N, M, K] = this.#product("matmulNt", y, x, w);
    if (bias) expectCount("matmulNt", "bias", bias, M);
    const acc = accumulate ? 1 : 0;
    this.check("matmulNt", this.symbols.graft_matmul_nt(at(y), at(x), at(w), at(bias), N, M, K, acc));
  }

  /** dx[N,K] = dy[N,M] W */
  matmulNn(dx: Tensor, dy: Tensor, w: Tensor, accumulate = false): void {
    const [N, M, K] = this.#product("matmulNn", dy, dx, w);
    this.check("matmulNn", this.symbols.graft_matmul_nn(at(dx), at(dy), at(w), N, M, K, accumulate ? 1 : 0));
  }

  /** dw[M,K] = dyᵀ x */
  matmulTn(dw: Tensor, dy: Tensor, x: Tensor, accumulate = false): void {
    const [N, M, K] = this.#product("matmulTn", dy, x, dw);
    this.check("matmulTn", this.symbols.graft_matmul_tn(at(dw), at(dy), at(x), N, M, K, accumulate ? 1 : 0));
  }

  /** db[M] = column sums of dy[N,M] */
  sumRows(db: Tensor, dy: Tensor, accumulate = false): void {
    const M = numel(db);
    const N = rowsOf("sumRows", "dy", dy);
    expectRows("sumRows", "dy", dy, N, M);
    this.check("sumRows", this.symbols.graft_sum_rows(at(db), at(dy), N, M, accumulate ? 1 : 0));
  }

  // ---- backward passes ----

  /** dtable[V,C] += rows of dy[N,C] */
  embeddingBackward(dtable: Tensor, ids: Tensor, dy: Tensor): void {
    const [V, C] = [rowsOf("embeddingBackward", "dtable", dtable), numel(dtable) / (dtable.shape[0] ?? 1)];
    const N = rowsOf("embeddingBackward", "ids", ids);
    expectCount("embeddingBackward", "ids", ids, N, "i32");
    expectRows("embeddingBackward", "dy", dy, N, C);
    this.check("embeddingBackward", this.symbols.graft_embedding_backward(at(dtable), at(ids), at(dy), N, V, C));
  }

  rmsNormBackward(dx: Tensor, dw: Tensor, dy: Tensor, x: Tensor, w: Tensor, eps: number, accumulateDx = false): void {
    const C = numel(w);
    const N = numel(x) / C;
    this.#same("rmsNormBackward", N * C, { dx, dy });
    expectCount("rmsNormBackward", "dw", dw, C);
    const acc = accumulateDx ? 1 : 0;
    const sym = this.symbols;
    this.check("rmsNormBackward", sym.graft_rms_norm_backward(at(dx), at(dw), at(dy), at(x), at(w), N, C, eps, acc));
  }

  layerNormBackward(
    dx: Tensor,
    dw: Tensor,
    db: Tensor,
    dy: Tensor,
    x: Tensor,
    w: Tensor,
    eps: number,
    accumulateDx = false,
  ): void {
    const C = numel(w);
    const N = numel(x) / C;
    this.#same("layerNormBackward", N * C, { dx, dy });
    this.#same("layerNormBackward", C, { dw, db });
    const acc = accumulateDx ? 1 : 0;
    const status = this.symbols.graft_layer_norm_backward(at(dx), at(dw), at(db), at(dy), at(x), at(w), N, C, eps, acc);
    this.check("layerNormBackward", status);
  }

  gatedRmsNormBackward(
    dx: Tensor,
    dgate: Tensor | null,
    dw: Tensor,
    dy: Tensor,
    x: Tensor,
    gate: Tensor | null,
    w: Tensor,
    eps: number,
  ): void {
    const C = numel(w);
    const N = numel(x) / C;
    this.#same("gatedRmsNormBackward", N * C, { dx, dy, ...(dgate ? { dgate } : {}), ...(gate ? { gate } : {}) });
    expectCount("gatedRmsNormBackward", "dw", dw, C);
    const status = this.symbols.graft_gated_rms_norm_backward(
      at(dx),
      at(dgate),
      at(dw),
      at(dy),
      at(x),
      at(gate),
      at(w),
      N,
      C,
      eps,
    );
    this.check("gatedRmsNormBackward", status);
  }

  l2NormBackward(dx: Tensor, dy: Tensor, x: Tensor, C: number, eps = 1e-6): void {
    this.#same("l2NormBackward", numel(x), { dx, dy });
    this.check("l2NormBackward", this.symbols.graft_l2_norm_backward(at(dx), at(dy), at(x), numel(x) / C, C, eps));
  }

  siluBackward(dx: Tensor, dy: Tensor, x: Tensor): void {
    this.#same("siluBackward", numel(x), { dx, dy });
    this.check("siluBackward", this.symbols.graft_silu_backward(at(dx), at(dy), at(x), numel(x)));
  }

  siluMulBackward(dgate: Tensor, dup: Tensor, dy: Tensor, gate: Tensor, up: Tensor): void {
    const n = numel(dy);
    this.#same("siluMulBackward", n, { dgate, dup, gate, up });
    const sym = this.symbols;
    this.check("siluMulBackward", sym.graft_silu_mul_backward(at(dgate), at(dup), at(dy), at(gate), at(up), n));
  }

  geluTanhBackward(dx: Tensor, dy: Tensor, x: Tensor): void {
    this.#same("geluTanhBackward", numel(x), { dx, dy });
    this.check("geluTanhBackward", this.symbols.graft_gelu_tanh_backward(at(dx), at(dy), at(x), numel(x)));
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
    this.#same("attentionBackward", N * Hq * D, { dq: grads.dq, dO, o: saved.o, q: saved.q });
    this.#same("attentionBackward", N * Hkv * D, { dk: grads.dk, dv: grads.dv, k: saved.k, v: saved.v });
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
    this.#same("shortConvBackward", N * C, { du, dy, u });
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
    this.#same("dynamicConvBackward", N * C, { du, dy });
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
    this.#same("glaGateBackward", numel(z), { dz, da });
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
    this.#same("gdnGateBackward", N * Hv, { dza: grads.dza, dzb: grads.dzb, ...upstream, zb: inputs.zb });
    this.#same("gdnGateBackward", Hv, { dALog: grads.dALog, dDtBias: grads.dDtBias });
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
    this.#same("glaTrain", N * Hkv * Dk, { k: inputs.k, a: inputs.a });
    this.#same("glaTrain", N * Hq * Dk, { q: inputs.q });
    this.#same("glaTrain", N * Hkv * Dv, { v: inputs.v });
    this.#same("glaTrain", N * Hq * Dv, { o: out.o });
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
    this.#same("glaBackward", N * Hkv * Dk, { dk: grads.dk, da: grads.da });
    this.#same("glaBackward", N * Hq * Dk, { dq: grads.dq });
    this.#same("glaBackward", N * Hkv * Dv, { dv: grads.dv });
    this.#same("glaBackward", N * Hq * Dv, { dO: upstream.dO });
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
    this.#same("gdnTrain", N * Hk * Dk, { q: inputs.q, k: inputs.k });
    this.#same("gdnTrain", N * Hv * Dv, { v: inputs.v, o: out.o });
    this.#same("gdnTrain", N * Hv, { g: inputs.g, beta: inputs.beta });
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
    this.#same("gdnBackward", N * Hk * Dk, { dq: grads.dq, dk: grads.dk });
    this.#same("gdnBackward", N * Hv * Dv, { dv: grads.dv, dO: upstream.dO });
    this.#same("gdnBackward", N * Hv, { dg: grads.dg, dbeta: grads.dbeta });
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

  // ---- losses and the optimiser ----

  /** loss[N] and, if wanted, dlogits (may be logits) = gradScale * gradient; label -100 is ignored. */
  crossEntropy(loss: Tensor, dlogits: Tensor | null, logits: Tensor, labels: Tensor, gradScale = 1): void {
    const N = rowsOf("crossEntropy", "labels", labels);
    const V = numel(logits) / N;
    expectRows("crossEntropy", "logits", logits, N, V);
    expectCount("crossEntropy", "labels", labels, N, "i32");
    expectCount("crossEntropy", "loss", loss, N);
    if (dlogits) expectRows("crossEntropy", "dlogits", dlogits, N, V);
    const sym = this.symbols;
    this.check("crossEntropy", sym.graft_cross_entropy(at(loss), at(dlogits), at(logits), at(labels), N, V, gradScale));
  }

  /** stats (f64 [2]) = Σ(y-target)², Σtarget²; dy = gradient of their ratio, or of the plain mean. */
  mse(stats: Tensor, dy: Tensor | null, y: Tensor, target: Tensor, normalized: boolean): void {
    const n = numel(y);
    expectCount("mse", "stats", stats, 2, "f64");
    expectCount("mse", "target", target, n);
    if (dy) expectCount("mse", "dy", dy, n);
    this.check("mse", this.symbols.graft_mse(at(stats), at(dy), at(y), at(target), n, normalized ? 1 : 0));
  }

  /** out (f64 [1]) = Σx² */
  sumSquares(out: Tensor, x: Tensor, accumulate = false): void {
    expectCount("sumSquares", "out", out, 1, "f64");
    this.check("sumSquares", this.symbols.graft_sum_squares(at(out), at(x), numel(x), accumulate ? 1 : 0));
  }

  /** One AdamW step on p with moments m, v; normSquared (f64 [1]) is Σg² over the whole clipped group, or null. */
  adamw(p: Tensor, m: Tensor, v: Tensor, g: Tensor, normSquared: Tensor | null, settings: AdamwStep): void {
    const n = numel(p);
    this.#same("adamw", n, { m, v, g });
    const { step, lr, beta1, beta2, eps, weightDecay, maxNorm } = settings;
    const status = this.symbols.graft_adamw(
      at(p),
      at(m),
      at(v),
      at(g),
      at(normSquared),
      n,
      step,
      lr,
      beta1,
      beta2,
      eps,
      weightDecay,
      maxNorm,
    );
    this.check("adamw", status);
  }

  #same(op: string, count: number, operands: Readonly<Record<string, Tensor>>): void {
    for (const name in operands) expectCount(op, name, operands[name]!, count);
  }

  /** Sizes N, M, K of y[N,M], x[N,K], w[M,K]. */
  #product(op: string, y: Tensor, x: Tensor, w: Tensor): [number, number, number] {
    const [M, K] = w.shape;
    const N = rowsOf(op, "x", x);
    if (M === undefined || K === undefined || w.shape.length !== 2) {
      throw new KernelError(`Cannot run ${op}: the weight is [${w.shape}], expected two dimensions`);
    }
    expectRows(op, "its [N, K] operand", x, N, K);
    expectRows(op, "its [N, M] operand", y, N, M);
    expectCount(op, "the weight", w, M * K);
    return [N, M, K];
  }
}
