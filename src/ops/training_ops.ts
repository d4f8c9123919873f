// What training needs row by row: products with plain weights, backward passes, losses, AdamW.
// A gradient marked "+=" in graft.h is added to what the tensor holds.
import { KernelError } from "../errors.ts";
import { numel, type Tensor } from "../tensor/tensor.ts";
import { at, expectCount, expectCounts, expectRows, rowsOf } from "./expect.ts";
import { SamplingOps } from "./sampling_ops.ts";

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

/** The forward ops, and the training ops that know no sequence. */
export class TrainingOps extends SamplingOps {
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
    expectCounts("rmsNormBackward", N * C, { dx, dy });
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
    expectCounts("layerNormBackward", N * C, { dx, dy });
    expectCounts("layerNormBackward", C, { dw, db });
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
    expectCounts("gatedRmsNormBackward", N * C, { dx, dy, ...(dgate ? { dgate } : {}), ...(gate ? { gate } : {}) });
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
    expectCounts("l2NormBackward", numel(x), { dx, dy });
    this.check("l2NormBackward", this.symbols.graft_l2_norm_backward(at(dx), at(dy), at(x), numel(x) / C, C, eps));
  }

  siluBackward(dx: Tensor, dy: Tensor, x: Tensor): void {
    expectCounts("siluBackward", numel(x), { dx, dy });
    this.check("siluBackward", this.symbols.graft_silu_backward(at(dx), at(dy), at(x), numel(x)));
  }

  siluMulBackward(dgate: Tensor, dup: Tensor, dy: Tensor, gate: Tensor, up: Tensor): void {
    const n = numel(dy);
    expectCounts("siluMulBackward", n, { dgate, dup, gate, up });
    const sym = this.symbols;
    this.check("siluMulBackward", sym.graft_silu_mul_backward(at(dgate), at(dup), at(dy), at(gate), at(up), n));
  }

  geluTanhBackward(dx: Tensor, dy: Tensor, x: Tensor): void {
    expectCounts("geluTanhBackward", numel(x), { dx, dy });
    this.check("geluTanhBackward", this.symbols.graft_gelu_tanh_backward(at(dx), at(dy), at(x), numel(x)));
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
    expectCounts("adamw", n, { m, v, g });
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
