// What a layer is made of, described once in host memory as the structs of graft.h that its steps read.

import { dtypeCode } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { PackedLinear } from "./dense_ops.ts";
import type { Device } from "./device.ts";
import type { LinearSizes, StateDtype } from "./forward_ops.ts";
import { HostStruct } from "./host_struct.ts";

/** What follows a linear layer at once. */
export type Activation = "identity" | "silu" | "gelu_tanh";
const ACTIVATIONS: readonly Activation[] = ["identity", "silu", "gelu_tanh"];

/** One of the linear layers that share an input. */
export interface Projection {
  readonly weight: PackedLinear;
  readonly bias: Tensor | null;
  readonly activation: Activation;
}

const PROJECTION_BYTES = 32;

/** Linear layers of one input, as graft_projection[] in host memory. Does not own the weights. */
export class ProjectionSet {
  readonly projections: readonly Projection[];
  readonly #struct: HostStruct;

  constructor(device: Device, projections: readonly Projection[]) {
    this.projections = projections;
    this.#struct = new HostStruct(device, PROJECTION_BYTES * projections.length);
    projections.forEach(({ weight, bias, activation }, i) => {
      this.#struct.pointer(PROJECTION_BYTES * i + 8, weight);
      this.#struct.pointer(PROJECTION_BYTES * i + 16, bias);
      this.#struct.ints(PROJECTION_BYTES * i + 24, [weight.out, ACTIVATIONS.indexOf(activation)]);
    });
  }

  /** Address of the structs, with these outputs. */
  into(ys: readonly Tensor[]): number {
    for (let i = 0; i < ys.length; i++) this.#struct.pointer(PROJECTION_BYTES * i, ys[i]!);
    return this.#struct.ptr;
  }

  free(): void {
    this.#struct.free();
  }
}

/** Weights [C, W] and bias [C] of a short convolution. */
export interface ConvWeights {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
}

/** What gla and gdn layers have in common between their projections. */
export interface RecurrentLayer {
  /** Of q, k and v; null: none, or (with generated kernels) the dynamic one alone. */
  readonly convs: { readonly q: ConvWeights; readonly k: ConvWeights; readonly v: ConvWeights } | null;
  /** W, 0 where nothing is convolved. */
  readonly taps: number;
  readonly sizes: LinearSizes;
  readonly block: number;
  /** Gain [Dv] of the norm per head. */
  readonly outputNorm: Tensor;
  readonly normEps: number;
}

export interface GlaLayer extends RecurrentLayer {
  readonly gateNormalizer: number;
}

export interface GdnLayer extends RecurrentLayer {
  readonly aLog: Tensor;
  readonly dtBias: Tensor;
  readonly betaScale: number;
}

const L2_EPS = 1e-6;
/** Offsets of graft_gla_layer and graft_gdn_layer. */
const GLA = { norm: 48, ints: 56, dtype: 80, floats: 84, bytes: 96 };
const GDN = { aLog: 48, dtBias: 56, norm: 64, ints: 72, dtype: 96, floats: 100, bytes: 120 };

/** A gla layer as graft_gla_layer in host memory. Does not own the weights. */
export class GlaStruct {
  readonly layer: GlaLayer;
  readonly #struct: HostStruct;

  constructor(device: Device, layer: GlaLayer) {
    this.layer = layer;
    this.#struct = new HostStruct(device, GLA.bytes);
    const { numQueryHeads, numKeyHeads, keyDim, valueDim } = layer.sizes;
    writeConvs(this.#struct, layer);
    this.#struct.pointer(GLA.norm, layer.outputNorm);
    this.#struct.ints(GLA.ints, [numQueryHeads, numKeyHeads, keyDim, valueDim, layer.taps, layer.block]);
    this.#struct.floats(GLA.floats, [layer.gateNormalizer, layer.normEps, 1 / Math.sqrt(keyDim)]);
  }

  /** Address of the struct, with states of this type. */
  with(dtype: StateDtype): number {
    this.#struct.ints(GLA.dtype, [dtypeCode(dtype)]);
    return this.#struct.ptr;
  }

  free(): void {
    this.#struct.free();
  }
}

/** A gdn or jet layer as graft_gdn_layer in host memory. Does not own the weights. */
export class GdnStruct {
  readonly layer: GdnLayer;
  readonly #struct: HostStruct;

  constructor(device: Device, layer: GdnLayer) {
    this.layer = layer;
    this.#struct = new HostStruct(device, GDN.bytes);
    const { numKeyHeads, numValueHeads, keyDim, valueDim } = layer.sizes;
    writeConvs(this.#struct, layer);
    this.#struct.pointer(GDN.aLog, layer.aLog);
    this.#struct.pointer(GDN.dtBias, layer.dtBias);
    this.#struct.pointer(GDN.norm, layer.outputNorm);
    this.#struct.ints(GDN.ints, [numKeyHeads, numValueHeads, keyDim, valueDim, layer.taps, layer.block]);
    this.#struct.floats(GDN.floats, [layer.betaScale, L2_EPS, layer.normEps, 1 / Math.sqrt(keyDim)]);
  }

  /** Address of the struct, with states of this type. */
  with(dtype: StateDtype): number {
    this.#struct.ints(GDN.dtype, [dtypeCode(dtype)]);
    return this.#struct.ptr;
  }

  free(): void {
    this.#struct.free();
  }
}

function writeConvs(struct: HostStruct, { convs }: RecurrentLayer): void {
  const order = convs === null ? [] : [convs.q, convs.k, convs.v];
  order.forEach(({ weight, bias }, i) => {
    struct.pointer(16 * i, weight);
    struct.pointer(16 * i + 8, bias);
  });
}
