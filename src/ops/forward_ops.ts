// The forward ops that know sequences: attention over pages, convolutions, linear attention over state slots.
// Shapes are given in the header; [N, H, D] and [N, H*D] are the same to a kernel.
import { dtypeCode } from "../tensor/dtype.ts";
import { numel, type Tensor } from "../tensor/tensor.ts";
import { DenseOps } from "./dense_ops.ts";
import { at, expectAtLeast, expectCount, expectRows, rowsOf } from "./expect.ts";

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

/** Type in which recurrent states are kept between tokens; all arithmetic is float32. */
export type StateDtype = "f32" | "bf16";

/** Slots of recurrent states; their stride counts floats (4 bytes) for either type. */
export interface RecurrentSlots extends StateSlots {
  readonly dtype: StateDtype;
}

/** One slot of recurrent state, to be read. */
export interface RecurrentSlot {
  readonly state: Tensor;
  readonly block: number;
  readonly dtype: StateDtype;
}

/** Every forward op. */
export class ForwardOps extends DenseOps {
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
  glaStateFloats(sizes: LinearSizes, block: number, dtype: StateDtype): number {
    const { numKeyHeads: H, keyDim: Dk, valueDim: Dv } = sizes;
    return this.symbols.graft_gla_state_floats(H, Dk, Dv, block, dtypeCode(dtype));
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
    state: RecurrentSlots,
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
      dtypeCode(state.dtype),
      state.stride,
      1 / Math.sqrt(Dk),
    );
    this.check("gla", status);
  }

  /** recurrent [Hkv, Dk, Dv] = the state after `position` tokens of one slot. */
  glaStateRead(recurrent: Tensor, slot: RecurrentSlot, sizes: LinearSizes, position: number): void {
    const { numKeyHeads: H, keyDim: Dk, valueDim: Dv } = sizes;
    const { state, block, dtype } = slot;
    expectCount("glaStateRead", "recurrent", recurrent, H * Dk * Dv);
    expectAtLeast("glaStateRead", "slot", state, this.glaStateFloats(sizes, block, dtype));
    const code = dtypeCode(dtype);
    const status = this.symbols.graft_gla_state_read(at(recurrent), at(state), H, Dk, Dv, block, code, position);
    this.check("glaStateRead", status);
  }

  /** Floats of one gdn state slot. */
  gdnStateFloats(sizes: LinearSizes, block: number, dtype: StateDtype): number {
    const { numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
    return this.symbols.graft_gdn_state_floats(Hk, Hv, Dk, Dv, block, dtypeCode(dtype));
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
    state: RecurrentSlots,
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
      dtypeCode(state.dtype),
      state.stride,
      1 / Math.sqrt(Dk),
    );
    this.check("gdn", status);
  }

  /** recurrent [Hv, Dk, Dv] = the state after `position` tokens of one slot. */
  gdnStateRead(recurrent: Tensor, slot: RecurrentSlot, sizes: LinearSizes, position: number): void {
    const { numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
    const { state, block, dtype } = slot;
    expectCount("gdnStateRead", "recurrent", recurrent, Hv * Dk * Dv);
    expectAtLeast("gdnStateRead", "slot", state, this.gdnStateFloats(sizes, block, dtype));
    const code = dtypeCode(dtype);
    const status = this.symbols.graft_gdn_state_read(at(recurrent), at(state), Hk, Hv, Dk, Dv, block, code, position);
    this.check("gdnStateRead", status);
  }
}
