// Self-test cases of the short and dynamic convolutions and of gated linear attention and the gated delta rule, in their
// serving and training forms.
import type { LinearSizes, StateDtype } from "../ops/ops.ts";
import { LIMITS, range, type SelftestCase, startsOf } from "./case.ts";
import type { Workbench } from "./workbench.ts";

const LENGTHS = [33, 1, 70];
const N = 104;
const BLOCK = 32;

const [C, W] = [33, 4];

function convInputs(b: Workbench) {
  const [u, bias] = [b.random("u", [N, C]), b.random("bias", [C])];
  return { u, bias, w: b.random("w", [C, W]), kernels: b.random("kernels", [N, C, W]) };
}

const convolutions: SelftestCase = {
  name: "short_conv, dynamic_conv, 4 taps of 33 channels",
  limit: LIMITS.forward,
  run(b) {
    const shape = [N, C];
    const seqStart = b.ints(startsOf(LENGTHS));
    const { u, bias, w, kernels } = convInputs(b);
    const state = (name: string) => ({
      state: b.sum(name, [4, (W - 1) * C]),
      stride: (W - 1) * C,
      slots: b.ints([2, 0, 3]),
    });
    b.ops.shortConv(b.output("y", shape), u, w, bias, seqStart, state("short state"));
    b.ops.shortConv(b.output("fresh", shape), u, w, null, seqStart, null, false);
    b.ops.dynamicConv(b.output("dynamic", shape), u, kernels, seqStart, state("dynamic state"));
  },
};

const convolutionGradients: SelftestCase = {
  name: "gradients of short_conv and dynamic_conv, 4 taps of 33 channels",
  limit: LIMITS.gradient,
  training: true,
  run(b) {
    const shape = [N, C];
    const seqStart = b.ints(startsOf(LENGTHS));
    const { u, bias, w, kernels } = convInputs(b);
    const dy = b.random("dy", shape);
    b.ops.shortConvBackward(b.output("du", shape), b.sum("dw", [C, W]), b.sum("db", [C]), dy, u, w, bias, seqStart);
    b.ops.dynamicConvBackward(b.output("ddu", shape), b.output("dkernels", [N, C, W]), dy, u, kernels, seqStart);
  },
};

type Variant = "gla" | "gdn";
const sizesOf = { gla: [4, 2, 2], gdn: [2, 2, 4] } as const;

function linearSizes(variant: Variant): LinearSizes {
  const [numQueryHeads, numKeyHeads, numValueHeads] = sizesOf[variant];
  return { numQueryHeads, numKeyHeads, numValueHeads, keyDim: 24, valueDim: 40 };
}

/** q, k (of unit length for gdn), v and the gates of N rows. */
function inputs(b: Workbench, variant: Variant, s: LinearSizes) {
  const unit = (name: string, heads: number) => {
    const t = b.random(name, [N, heads, s.keyDim]);
    if (variant === "gdn") b.ops.l2Norm(t, t, s.keyDim);
    return t;
  };
  return {
    q: unit("q", s.numQueryHeads),
    k: unit("k", s.numKeyHeads),
    v: b.random("v", [N, s.numValueHeads, s.valueDim]),
    a: b.random("a", [N, s.numKeyHeads, s.keyDim], 0.1, -0.1),
    g: b.random("g", [N, s.numValueHeads], 0.1, -0.1),
    beta: b.random("beta", [N, s.numValueHeads], 0.5, 0.5),
  };
}

/** Prompts of 33, 1 and 70 tokens in three slots, then the state of each. */
function serve(b: Workbench, variant: Variant, dtype: StateDtype): void {
  const { ops } = b;
  const s = linearSizes(variant);
  const { q, k, v, a, g, beta } = inputs(b, variant, s);
  const floats = variant === "gla" ? ops.glaStateFloats(s, BLOCK, dtype) : ops.gdnStateFloats(s, BLOCK, dtype);
  const stride = Math.ceil(floats / 16) * 16;
  const state = { state: b.zeros([LENGTHS.length, stride]), stride, slots: b.ints([2, 0, 1]), dtype };
  const [seqStart, startPos] = [b.ints(startsOf(LENGTHS)), b.ints([0, 0, 0])];
  const o = b.output("o", [N, variant === "gla" ? s.numQueryHeads : s.numValueHeads, s.valueDim]);
  if (variant === "gla") ops.gla(o, q, k, v, a, seqStart, startPos, state, s, BLOCK);
  else ops.gdn(o, q, k, v, g, beta, seqStart, startPos, state, s, BLOCK);
  for (const i of range(LENGTHS.length)) {
    const at = state.state.ptr + [2, 0, 1][i]! * stride * 4;
    const slot = { state: { ...state.state, ptr: at, shape: [stride] }, block: BLOCK, dtype };
    const recurrent = b.output(`state ${i}`, [s.numValueHeads, s.keyDim, s.valueDim]);
    if (variant === "gla") ops.glaStateRead(recurrent, slot, s, LENGTHS[i]!);
    else ops.gdnStateRead(recurrent, slot, s, LENGTHS[i]!);
  }
}

function train(b: Workbench, variant: Variant): void {
  const { ops } = b;
  const s = linearSizes(variant);
  const { q, k, v, a, g, beta } = inputs(b, variant, s);
  const S = LENGTHS.length;
  const seqStart = b.ints(startsOf(LENGTHS));
  const stateShape = [S, s.numValueHeads, s.keyDim, s.valueDim];
  const initialState = b.random("initial", stateShape);
  const floats = variant === "gla" ? ops.glaTrainFloats(N, S, s) : ops.gdnTrainFloats(N, S, s);
  const o = b.output("o", [N, variant === "gla" ? s.numQueryHeads : s.numValueHeads, s.valueDim]);
  const out = { o, finalState: b.output("final", stateShape), workspace: b.zeros([floats]) };
  const upstream = { dO: b.random("dO", o.shape), dFinal: b.random("dFinal", stateShape) };
  const gradients = {
    dq: b.output("dq", q.shape),
    dk: b.output("dk", k.shape),
    dv: b.output("dv", v.shape),
    dInitial: b.output("dInitial", stateShape),
  };
  if (variant === "gla") {
    ops.glaTrain(out, { q, k, v, a, initialState }, seqStart, s);
    const saved = { q, k, v, a, initialState, workspace: out.workspace };
    ops.glaBackward({ ...gradients, da: b.output("da", a.shape) }, upstream, saved, seqStart, s);
  } else {
    ops.gdnTrain(out, { q, k, v, g, beta, initialState }, seqStart, s);
    const saved = { q, k, v, g, beta, initialState, workspace: out.workspace };
    const gates = { dg: b.output("dg", g.shape), dbeta: b.output("dbeta", beta.shape) };
    ops.gdnBackward({ ...gradients, ...gates }, upstream, saved, seqStart, s);
  }
}

/** Cases of convolutions and linear attention. */
export const recurrentCases: readonly SelftestCase[] = [
  convolutions,
  convolutionGradients,
  ...(["gla", "gdn"] as const).flatMap((variant): SelftestCase[] => [
    {
      name: `${variant}, ${variant}_state_read, 33 + 1 + 70 rows`,
      limit: LIMITS.recurrent,
      run: (b) => serve(b, variant, "f32"),
    },
    {
      name: `${variant} with a bf16 state, 33 + 1 + 70 rows`,
      limit: LIMITS.bf16State,
      run: (b) => serve(b, variant, "bf16"),
    },
    {
      name: `${variant}_train and gradients, 33 + 1 + 70 rows`,
      limit: LIMITS.gradient,
      training: true,
      run: (b) => train(b, variant),
    },
  ]),
];
