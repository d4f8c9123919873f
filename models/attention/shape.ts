// Sizes of linear-attention layers: derived quantities, the tensors a layer consists of, and the sizes that match a given
// softmax attention. Formulas: layers.md sections 2 to 4, 6, 7.
import { RequestError } from "../../src/errors.ts";
import type { LinearSizes } from "../../src/ops/ops.ts";
import type { ModelConfig } from "../config.ts";
import { CONV_KERNELS, GATE_NORMALIZER, GATE_RANK, HEAD_DIM, HEADS } from "../limits.ts";
import type { ParameterSpec } from "../parameters.ts";
import type { LinearShape, Variant } from "./mixer.ts";

/** The variants, in the order in which they are shown. */
export const VARIANTS: readonly Variant[] = ["gla", "gdn", "jet"];

/** Tokens per anchored block of the serving form: the fastest by measurement (kernels/bench/NOTES.md). */
export const DEFAULT_BLOCK = 16;

/** Head counts as the ops take them. */
export function linearSizes(shape: LinearShape): LinearSizes {
  return {
    numQueryHeads: shape.numQueryHeads,
    numKeyHeads: shape.numKeyHeads,
    numValueHeads: shape.numValueHeads,
    keyDim: shape.keyHeadDim,
    valueDim: shape.valueHeadDim,
  };
}

/** Width of q, k, v and of the output before o_proj. */
export function linearWidths(shape: LinearShape): { q: number; k: number; v: number; o: number } {
  const { numQueryHeads, numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim } = shape;
  const outputHeads = shape.variant === "gla" ? numQueryHeads : numValueHeads;
  return {
    q: numQueryHeads * keyHeadDim,
    k: numKeyHeads * keyHeadDim,
    v: numValueHeads * valueHeadDim,
    o: outputHeads * valueHeadDim,
  };
}

/** Width of jet's kernel generator. */
export function generatorWidth(shape: LinearShape): number {
  return Math.floor((shape.numValueHeads * shape.valueHeadDim) / shape.dconvReduction);
}

/** Floats of one sequence's convolution state. */
export function convStateFloats(shape: LinearShape): number {
  if (shape.convKernel === 0) return 0;
  const { q, k, v } = linearWidths(shape);
  return (shape.convKernel - 1) * (shape.variant === "jet" ? v : q + k + v);
}

function projections(shape: LinearShape): ParameterSpec[] {
  const widths = linearWidths(shape);
  return (["q", "k", "v"] as const).flatMap((name) => [
    { name: `${name}_proj.weight`, shape: [widths[name], shape.hiddenSize] },
    ...(shape.qkvBias ? [{ name: `${name}_proj.bias`, shape: [widths[name]] }] : []),
  ]);
}

function shortConvs(shape: LinearShape): ParameterSpec[] {
  if (shape.convKernel === 0) return [];
  const widths = linearWidths(shape);
  return (["q", "k", "v"] as const).flatMap((name) => [
    { name: `${name}_conv1d.weight`, shape: [widths[name], 1, shape.convKernel] },
    ...(shape.convBias ? [{ name: `${name}_conv1d.bias`, shape: [widths[name]] }] : []),
  ]);
}

function glaGate(shape: LinearShape): ParameterSpec[] {
  const { k } = linearWidths(shape);
  return [
    { name: "gk_proj.0.weight", shape: [shape.gateLowRank, shape.hiddenSize] },
    { name: "gk_proj.1.weight", shape: [k, shape.gateLowRank] },
    { name: "gk_proj.1.bias", shape: [k] },
  ];
}

function deltaGates(shape: LinearShape): ParameterSpec[] {
  return [
    { name: "a_proj.weight", shape: [shape.numValueHeads, shape.hiddenSize] },
    { name: "b_proj.weight", shape: [shape.numValueHeads, shape.hiddenSize] },
    { name: "A_log", shape: [shape.numValueHeads] },
    { name: "dt_bias", shape: [shape.numValueHeads] },
  ];
}

function kernelGenerator(shape: LinearShape): ParameterSpec[] {
  const { v } = linearWidths(shape);
  const m = generatorWidth(shape);
  const prefix = "dynamic_conv1d.kernel_generator.";
  return [
    { name: `${prefix}w1.weight`, shape: [m, shape.hiddenSize] },
    { name: `${prefix}w2.weight`, shape: [v * shape.convKernel, m] },
    { name: `${prefix}w2.bias`, shape: [v * shape.convKernel] },
  ];
}

function output(shape: LinearShape): ParameterSpec[] {
  const { o } = linearWidths(shape);
  return [
    ...(shape.outputGate ? [{ name: "g_proj.weight", shape: [o, shape.hiddenSize] }] : []),
    { name: "o_norm.weight", shape: [shape.valueHeadDim] },
    { name: "o_proj.weight", shape: [shape.hiddenSize, o] },
    ...(shape.oBias ? [{ name: "o_proj.bias", shape: [shape.hiddenSize] }] : []),
  ];
}

/** Every tensor of a linear layer, without prefix. */
export function linearTensors(shape: LinearShape): ParameterSpec[] {
  switch (shape.variant) {
    case "gla":
      return [...projections(shape), ...shortConvs(shape), ...glaGate(shape), ...output(shape)];
    case "gdn":
      return [...projections(shape), ...shortConvs(shape), ...deltaGates(shape), ...output(shape)];
    case "jet":
      return [...projections(shape), ...kernelGenerator(shape), ...deltaGates(shape), ...output(shape)];
  }
}

/** Any part of a shape that a caller sets against the attention-matched default. */
export type ShapeOverrides = Partial<Omit<LinearShape, "variant" | "hiddenSize">>;

/**
 * The attention-matched shape of a variant for a backbone: Dk = Dv = D, H query heads; gla keeps the kv heads, gdn and jet
 * take H heads for k and v too. Biases follow the source.
 * @throws RequestError if an override does not fit.
 */
export function linearShapeFor(config: ModelConfig, variant: Variant, overrides: ShapeOverrides = {}): LinearShape {
  const keyHeads = variant === "gla" ? config.numKvHeads : config.numHeads;
  const shape: LinearShape = {
    variant,
    hiddenSize: config.hiddenSize,
    numQueryHeads: config.numHeads,
    numKeyHeads: keyHeads,
    numValueHeads: keyHeads,
    keyHeadDim: config.headDim,
    valueHeadDim: config.headDim,
    convKernel: variant === "gla" ? 0 : 4,
    convBias: false,
    outputGate: true,
    qkvBias: config.qkvBias,
    oBias: config.oBias,
    normEps: 1e-5,
    gateLowRank: 16,
    gateNormalizer: 16,
    allowNegEigval: false,
    dconvReduction: 8,
    block: DEFAULT_BLOCK,
    ...overrides,
  };
  const problem = shapeProblem(shape);
  if (problem) throw new RequestError("invalid_shape", `Cannot use this ${variant} shape: ${problem}`);
  return shape;
}

function within(name: string, value: number, { min, max }: { min: number; max: number }): string | null {
  return Number.isInteger(value) && value >= min && value <= max
    ? null
    : `${name} is ${value}, expected an integer from ${min} to ${max}`;
}

function headRelations(shape: LinearShape): string | null {
  const { variant, numQueryHeads: q, numKeyHeads: k, numValueHeads: v } = shape;
  if (variant === "gla") {
    if (k !== v) return `numValueHeads is ${v}, expected numKeyHeads (${k})`;
    return q % k === 0 ? null : `numQueryHeads is ${q}, expected a multiple of numKeyHeads (${k})`;
  }
  if (q !== k) return `numQueryHeads is ${q}, expected numKeyHeads (${k})`;
  if (variant === "jet" && v !== k) return `numValueHeads is ${v}, expected numKeyHeads (${k})`;
  return v % k === 0 ? null : `numValueHeads is ${v}, expected a multiple of numKeyHeads (${k})`;
}

/** Why a shape cannot be computed, in one phrase, or null. */
export function shapeProblem(shape: LinearShape): string | null {
  const multiple = (name: string, value: number) =>
    within(name, value, HEAD_DIM) ?? (value % 8 === 0 ? null : `${name} is ${value}, expected a multiple of 8`);
  const jet = shape.variant === "jet";
  return (
    within("numQueryHeads", shape.numQueryHeads, HEADS) ??
    within("numKeyHeads", shape.numKeyHeads, HEADS) ??
    within("numValueHeads", shape.numValueHeads, HEADS) ??
    multiple("keyHeadDim", shape.keyHeadDim) ??
    multiple("valueHeadDim", shape.valueHeadDim) ??
    headRelations(shape) ??
    (CONV_KERNELS.includes(shape.convKernel) && !(jet && shape.convKernel === 0)
      ? null
      : `convKernel is ${shape.convKernel}, expected ${jet ? "" : "0, "}2, 3 or 4`) ??
    (shape.variant === "gla" ? within("gateLowRank", shape.gateLowRank, GATE_RANK) : null) ??
    (shape.gateNormalizer >= GATE_NORMALIZER.min && shape.gateNormalizer <= GATE_NORMALIZER.max
      ? null
      : `gateNormalizer is ${shape.gateNormalizer}`) ??
    (jet
      ? within("dconvReduction", shape.dconvReduction, { min: 1, max: shape.numValueHeads * shape.valueHeadDim })
      : null) ??
    (shape.normEps > 0 && shape.normEps <= 1
      ? null
      : `normEps is ${shape.normEps}, expected a number above 0, at most 1`) ??
    within("block", shape.block, { min: 1, max: 256 })
  );
}
