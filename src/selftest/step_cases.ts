// Self-test cases of the steps of a layer, which serving is made of: prompts of several sequences, then a token of each.
import { GdnStruct, GlaStruct, ProjectionSet } from "../ops/layer_structs.ts";
import type { LinearSizes, PackedLinear, StateDtype } from "../ops/ops.ts";
import type { LayerStates, RaggedStarts, RowNorm } from "../ops/step_ops.ts";
import { type Tensor, view } from "../tensor/tensor.ts";
import { LIMITS, range, type SelftestCase, startsOf } from "./case.ts";
import type { Workbench } from "./workbench.ts";

type Weights = "f32" | "bf16";

function packed(b: Workbench, name: string, out: number, inputs: number, dtype: Weights): PackedLinear {
  return b.pack(dtype === "f32" ? b.random(name, [out, inputs]) : b.narrow(name, [out, inputs]));
}

function projections(N: number, inputs: number, dtype: Weights): SelftestCase {
  return {
    name: `projections and gated_linear, ${dtype}, ${N} × ${inputs}`,
    limit: dtype === "f32" ? LIMITS.forward : LIMITS.bf16Input,
    run(b) {
      const x = b.random("x", [N, inputs], 2);
      const weight = b.random("norm", [inputs]);
      const norms: [string, RowNorm | null][] = [
        ["plain", null],
        ["rms", { weight, bias: null, eps: 1e-5 }],
        ["layer", { weight, bias: b.random("norm bias", [inputs]), eps: 1e-5 }],
      ];
      const activations = ["identity", "silu", "gelu_tanh"] as const;
      const set = b.own(
        new ProjectionSet(
          b.ops,
          [64, 33, 7].map((out, i) => ({
            weight: packed(b, `w${i}`, out, inputs, dtype),
            bias: i === 1 ? b.random("bias", [out]) : null,
            activation: activations[i]!,
          })),
        ),
      );
      for (const [name, norm] of norms) {
        const ys = set.projections.map(({ weight: w }, i) => b.output(`${name} ${i}`, [N, w.out]));
        b.ops.projections(ys, x, norm, set);
      }
      const [gate, up] = [packed(b, "gate", 40, inputs, dtype), packed(b, "up", 40, inputs, dtype)];
      b.ops.gatedLinear(b.output("gated", [N, 40]), x, norms[1]![1]!, gate, up);
    },
  };
}

/** Rows that each sequence gets in one call after another. */
const CALLS = [
  [50, 1, 0, 33],
  [20, 1, 7, 1],
  [1, 1, 1, 1],
];

/** Which sequences have rows in a call, where these begin, and their number. */
function batchOf(b: Workbench, call: number, calls = CALLS) {
  const before = calls.slice(0, call);
  const sequences = range(calls[0]!.length).filter((s) => calls[call]![s]! > 0);
  const startsAt = sequences.map((s) => before.reduce((sum, counts) => sum + counts[s]!, 0));
  const counts = sequences.map((s) => calls[call]![s]!);
  const starts = startsOf(counts);
  const longest = Math.max(...startsAt.map((at, i) => at + counts[i]!));
  return {
    N: starts.at(-1)!,
    slots: b.ints(sequences),
    batch: { seqStart: b.ints(starts), startPos: b.ints(startsAt), longest },
  };
}

function attention(heads: readonly [number, number, number], dtype: "f32" | "bf16", norms: boolean): SelftestCase {
  const [Hq, Hkv, D] = heads;
  const tensorCores = dtype === "bf16" && [32, 64, 128].includes(D);
  return {
    name: `attention_step, ${dtype} pages, ${Hq} over ${Hkv} heads of ${D}${norms ? ", norms" : ""}`,
    limit: tensorCores ? LIMITS.bf16Weights : dtype === "bf16" ? LIMITS.bf16State : LIMITS.forward,
    run(b) {
      const [pageSize, stride, numSeqs] = [16, 6, CALLS[0]!.length];
      const cache = () => b.zeros([stride * numSeqs * pageSize, Hkv, D], dtype);
      const [kCache, vCache] = [cache(), cache()];
      // Pages lie backwards.
      const pageTable = b.ints(range(stride * numSeqs).reverse());
      const ropeTable = b.random("rope", [stride * pageSize, D]);
      const weights = {
        norms: norms ? { q: b.random("q norm", [D]), k: b.random("k norm", [D]), eps: 1e-6 } : null,
        ropeTable,
      };
      CALLS.forEach((_, call) => {
        const { N, slots, batch } = batchOf(b, call);
        const input = (name: string, width: number) => b.random(`${name} ${call}`, [N, width], 2);
        const projected = { q: input("q", Hq * D), k: input("k", Hkv * D), v: input("v", Hkv * D) };
        const kv = { kCache, vCache, tableRows: slots, pageTable, tableStride: stride, pageSize };
        const sizes = { numQueryHeads: Hq, numKvHeads: Hkv, headDim: D };
        b.ops.attentionStep(b.output(`o ${call}`, [N, Hq * D]), projected, kv, batch, weights, sizes);
      });
    },
  };
}

type Variant = "gla" | "gdn" | "jet";
const TAPS = 4;

interface LinearCase {
  readonly variant: Variant;
  readonly sizes: LinearSizes;
  readonly dtype: StateDtype;
  readonly convs: boolean;
  readonly block: number;
}

/** Widths of q, k and v. */
function widths({ sizes }: LinearCase): [number, number, number] {
  const { numQueryHeads, numKeyHeads, numValueHeads, keyDim, valueDim } = sizes;
  return [numQueryHeads * keyDim, numKeyHeads * keyDim, numValueHeads * valueDim];
}

/** One layer's states: a slot per sequence, recurrent part and windows end to end. */
function statesOf(b: Workbench, one: LinearCase): Omit<LayerStates, "slots"> {
  const { variant, sizes, dtype, block } = one;
  const floats =
    variant === "gla" ? b.ops.glaStateFloats(sizes, block, dtype) : b.ops.gdnStateFloats(sizes, block, dtype);
  const convolved = variant === "jet" ? widths(one).slice(2) : one.convs ? widths(one) : [];
  const windows = (TAPS - 1) * convolved.reduce((a, c) => a + c, 0);
  const offset = Math.ceil(floats / 16) * 16;
  const stride = offset + Math.ceil(windows / 16) * 16;
  const numSlots = CALLS[0]!.length;
  const recurrent = b.zeros([numSlots * stride]);
  return { recurrent, conv: windows > 0 ? view(recurrent, offset, [numSlots * stride - offset]) : null, stride, dtype };
}

function recurrentLayer(b: Workbench, one: LinearCase) {
  const conv = (name: string, width: number) => ({
    weight: b.random(`${name} taps`, [width, TAPS]),
    bias: b.random(`${name} bias`, [width]),
  });
  const [q, k, v] = widths(one);
  return {
    convs: one.convs && one.variant !== "jet" ? { q: conv("q", q), k: conv("k", k), v: conv("v", v) } : null,
    taps: one.convs || one.variant === "jet" ? TAPS : 0,
    sizes: one.sizes,
    block: one.block,
    outputNorm: b.random("gain", [one.sizes.valueDim]),
    normEps: 1e-5,
  };
}

/** Calls the step of one layer: y and inputs, the batch, the states. */
function stepOf(b: Workbench, one: LinearCase) {
  const { variant, sizes } = one;
  const { numQueryHeads, numKeyHeads, numValueHeads, keyDim, valueDim } = sizes;
  const layer = recurrentLayer(b, one);
  type Common = { q: Tensor; k: Tensor; v: Tensor; gate: Tensor };
  if (variant === "gla") {
    const struct = b.own(new GlaStruct(b.ops, { ...layer, gateNormalizer: 16 }));
    return {
      width: numQueryHeads * valueDim,
      run(y: Tensor, inputs: Common, call: number, N: number, batch: RaggedStarts, states: LayerStates) {
        const z = b.random(`z ${call}`, [N, numKeyHeads * keyDim], 3);
        b.ops.glaStep(y, { ...inputs, z }, batch, states, struct);
      },
    };
  }
  const gates = { aLog: b.random("A", [numValueHeads]), dtBias: b.random("dt", [numValueHeads]), betaScale: 1 };
  const struct = b.own(new GdnStruct(b.ops, { ...layer, ...gates }));
  return {
    width: numValueHeads * valueDim,
    run(y: Tensor, inputs: Common, call: number, N: number, batch: RaggedStarts, states: LayerStates) {
      const [za, zb] = [b.random(`za ${call}`, [N, numValueHeads], 3), b.random(`zb ${call}`, [N, numValueHeads], 3)];
      const kernels = variant === "jet" ? b.random(`taps ${call}`, [N, numValueHeads * valueDim * TAPS]) : null;
      b.ops.gdnStep(y, { ...inputs, za, zb, kernels }, batch, states, struct);
    },
  };
}

function linear(one: LinearCase, calls = CALLS): SelftestCase {
  const { variant, sizes, dtype, convs } = one;
  const step = variant === "gla" ? "gla_step" : "gdn_step";
  const what = variant === "jet" ? ", generated kernels" : convs ? ", convolutions" : "";
  return {
    name: `${step}, ${dtype} state, heads of ${sizes.keyDim} and ${sizes.valueDim}${what}`,
    limit: dtype === "f32" ? LIMITS.recurrent : LIMITS.bf16State,
    ...(calls === CALLS ? {} : { large: true }),
    run(b) {
      const states = statesOf(b, one);
      const { width, run } = stepOf(b, one);
      const [q, k, v] = widths(one);
      calls.forEach((_, call) => {
        const { N, slots, batch } = batchOf(b, call, calls);
        const input = (name: string, columns: number) => b.random(`${name} ${call}`, [N, columns]);
        const inputs = { q: input("q", q), k: input("k", k), v: input("v", v), gate: input("gate", width) };
        run(b.output(`y ${call}`, [N, width]), inputs, call, N, batch, { ...states, slots });
      });
    },
  };
}

const sizes = (Hq: number, Hk: number, Hv: number, keyDim: number, valueDim: number): LinearSizes => {
  return { numQueryHeads: Hq, numKeyHeads: Hk, numValueHeads: Hv, keyDim, valueDim };
};

/** Linear attention over prompts of many blocks, for devices alone. */
export const largeLinearCases: readonly SelftestCase[] = (["f32", "bf16"] as const).flatMap((dtype) =>
  (["gla", "gdn", "jet"] as const).map((variant) => {
    const heads = variant === "gla" ? sizes(8, 4, 4, 128, 128) : sizes(4, 4, 8, 128, 128);
    const prompts = [
      [300, 1, 65, 128],
      [1, 1, 1, 1],
    ];
    return linear({ variant, sizes: heads, dtype, convs: true, block: 16 }, prompts);
  }),
);

/** Cases of steps at small sizes. */
export const stepCases: readonly SelftestCase[] = [
  ...(["f32", "bf16"] as const).flatMap((dtype) => [
    projections(1, 96, dtype),
    projections(9, 72, dtype),
    projections(33, 64, dtype),
  ]),
  attention([4, 2, 24], "bf16", true),
  attention([4, 1, 128], "bf16", true),
  linear({ variant: "gla", sizes: sizes(4, 2, 2, 24, 40), dtype: "f32", convs: true, block: 16 }),
  linear({ variant: "gla", sizes: sizes(2, 2, 2, 32, 64), dtype: "bf16", convs: false, block: 16 }),
  linear({ variant: "gdn", sizes: sizes(2, 2, 4, 24, 40), dtype: "f32", convs: true, block: 16 }),
  linear({ variant: "gdn", sizes: sizes(2, 2, 2, 64, 64), dtype: "bf16", convs: false, block: 16 }),
  linear({ variant: "jet", sizes: sizes(2, 2, 2, 32, 40), dtype: "f32", convs: false, block: 16 }),
];
