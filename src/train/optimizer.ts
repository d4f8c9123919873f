// AdamW over one parameter set: moments beside the values, clipping by the set's own gradient norm. Knows neither what is
// trained nor the schedule.
import type { ParameterSet } from "../../models/parameters.ts";
import type { Ops } from "../ops/ops.ts";
import { numel, type Tensor, view } from "../tensor/tensor.ts";

/** What stays the same over all steps of a run. */
export interface AdamWSettings {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** Applied to matrices only. */
  readonly weightDecay: number;
  /** Largest norm of the set's gradient; Infinity: no clipping. */
  readonly maxNorm: number;
}

/** The values of every recipe here. */
export const defaultAdamW: AdamWSettings = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0, maxNorm: 1 };

/** A run of neighbouring parameters with one weight decay. */
interface Segment {
  readonly offset: number;
  readonly count: number;
  readonly decays: boolean;
}

/** AdamW over one parameter set, with its moments. */
export class AdamW {
  readonly params: ParameterSet;
  /** First and second moments, in the order of params.values. */
  readonly m: Tensor;
  readonly v: Tensor;
  readonly #ops: Ops;
  readonly #settings: AdamWSettings;
  readonly #norm: Tensor;
  readonly #segments: readonly Segment[];
  /** Number of updates done. */
  steps = 0;

  constructor(ops: Ops, params: ParameterSet, settings: AdamWSettings = defaultAdamW) {
    const count = numel(params.values);
    this.#ops = ops;
    this.params = params;
    this.#settings = settings;
    this.m = ops.empty([count], "f32");
    this.v = ops.empty([count], "f32");
    this.#norm = ops.empty([1], "f64");
    this.#segments = settings.weightDecay === 0 ? [{ offset: 0, count, decays: false }] : decaySegments(params);
  }

  /** One update with the gradients in the set, which it then clears. */
  step(learningRate: number): void {
    const ops = this.#ops;
    const { beta1, beta2, eps, weightDecay, maxNorm } = this.#settings;
    const clip = Number.isFinite(maxNorm);
    if (clip) ops.sumSquares(this.#norm, this.params.grads);
    this.steps++;
    for (const { offset, count, decays } of this.#segments) {
      const part = (t: Tensor) => view(t, offset, [count]);
      ops.adamw(
        part(this.params.values),
        part(this.m),
        part(this.v),
        part(this.params.grads),
        clip ? this.#norm : null,
        {
          step: this.steps,
          lr: learningRate,
          beta1,
          beta2,
          eps,
          weightDecay: decays ? weightDecay : 0,
          maxNorm: clip ? maxNorm : 0,
        },
      );
    }
    this.params.zeroGrads();
  }

  free(): void {
    for (const tensor of [this.m, this.v, this.#norm]) this.#ops.free(tensor);
  }
}

/** Parameters in memory order, neighbours of equal decay joined. Gaps between them belong to nobody and stay zero. */
function decaySegments(params: ParameterSet): Segment[] {
  const base = params.values.ptr;
  const parts = params
    .names()
    .map((name) => ({
      offset: (params.value(name).ptr - base) / 4,
      count: numel(params.value(name)),
      decays: params.decays(name),
    }))
    .sort((a, b) => a.offset - b.offset);
  const segments: Segment[] = [];
  for (const part of parts) {
    const last = segments.at(-1);
    if (last !== undefined && last.decays === part.decays && part.offset >= last.offset + last.count) {
      segments[segments.length - 1] = { ...last, count: part.offset + part.count - last.offset };
    } else {
      segments.push(part);
    }
  }
  return segments;
}
