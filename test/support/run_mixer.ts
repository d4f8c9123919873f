// The smallest host for one token mixer: a cache or state per sequence, and batches over any of them. Pages are handed out
// backwards, so that an order taken for granted shows.

import { GdnAttention } from "../../models/attention/gdn.ts";
import { GlaAttention } from "../../models/attention/gla.ts";
import { JetAttention } from "../../models/attention/jet.ts";
import type { Context, MixerBatch, TokenMixer } from "../../models/attention/mixer.ts";
import type { Ops } from "../../src/ops/ops.ts";
import { Arena } from "../../src/tensor/arena.ts";
import { rows, type Tensor, view } from "../../src/tensor/tensor.ts";

const PAGE_SIZE = 16;

/** Rows of one sequence in a batch: how many, from which position. */
export interface Segment {
  readonly sequence: number;
  readonly start: number;
  readonly count: number;
}

export interface HostOptions {
  readonly sequences: number;
  readonly maxTokens: number;
  readonly kvDtype?: "f32" | "bf16";
  readonly stateDtype?: "f32" | "bf16";
}

/** The addressing that all layers of a step share. */
export function createBatch(ops: Ops, segments: readonly Segment[]): HostBatch {
  const starts = [0];
  const positions: number[] = [];
  for (const { start, count } of segments) {
    starts.push(starts.at(-1)! + count);
    for (let p = start; p < start + count; p++) positions.push(p);
  }
  const ints = (values: number[]) => ops.fromArray([values.length], Int32Array.from(values));
  return {
    numRows: positions.length,
    numSeqs: segments.length,
    seqStart: ints(starts),
    startPos: ints(segments.map((s) => s.start)),
    positions: ints(positions),
    longest: Math.max(...segments.map((s) => s.start + s.count)),
    sequences: ints(segments.map((s) => s.sequence)),
  };
}

/** A batch, the positions of its rows, and which sequence each of its sequences is. */
export interface HostBatch extends MixerBatch {
  readonly positions: Tensor;
  readonly sequences: Tensor;
}

function pageOf(sequence: number, j: number, pages: number): number {
  return sequence * pages + (pages - 1 - j);
}

/** One mixer with its states for a fixed number of sequences. */
export class MixerHost {
  readonly ctx: Context;
  readonly mixer: TokenMixer;
  readonly #options: HostOptions;
  readonly #spec;
  readonly #tensors: Tensor[] = [];
  readonly #kv;
  readonly #state;

  constructor(ops: Ops, mixer: TokenMixer, options: HostOptions, arena = new Arena(ops)) {
    this.ctx = { ops, arena };
    this.mixer = mixer;
    this.#options = options;
    this.#spec = mixer.stateSpec();
    this.#kv = mixer.kind === "full_attention" ? this.#createKv() : null;
    this.#state = mixer.kind === "full_attention" ? null : this.#createState();
  }

  #keep(t: Tensor): Tensor {
    this.#tensors.push(t);
    return t;
  }

  #createKv() {
    const { sequences, maxTokens, kvDtype = "f32" } = this.#options;
    const pages = Math.ceil(maxTokens / PAGE_SIZE);
    const perTensor = (sequences * pages * PAGE_SIZE * this.#spec.kvBytesPerToken.f32) / 8;
    const table = new Int32Array(sequences * pages);
    for (let s = 0; s < sequences; s++) for (let j = 0; j < pages; j++) table[s * pages + j] = pageOf(s, j, pages);
    const { ops } = this.ctx;
    return {
      kCache: this.#keep(ops.empty([perTensor], kvDtype)),
      vCache: this.#keep(ops.empty([perTensor], kvDtype)),
      pageTable: this.#keep(ops.fromArray([table.length], table)),
      tableStride: pages,
      pageSize: PAGE_SIZE,
    };
  }

  #createState() {
    const { sequences, stateDtype: dtype = "f32" } = this.#options;
    const { convFloats } = this.#spec;
    const stride = this.#spec.recurrentFloats[dtype] + convFloats;
    const { ops } = this.ctx;
    // What a slot held before must not matter at position 0, but for the windows of convolutions.
    const dirty = new Float32Array(sequences * stride).fill(Number.NaN);
    for (let s = 1; s <= sequences; s++) dirty.fill(0, s * stride - convFloats, s * stride);
    const recurrent = this.#keep(ops.fromArray([dirty.length], dirty));
    const offset = stride - convFloats;
    const conv = convFloats > 0 ? view(recurrent, offset, [dirty.length - offset]) : null;
    return { recurrent, conv, stride, dtype };
  }

  /** y = mixer(x) for the rows of a batch. */
  forward(x: Tensor, y: Tensor, batch: HostBatch): void {
    const kv = this.#kv && { ...this.#kv, tableRows: batch.sequences };
    const state = this.#state && { ...this.#state, slots: batch.sequences };
    this.mixer.forward(
      this.ctx,
      { x, norm: null, y, residual: null },
      { ...batch, ...(kv ? { kv } : {}), ...(state ? { state } : {}) },
    );
  }

  /** Runs host rows through the mixer and returns the host result. */
  run(x: Float32Array, channels: number, segments: readonly Segment[]): Float32Array {
    const { ops } = this.ctx;
    const batch = createBatch(ops, segments);
    const input = ops.fromArray([batch.numRows, channels], x);
    const output = ops.empty([batch.numRows, channels]);
    this.forward(input, output, batch);
    const result = ops.toFloat32(output);
    freeBatch(ops, batch);
    for (const t of [input, output]) ops.free(t);
    return result;
  }

  /** Recurrent state [heads, Dk, Dv] of a sequence after `position` tokens. */
  recurrent(sequence: number, position: number): Float32Array {
    const { ops } = this.ctx;
    const state = this.#state!;
    const slots = { ...state.recurrent, shape: [this.#options.sequences, state.stride] };
    const { mixer } = this;
    const slotOf = (block: number) => ({ state: rows(slots, sequence, 1), block, dtype: state.dtype });
    if (mixer instanceof GlaAttention) {
      const { numKeyHeads, keyDim, valueDim } = mixer.sizes;
      return this.#read([numKeyHeads, keyDim, valueDim], (out) =>
        ops.glaStateRead(out, slotOf(mixer.shape.block), mixer.sizes, position),
      );
    }
    if (!(mixer instanceof GdnAttention || mixer instanceof JetAttention)) throw new Error("no recurrent state");
    const { numValueHeads, keyDim, valueDim } = mixer.sizes;
    return this.#read([numValueHeads, keyDim, valueDim], (out) =>
      ops.gdnStateRead(out, slotOf(mixer.shape.block), mixer.sizes, position),
    );
  }

  /** Convolution region of a sequence: [W-1, channels] of each convolution. */
  conv(sequence: number): Float32Array {
    const { conv, stride } = this.#state!;
    return this.ctx.ops.toFloat32(view(conv!, sequence * stride, [this.#spec.convFloats]));
  }

  #read(shape: number[], fill: (out: Tensor) => void): Float32Array {
    const out = this.ctx.ops.empty(shape);
    fill(out);
    const values = this.ctx.ops.toFloat32(out);
    this.ctx.ops.free(out);
    return values;
  }

  close(): void {
    for (const t of this.#tensors) this.ctx.ops.free(t);
    this.ctx.arena.close();
  }
}

/** Frees the addressing of a batch. */
export function freeBatch(ops: Ops, batch: HostBatch): void {
  for (const t of [batch.seqStart, batch.startPos, batch.positions, batch.sequences]) ops.free(t);
}
