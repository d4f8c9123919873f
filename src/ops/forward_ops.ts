// The forward ops of graft.h as methods on tensors: sizes come from shapes, every operand is checked, a status becomes
// an exception. Shapes are given in the header; [N, H, D] and [N, H*D] are the same to a kernel.
import { KernelError } from "../errors.ts";
import { dtypeCode } from "../tensor/dtype.ts";
import { numel, type Tensor } from "../tensor/tensor.ts";
import { Device } from "./device.ts";
import { at, expectAtLeast, expectCount, expectRows, rowsOf } from "./expect.ts";

/** A weight [out, in] in the library's own layout. */
export interface PackedLinear {
  readonly ptr: number;
  readonly out: number;
  readonly in: number;
  readonly dtype: "f32" | "bf16";
  readonly bytes: number;
}

/** Heads of softmax attention. */
export interface AttentionSizes {
  readonly numQueryHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** A paged KV cache of one layer and where each sequence's pages are. */
export interface PagedKv {
  readonly kCache: Tensor;
  readonly vCache: Tensor;
  readonly tableRows: Tensor;
  readonly pageTable: Tensor;
  readonly tableStride: number;
  readonly pageSize: number;
}

/** Heads of a linear-attention op; for gla numKeyHeads = numValueHeads = kv heads, for gdn numQueryHeads = numKeyHeads. */
export interface LinearSizes {
  readonly numQueryHeads: number;
  readonly numKeyHeads: number;
  readonly numValueHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
}

/** State slots of a ragged batch. */
export interface StateSlots {
  readonly state: Tensor;
  /** Floats from one slot to the next. */
  readonly stride: number;
  readonly slots: Tensor;
}

/** What serving needs: forward ops over packed weights, caches and states. */
export class ForwardOps extends Device {
  // ---- linear layers and rows ----

  /** Packs a row-major [out, in] weight; the result lives until freePacked(). */
  linearPack(weight: Tensor): PackedLinear {
    const [out, inputs] = weight.shape;
    if (out === undefined || inputs === undefined || weight.shape.length !== 2) {
      throw new KernelError(`Cannot run linearPack: weight is [${weight.shape}], expected [out, in]`);
    }
    const code = dtypeCode(weight.dtype);
    const bytes = this.symbols.graft_linear_packed_bytes(out, inputs, code);
    const ptr = this.allocBytes(bytes);
    this.check("linearPack", this.symbols.graft_linear_pack(ptr as never, at(weight), out, inputs, code));
    return { ptr, out, in: inputs, dtype: weight.dtype as "f32" | "bf16", bytes };
  }

  freePacked(w: PackedLinear): void {
    this.freeBytes(w.ptr);
  }

  /** y = x Wᵀ (+ bias) (+ residual); residual may be y. */
  linear(y: Tensor, x: Tensor, w: PackedLinear, bias: Tensor | null = null, residual: Tensor | null = null): void {
    const N = rowsOf("linear", "x", x);
    expectRows("linear", "x", x, N, w.in);
    expectRows("linear", "y", y, N, w.out);
    if (bias) expectCount("linear", "bias", bias, w.out);
    if (residual) expectRows("linear", "residual", residual, N, w.out);
    if (N === 0) return;
    const code = w.dtype === "f32" ? 0 : 1;
    const p = w.ptr as never;
    this.check("linear", this.symbols.graft_linear(at(y), at(x), p, at(bias), at(residual), N, w.out, w.in, code));
  }

  /** y[i] = table[ids[i]]; table is a row-major [V, C] tensor or a packed head. */
  embedding(y: Tensor, ids: Tensor, table: Tensor | PackedLinear): void {
    const packed = "out" in table;
    const [V, C] = packed ? [table.out, table.in] : [table.shape[0] ?? 0, table.shape[1] ?? 0];
    const N = rowsOf("embedding", "ids", ids);
    expectCount("embedding", "ids", ids, N, "i32");
    expectRows("embedding", "y", y, N, C);
    const code = dtypeCode(table.dtype);
    const status = this.symbols.graft_embedding(at(y), at(ids), table.ptr as never, N, V, C, code, packed ? 1 : 0);
    this.check("embedding", status);
  }

  /** y[i] = x[index[i]] */
  gatherRows(y: Tensor, x: Tensor, index: Tensor): void {
    const M = rowsOf("gatherRows", "index", index);
    const C = numel(x) / rowsOf("gatherRows", "x", x);
    expectCount("gatherRows", "index", index, M, "i32");
    expectRows("gatherRows", "y", y, M, C);
    this.check("gatherRows", this.symbols.graft_gather_rows(at(y), at(x), at(index), M, C));
  }

  /** y[index[i]] = x[i] */
  scatterRows(y: Tensor, x: Tensor, index: Tensor): void {
    const M = rowsOf("scatterRows", "index", index);
    const C = numel(y) / rowsOf("scatterRows", "y", y);
    expectCount("scatterRows", "index", index, M, "i32");
    expectRows("scatterRows", "x", x, M, C);
    this.check("scatterRows", this.symbols.graft_scatter_rows(at(y), at(x), at(index), M, C));
  }

  /** y = a + b; y may be either. */
  add(y: Tensor, a: Tensor, b: Tensor): void {
    const n = numel(y);
    expectCount("add", "a", a, n);
    expectCount("add", "b", b, n);
    this.check("add", this.symbols.graft_add(at(y), at(a), at(b), n));
  }

  /** y += alpha x */
  axpy(y: Tensor, x: Tensor, alpha: number): void {
    expectCount("axpy", "x", x, numel(y));
    this.check("axpy", this.symbols.graft_axpy(at(y), at(x), numel(y), alpha));
  }

  // ---- normalisation, activations, rope; rows are numel / C, so per-head norms need no reshape ----

  rmsNorm(y: Tensor, x: Tensor, w: Tensor, eps: number): void {
    const [N, C] = this.#rows("rmsNorm", x, w);
    expectCount("rmsNorm", "y", y, N * C);
    this.check("rmsNorm", this.symbols.graft_rms_norm(at(y), at(x), at(w), N, C, eps));
  }

  layerNorm(y: Tensor, x: Tensor, w: Tensor, b: Tensor, eps: number): void {
    const [N, C] = this.#rows("layerNorm", x, w);
    expectCount("layerNorm", "y", y, N * C);
    expectCount("layerNorm", "b", b, C);
    this.check("layerNorm", this.symbols.graft_layer_norm(at(y), at(x), at(w), at(b), N, C, eps));
  }

  /** y = rms(x; w) ⊙ silu(gate), per row of w's length; gate null: the norm alone. */
  gatedRmsNorm(y: Tensor, x: Tensor, gate: Tensor | null, w: Tensor, eps: number): void {
    const [N, C] = this.#rows("gatedRmsNorm", x, w);
    expectCount("gatedRmsNorm", "y", y, N * C);
    if (gate) expectCount("gatedRmsNorm", "gate", gate, N * C);
    this.check("gatedRmsNorm", this.symbols.graft_gated_rms_norm(at(y), at(x), at(gate), at(w), N, C, eps));
  }

  /** y = x / sqrt(Σx² + eps) over rows of C. */
  l2Norm(y: Tensor, x: Tensor, C: number, eps = 1e-6): void {
    expectCount("l2Norm", "y", y, numel(x));
    this.check("l2Norm", this.symbols.graft_l2_norm(at(y), at(x), numel(x) / C, C, eps));
  }

  silu(y: Tensor, x: Tensor): void {
    expectCount("silu", "y", y, numel(x));
    this.check("silu", this.symbols.graft_silu(at(y), at(x), numel(x)));
  }

  siluMul(y: Tensor, gate: Tensor, up: Tensor): void {
    expectCount("siluMul", "gate", gate, numel(y));
    expectCount("siluMul", "up", up, numel(y));
    this.check("siluMul", this.symbols.graft_silu_mul(at(y), at(gate), at(up), numel(y)));
  }

  geluTanh(y: Tensor, x: Tensor): void {
    expectCount("geluTanh", "y", y, numel(x));
    this.check("geluTanh", this.symbols.graft_gelu_tanh(at(y), at(x), numel(x)));
  }

  /** table[P, D] from invFreq[D/2]. */
  ropeTable(table: Tensor, invFreq: Tensor): void {
    const P = rowsOf("ropeTable", "table", table);
    const D = 2 * numel(invFreq);
    expectRows("ropeTable", "table", table, P, D);
    this.check("ropeTable", this.symbols.graft_rope_table(at(table), at(invFreq), P, D));
  }

  /** Rotates x [N, H, D] by its positions; direction -1 rotates back. */
  rope(y: Tensor, x: Tensor, positions: Tensor, table: Tensor, direction: 1 | -1 = 1): void {
    const N = rowsOf("rope", "x", x);
    const [P, D] = [table.shape[0] ?? 0, table.shape[1] ?? 0];
    const H = N === 0 ? 0 : numel(x) / (N * D);
    if (!Number.isInteger(H)) throw new KernelError(`Cannot run rope: x is [${x.shape}], not rows of heads of ${D}`);
    expectCount("rope", "positions", positions, N, "i32");
    expectRows("rope", "y", y, N, H * D);
    if (N === 0) return;
    this.check("rope", this.symbols.graft_rope(at(y), at(x), at(positions), at(table), N, H, D, P, direction));
  }

  // ---- softmax attention over a paged cache ----

  /** Writes k, v [N, Hkv, D] to the cache slots (page * pageSize + offset). */
  kvWrite(kv: PagedKv, k: Tensor, v: Tensor, slots: Tensor, sizes: AttentionSizes): void {
    const { numKvHeads: H, headDim: D } = sizes;
    const N = rowsOf("kvWrite", "slots", slots);
    expectCount("kvWrite", "slots", slots, N, "i32");
    expectRows("kvWrite", "k", k, N, H * D);
    expectRows("kvWrite", "v", v, N, H * D);
    const code = dtypeCode(kv.kCache.dtype);
    const [kc, vc] = [at(kv.kCache), at(kv.vCache)];
    this.check("kvWrite", this.symbols.graft_kv_write(kc, vc, at(k), at(v), at(slots), N, H, D, kv.pageSize, code));
  }

  /** Causal attention of N new rows of S sequences over their cached keys. seqStart [S+1], startPos [S]. */
  attention(o: Tensor, q: Tensor, kv: PagedKv, seqStart: Tensor, startPos: Tensor, sizes: AttentionSizes): void {
    const { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D } = sizes;
    const N = rowsOf("attention", "q", q);
    const S = rowsOf("attention", "startPos", startPos);
    expectRows("attention", "q", q, N, Hq * D);
    expectRows("attention", "o", o, N, Hq * D);
    expectCount("attention", "seqStart", seqStart, S + 1, "i32");
    expectCount("attention", "startPos", startPos, S, "i32");
    expectCount("attention", "tableRows", kv.tableRows, S, "i32");
    const status = this.symbols.graft_attention(
      at(o),
      at(q),
      at(kv.kCache),
      at(kv.vCache),
      at(seqStart),
      at(startPos),
      at(kv.tableRows),
      at(kv.pageTable),
      kv.tableStride,
      S,
      N,
      Hq,
      Hkv,
      D,
      kv.pageSize,
      dtypeCode(kv.kCache.dtype),
      1 / Math.sqrt(D),
    );
    this.check("attention", status);
  }

  // ---- convolutions and gates ----

  /** Causal depthwise convolution of u [N, C] with w [C, W]; `state` null: zero left context, nothing kept. */
  shortConv(
    y: Tensor,
    u: Tensor,
    w: Tensor,
    bias: Tensor | null,
    seqStart: Tensor,
    state: StateSlots | null,
    silu = true,
  ): void {
    const [C, W] = [rowsOf("shortConv", "w", w), numel(w) / rowsOf("shortConv", "w", w)];
    const N = rowsOf("shortConv", "u", u);
    const S = numel(seqStart) - 1;
    expectRows("shortConv", "u", u, N, C);
    expectRows("shortConv", "y", y, N, C);
    if (bias) expectCount("shortConv", "bias", bias, C);
    if (state) expectCount("shortConv", "slots", state.slots, S, "i32");
    const status = this.symbols.graft_short_conv(
      at(y),
      at(state?.state),
      at(u),
      at(w),
      at(bias),
      at(state?.slots),
      at(seqStart),
      S,
      N,
      C,
      W,
      state?.stride ?? 0,
      silu ? 1 : 0,
    );
    this.check("shortConv", status);
  }

  /** JetBlock's convolution of u [N, C] with per-token kernels [N, C, W], then silu. */
  dynamicConv(y: Tensor, u: Tensor, kernels: Tensor, seqStart: Tensor, state: StateSlots | null): void {
    const N = rowsOf("dynamicConv", "u", u);
    const S = numel(seqStart) - 1;
    const C = numel(u) / N;
    const W = numel(kernels) / (N * C);
    expectRows("dynamicConv", "y", y, N, C);
    expectRows("dynamicConv", "kernels", kernels, N, C * W);
    if (state) expectCount("dynamicConv", "slots", state.slots, S, "i32");
    const [s, slots] = [at(state?.state), at(state?.slots)];
    const stride = state?.stride ?? 0;
    const sym = this.symbols;
    this.check(
      "dynamicConv",
      sym.graft_dynamic_conv(at(y), s, at(u), at(kernels), slots, at(seqStart), S, N, C, W, stride),
    );
  }

  /** a = logsigmoid(z) / normalizer */
  glaGate(a: Tensor, z: Tensor, normalizer: number): void {
    expectCount("glaGate", "a", a, numel(z));
    this.check("glaGate", this.symbols.graft_gla_gate(at(a), at(z), numel(z), normalizer));
  }

  /** g = -exp(aLog) softplus(za + dtBias), beta = betaScale σ(zb); all [N, Hv]. */
  gdnGate(g: Tensor, beta: Tensor, za: Tensor, zb: Tensor, aLog: Tensor, dtBias: Tensor, betaScale: number): void {
    const Hv = numel(aLog);
    const N = rowsOf("gdnGate", "za", za);
    for (const [name, t] of [["g", g] as const, ["beta", beta] as const, ["za", za] as const, ["zb", zb] as const]) {
      expectRows("gdnGate", name, t, N, Hv);
    }
    expectCount("gdnGate", "dtBias", dtBias, Hv);
    const sym = this.symbols;
    this.check("gdnGate", sym.graft_gdn_gate(at(g), at(beta), at(za), at(zb), at(aLog), at(dtBias), N, Hv, betaScale));
  }

  // ---- linear attention, serving form ----

  /** Floats of one gla state slot. */
  glaStateFloats(sizes: LinearSizes, block: number): number {
    return this.symbols.graft_gla_state_floats(sizes.numKeyHeads, sizes.keyDim, sizes.valueDim, block);
  }

  /** o [N, Hq, Dv] from q [N, Hq, Dk], k and log decay a [N, Hkv, Dk], v [N, Hkv, Dv]; advances the state slots. */
  gla(
    o: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    seqStart: Tensor,
    startPos: Tensor,
    state: StateSlots,
    sizes: LinearSizes,
    block: number,
  ): void {
    const { numQueryHeads: Hq, numKeyHeads: Hkv, keyDim: Dk, valueDim: Dv } = sizes;
    const N = rowsOf("gla", "q", q);
    const S = rowsOf("gla", "startPos", startPos);
    expectRows("gla", "q", q, N, Hq * Dk);
    expectRows("gla", "k", k, N, Hkv * Dk);
    expectRows("gla", "v", v, N, Hkv * Dv);
    expectRows("gla", "a", a, N, Hkv * Dk);
    expectRows("gla", "o", o, N, Hq * Dv);
    expectCount("gla", "seqStart", seqStart, S + 1, "i32");
    expectCount("gla", "slots", state.slots, S, "i32");
    const status = this.symbols.graft_gla(
      at(o),
      at(state.state),
      at(q),
      at(k),
      at(v),
      at(a),
      at(state.slots),
      at(seqStart),
      at(startPos),
      S,
      N,
      Hq,
      Hkv,
      Dk,
      Dv,
      block,
      state.stride,
      1 / Math.sqrt(Dk),
    );
    this.check("gla", status);
  }

  /** recurrent [Hkv, Dk, Dv] = the state after `position` tokens of one slot. */
  glaStateRead(recurrent: Tensor, slot: Tensor, sizes: LinearSizes, block: number, position: number): void {
    const { numKeyHeads: H, keyDim: Dk, valueDim: Dv } = sizes;
    expectCount("glaStateRead", "recurrent", recurrent, H * Dk * Dv);
    expectAtLeast("glaStateRead", "slot", slot, this.glaStateFloats(sizes, block));
    const status = this.symbols.graft_gla_state_read(at(recurrent), at(slot), H, Dk, Dv, block, position);
    this.check("glaStateRead", status);
  }

  /** Floats of one gdn state slot. */
  gdnStateFloats(sizes: LinearSizes, block: number): number {
    const { numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
    return this.symbols.graft_gdn_state_floats(Hk, Hv, Dk, Dv, block);
  }

  /** o [N, Hv, Dv] from normalised q, k [N, Hk, Dk], v [N, Hv, Dv], log decay g and beta [N, Hv]; advances the slots. */
  gdn(
    o: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    seqStart: Tensor,
    startPos: Tensor,
    state: StateSlots,
    sizes: LinearSizes,
    block: number,
  ): void {
    const { numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
    const N = rowsOf("gdn", "q", q);
    const S = rowsOf("gdn", "startPos", startPos);
    expectRows("gdn", "q", q, N, Hk * Dk);
    expectRows("gdn", "k", k, N, Hk * Dk);
    expectRows("gdn", "v", v, N, Hv * Dv);
    expectRows("gdn", "g", g, N, Hv);
    expectRows("gdn", "beta", beta, N, Hv);
    expectRows("gdn", "o", o, N, Hv * Dv);
    expectCount("gdn", "seqStart", seqStart, S + 1, "i32");
    expectCount("gdn", "slots", state.slots, S, "i32");
    const status = this.symbols.graft_gdn(
      at(o),
      at(state.state),
      at(q),
      at(k),
      at(v),
      at(g),
      at(beta),
      at(state.slots),
      at(seqStart),
      at(startPos),
      S,
      N,
      Hk,
      Hv,
      Dk,
      Dv,
      block,
      state.stride,
      1 / Math.sqrt(Dk),
    );
    this.check("gdn", status);
  }

  /** recurrent [Hv, Dk, Dv] = the state after `position` tokens of one slot. */
  gdnStateRead(recurrent: Tensor, slot: Tensor, sizes: LinearSizes, block: number, position: number): void {
    const { numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
    expectCount("gdnStateRead", "recurrent", recurrent, Hv * Dk * Dv);
    expectAtLeast("gdnStateRead", "slot", slot, this.gdnStateFloats(sizes, block));
    const status = this.symbols.graft_gdn_state_read(at(recurrent), at(slot), Hk, Hv, Dk, Dv, block, position);
    this.check("gdnStateRead", status);
  }

  // ---- scores and sampling ----

  /** Log-probability of ids[i] under logits row i and the argmax of the row; either output may be null. */
  logProb(logprob: Tensor | null, argmax: Tensor | null, logits: Tensor, ids: Tensor): void {
    const N = rowsOf("logProb", "ids", ids);
    const V = numel(logits) / N;
    expectRows("logProb", "logits", logits, N, V);
    expectCount("logProb", "ids", ids, N, "i32");
    if (logprob) expectCount("logProb", "logprob", logprob, N);
    if (argmax) expectCount("logProb", "argmax", argmax, N, "i32");
    this.check("logProb", this.symbols.graft_log_prob(at(logprob), at(argmax), at(logits), at(ids), N, V));
  }

  /** params: N packed `graft_sampling` records of 8 words (see the header). */
  sample(ids: Tensor, logprob: Tensor | null, logits: Tensor, params: Tensor): void {
    const N = rowsOf("sample", "ids", ids);
    const V = numel(logits) / N;
    expectCount("sample", "ids", ids, N, "i32");
    expectRows("sample", "logits", logits, N, V);
    expectAtLeast("sample", "params", params, N * 8, params.dtype);
    if (logprob) expectCount("sample", "logprob", logprob, N);
    this.check("sample", this.symbols.graft_sample(at(ids), at(logprob), at(logits), at(params), N, V));
  }

  /** Rows and channels of x for a norm whose weight has C elements. */
  #rows(op: string, x: Tensor, w: Tensor): [number, number] {
    const C = numel(w);
    const N = numel(x) / C;
    if (!Number.isInteger(N)) throw new KernelError(`Cannot run ${op}: x is [${x.shape}], not rows of ${C}`);
    return [N, C];
  }
}
