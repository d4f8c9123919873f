// The steps of a layer, as methods on tensors: what serving calls. What a layer is made of is in layer_structs.ts.
import { KernelError } from "../errors.ts";
import { dtypeCode } from "../tensor/dtype.ts";
import { numel, type Tensor } from "../tensor/tensor.ts";
import type { PackedLinear } from "./dense_ops.ts";
import { at, expectAtLeast, expectCount, expectRows, rowsOf } from "./expect.ts";
import { type AttentionSizes, ForwardOps, type PagedKv, type StateDtype } from "./forward_ops.ts";
import type { GdnStruct, GlaStruct, ProjectionSet } from "./layer_structs.ts";

/** Norm of rows: rms, or layer norm where there is a bias. */
export interface RowNorm {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
  readonly eps: number;
}

/** Where a batch's sequences keep their states in one layer: floats at slots[s] * stride of `state` and of `conv`. */
export interface LayerStates {
  readonly recurrent: Tensor;
  /** Windows of convolutions; null where the layer has none. */
  readonly conv: Tensor | null;
  readonly stride: number;
  /** i32[S] */
  readonly slots: Tensor;
  /** Of the recurrent states; windows of convolutions are float32. */
  readonly dtype: StateDtype;
}

/** Sequences of a ragged batch. */
export interface RaggedStarts {
  /** i32[S+1] */
  readonly seqStart: Tensor;
  /** i32[S]: position of each sequence's first row. */
  readonly startPos: Tensor;
}

/** Every step of a layer. */
export class StepOps extends ForwardOps {
  /** The norm alone. */
  rowNorm(y: Tensor, x: Tensor, { weight, bias, eps }: RowNorm): void {
    if (bias) this.layerNorm(y, x, weight, bias, eps);
    else this.rmsNorm(y, x, weight, eps);
  }

  /** ys[i] = activation(norm(x) Wᵢᵀ + biasᵢ); no ys[i] may be x. norm null: x as it is. */
  projections(ys: readonly Tensor[], x: Tensor, norm: RowNorm | null, set: ProjectionSet): void {
    const N = rowsOf("projections", "x", x);
    const { projections } = set;
    const { in: inputs, dtype } = projections[0]!.weight;
    expectRows("projections", "x", x, N, inputs);
    if (norm) expectCount("projections", "norm", norm.weight, inputs);
    if (N === 0) return;
    for (let i = 0; i < projections.length; i++) {
      const { weight } = projections[i]!;
      if (weight.in !== inputs || weight.dtype !== dtype) {
        throw new KernelError(
          `Cannot run projections: weight ${i} is ${weight.dtype} with ${weight.in} inputs, expected ${dtype} with ${inputs}`,
        );
      }
      expectRows("projections", "y", ys[i]!, N, weight.out);
    }
    const status = this.symbols.graft_projections(
      set.into(ys) as never,
      projections.length,
      at(x),
      at(norm?.weight),
      at(norm?.bias),
      N,
      inputs,
      dtypeCode(dtype),
      norm?.eps ?? 0,
    );
    this.check("projections", status);
  }

  /** h = silu(n gateᵀ) ⊙ (n upᵀ), n = the rms norm of x. */
  gatedLinear(h: Tensor, x: Tensor, norm: RowNorm, gate: PackedLinear, up: PackedLinear): void {
    const N = rowsOf("gatedLinear", "x", x);
    const { in: inputs, out, dtype } = gate;
    expectRows("gatedLinear", "x", x, N, inputs);
    expectRows("gatedLinear", "h", h, N, out);
    expectCount("gatedLinear", "norm", norm.weight, inputs);
    if (norm.bias !== null || up.in !== inputs || up.out !== out || up.dtype !== dtype) {
      throw new KernelError("Cannot run gatedLinear: expected an rms norm, and gate and up of one shape and dtype");
    }
    if (N === 0) return;
    const [g, u] = [gate.ptr as never, up.ptr as never];
    const { symbols } = this;
    const code = dtypeCode(dtype);
    this.check(
      "gatedLinear",
      symbols.graft_gated_linear(at(h), at(x), at(norm.weight), g, u, N, out, inputs, code, norm.eps),
    );
  }

  /**
   * o[N,Hq*D] of projected q[N,Hq*D], k, v[N,Hkv*D]: norms per head, rope, cache, attention. q and k are scratch afterwards.
   * @param longest no row stands at or beyond this position
   */
  attentionStep(
    o: Tensor,
    projected: { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor },
    kv: PagedKv,
    batch: RaggedStarts & { readonly longest: number },
    weights: {
      readonly norms: { readonly q: Tensor; readonly k: Tensor; readonly eps: number } | null;
      readonly ropeTable: Tensor | null;
    },
    sizes: AttentionSizes,
  ): void {
    const { q, k, v } = projected;
    const { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D } = sizes;
    const { norms, ropeTable } = weights;
    const N = rowsOf("attentionStep", "q", q);
    const S = rowsOf("attentionStep", "startPos", batch.startPos);
    expectRows("attentionStep", "q", q, N, Hq * D);
    expectRows("attentionStep", "o", o, N, Hq * D);
    expectRows("attentionStep", "k", k, N, Hkv * D);
    expectRows("attentionStep", "v", v, N, Hkv * D);
    expectCount("attentionStep", "seqStart", batch.seqStart, S + 1, "i32");
    expectCount("attentionStep", "startPos", batch.startPos, S, "i32");
    expectCount("attentionStep", "tableRows", kv.tableRows, S, "i32");
    if (norms) expectCount("attentionStep", "norms", norms.q, D);
    const P = ropeTable?.shape[0] ?? 0;
    if (ropeTable) expectRows("attentionStep", "ropeTable", ropeTable, P, D);
    const status = this.symbols.graft_attention_step(
      at(o),
      at(q),
      at(k),
      at(v),
      at(kv.kCache),
      at(kv.vCache),
      at(norms?.q),
      at(norms?.k),
      at(ropeTable),
      at(batch.seqStart),
      at(batch.startPos),
      at(kv.tableRows),
      at(kv.pageTable),
      kv.tableStride,
      batch.longest,
      S,
      N,
      Hq,
      Hkv,
      D,
      P,
      kv.pageSize,
      dtypeCode(kv.kCache.dtype),
      norms?.eps ?? 0,
      1 / Math.sqrt(D),
    );
    this.check("attentionStep", status);
  }

  /** y[N,Hq*Dv] of projected q, k, v and decay z: convolutions, gate, recurrence, output norm and gate. Inputs are scratch. */
  glaStep(
    y: Tensor,
    inputs: {
      readonly q: Tensor;
      readonly k: Tensor;
      readonly v: Tensor;
      readonly z: Tensor;
      readonly gate: Tensor | null;
    },
    batch: RaggedStarts,
    states: LayerStates,
    described: GlaStruct,
  ): void {
    const { q, k, v, z, gate } = inputs;
    const { numQueryHeads: Hq, numKeyHeads: H, keyDim: Dk, valueDim: Dv } = described.layer.sizes;
    const N = rowsOf("glaStep", "q", q);
    expectRows("glaStep", "y", y, N, Hq * Dv);
    expectRows("glaStep", "q", q, N, Hq * Dk);
    expectRows("glaStep", "k", k, N, H * Dk);
    expectRows("glaStep", "v", v, N, H * Dv);
    expectRows("glaStep", "z", z, N, H * Dk);
    if (gate) expectRows("glaStep", "gate", gate, N, Hq * Dv);
    const S = expectStates("glaStep", batch, states);
    const status = this.symbols.graft_gla_step(
      at(y),
      at(states.recurrent),
      at(states.conv),
      described.with(states.dtype) as never,
      at(q),
      at(k),
      at(v),
      at(z),
      at(gate),
      at(states.slots),
      at(batch.seqStart),
      at(batch.startPos),
      S,
      N,
      states.stride,
    );
    this.check("glaStep", status);
  }

  /** y[N,Hv*Dv] of projected q, k, v, za, zb; `kernels` [N,Hv*Dv,W] of a JetBlock. Inputs are scratch afterwards. */
  gdnStep(
    y: Tensor,
    inputs: {
      readonly q: Tensor;
      readonly k: Tensor;
      readonly v: Tensor;
      readonly za: Tensor;
      readonly zb: Tensor;
      readonly gate: Tensor | null;
      readonly kernels: Tensor | null;
    },
    batch: RaggedStarts,
    states: LayerStates,
    described: GdnStruct,
  ): void {
    const { q, k, v, za, zb, gate, kernels } = inputs;
    const { taps, sizes } = described.layer;
    const { numKeyHeads: Hk, numValueHeads: Hv, keyDim: Dk, valueDim: Dv } = sizes;
    const N = rowsOf("gdnStep", "q", q);
    expectRows("gdnStep", "y", y, N, Hv * Dv);
    expectRows("gdnStep", "q", q, N, Hk * Dk);
    expectRows("gdnStep", "k", k, N, Hk * Dk);
    expectRows("gdnStep", "v", v, N, Hv * Dv);
    expectRows("gdnStep", "za", za, N, Hv);
    expectRows("gdnStep", "zb", zb, N, Hv);
    if (gate) expectRows("gdnStep", "gate", gate, N, Hv * Dv);
    if (kernels) expectRows("gdnStep", "kernels", kernels, N, Hv * Dv * taps);
    const S = expectStates("gdnStep", batch, states);
    const status = this.symbols.graft_gdn_step(
      at(y),
      at(states.recurrent),
      at(states.conv),
      described.with(states.dtype) as never,
      at(q),
      at(k),
      at(v),
      at(kernels),
      at(za),
      at(zb),
      at(gate),
      at(states.slots),
      at(batch.seqStart),
      at(batch.startPos),
      S,
      N,
      states.stride,
    );
    this.check("gdnStep", status);
  }
}

/** Sequences of a batch whose slots fit. */
function expectStates(op: string, { seqStart, startPos }: RaggedStarts, { recurrent, stride, slots }: LayerStates) {
  const S = numel(startPos);
  expectCount(op, "seqStart", seqStart, S + 1, "i32");
  expectCount(op, "slots", slots, S, "i32");
  expectAtLeast(op, "recurrent", recurrent, stride);
  return S;
}
