// First values of a linear layer: copied from the softmax attention it replaces wherever a source exists, drawn where there
// is none (layers.md section 7). Works on host arrays; knows no files.
import { RequestError } from "../../src/errors.ts";
import { CounterRandom, streamOf } from "../../src/tensor/random.ts";
import { createTensor, type HostTensors } from "./init_draw.ts";
import type { LinearShape } from "./mixer.ts";
import { linearTensors } from "./shape.ts";

/** One attention layer's weights, [out, in]; biases and norms where it has them. */
export interface AttentionSource {
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly q: Projection;
  readonly k: Projection;
  readonly v: Projection;
  readonly o: Projection;
  /** Gains [D] of Qwen3's per-head norms. */
  readonly qNorm: Float32Array | null;
  readonly kNorm: Float32Array | null;
}

/** A linear layer on the host. */
export interface Projection {
  readonly weight: Float32Array;
  readonly bias: Float32Array | null;
}

/** How the values without a source are chosen. */
export interface InitOptions {
  /** Seed of everything drawn; tensors are drawn independently of each other. */
  readonly seed: number;
  /** Layer number, so that layers differ. */
  readonly layer: number;
  /** "copy": projections from the source; "random": none, for sizes without a source. Default "copy". */
  readonly from?: "copy" | "random";
}

/** Blocks of `headRows` rows repeated `times` times each, heads contiguous: 0 0 1 1 2 2. */
export function repeatHeads(values: Float32Array, heads: number, times: number): Float32Array {
  const block = values.length / heads;
  const out = new Float32Array(values.length * times);
  for (let h = 0; h < heads * times; h++) {
    const source = Math.floor(h / times) * block;
    out.set(values.subarray(source, source + block), h * block);
  }
  return out;
}

/** Row r multiplied by gain[r mod gain.length]. */
function foldGain(values: Float32Array, gain: Float32Array | null, columns: number): Float32Array {
  if (!gain) return values;
  return values.map((x, i) => x * gain[Math.floor(i / columns) % gain.length]!);
}

/** Weight and bias of one projection, gains folded in, heads repeated to `heads`. */
function copied(
  source: Projection,
  gain: Float32Array | null,
  columns: number,
  heads: { from: number; to: number },
): Projection {
  const times = heads.to / heads.from;
  const bias = source.bias && foldGain(source.bias, gain, 1);
  return {
    weight: repeatHeads(foldGain(source.weight, gain, columns), heads.from, times),
    bias: bias && repeatHeads(bias, heads.from, times),
  };
}

/** @throws RequestError if a projection has no source of its shape. */
function requireMatch(shape: LinearShape, source: AttentionSource): void {
  const { numHeads: H, numKvHeads: Hkv, headDim: D } = source;
  const fail = (what: string): never => {
    const sizes = `${H} heads of ${D} and ${Hkv} kv heads`;
    throw new RequestError("invalid_shape", `Cannot copy attention (${sizes}) into ${shape.variant}: ${what}`);
  };
  if (shape.hiddenSize !== source.hiddenSize) fail(`hidden size is ${shape.hiddenSize}, expected ${source.hiddenSize}`);
  if (shape.keyHeadDim !== D) fail(`key head size is ${shape.keyHeadDim}, expected ${D}`);
  if (shape.valueHeadDim !== D) fail(`value head size is ${shape.valueHeadDim}, expected ${D}`);
  if (shape.numQueryHeads !== H) fail(`it has ${shape.numQueryHeads} query heads, expected ${H}`);
  for (const heads of [shape.numKeyHeads, shape.numValueHeads]) {
    if (heads % Hkv !== 0 || heads > H)
      fail(`it has ${heads} key or value heads, expected a multiple of ${Hkv} up to ${H}`);
  }
}

/** The tensors of a linear layer that the source determines. */
function copiedTensors(shape: LinearShape, source: AttentionSource): HostTensors {
  requireMatch(shape, source);
  const C = shape.hiddenSize;
  const kv = source.numKvHeads;
  const q = copied(source.q, source.qNorm, C, { from: source.numHeads, to: shape.numQueryHeads });
  const k = copied(source.k, source.kNorm, C, { from: kv, to: shape.numKeyHeads });
  const v = copied(source.v, null, C, { from: kv, to: shape.numValueHeads });
  const tensors = new Map<string, Float32Array>([["o_proj.weight", source.o.weight]]);
  for (const [name, { weight, bias }] of Object.entries({ q, k, v })) {
    tensors.set(`${name}_proj.weight`, weight);
    if (bias) tensors.set(`${name}_proj.bias`, bias);
  }
  if (source.o.bias) tensors.set("o_proj.bias", source.o.bias);
  return tensors;
}

/**
 * First values of every tensor of a linear layer, by name.
 * @throws RequestError if the sizes leave a projection without a source (use from: "random").
 */
export function initLinearLayer(shape: LinearShape, source: AttentionSource | null, options: InitOptions): HostTensors {
  const copies = source && options.from !== "random" ? copiedTensors(shape, source) : new Map<string, Float32Array>();
  const tensors = new Map<string, Float32Array>();
  for (const spec of linearTensors(shape)) {
    const random = new CounterRandom(options.seed, streamOf(`${options.layer}.${spec.name}`));
    tensors.set(spec.name, copies.get(spec.name)?.slice() ?? createTensor(spec, shape, random));
  }
  return tensors;
}
