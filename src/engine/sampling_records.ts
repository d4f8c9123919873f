// What tells the kernels how each row's token is drawn. Knows the layout of graft_sampling.
import { Staging } from "../ops/device.ts";
import type { Ops } from "../ops/ops.ts";
import { SAMPLING_WORDS } from "../ops/sampling_ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { SamplingState } from "./sequence.ts";

/** Packed graft_sampling records, written on the host and sent together. */
export class SamplingRecords {
  readonly #staging: Staging<Float32Array>;
  readonly #words: Uint32Array;

  constructor(ops: Ops, maxRows: number) {
    this.#staging = Staging.float32(ops, maxRows * SAMPLING_WORDS);
    this.#words = new Uint32Array(this.#staging.view.buffer as ArrayBuffer);
  }

  /** Row `row` draws the token at `position`. */
  set(row: number, sampling: SamplingState, position: number): void {
    const at = row * SAMPLING_WORDS;
    const [floats, words] = [this.#staging.view, this.#words];
    floats[at] = sampling.temperature;
    floats[at + 1] = sampling.topP;
    floats[at + 2] = sampling.minP;
    words[at + 3] = sampling.topK;
    words[at + 4] = sampling.seed >>> 0;
    words[at + 5] = Math.floor(sampling.seed / 2 ** 32);
    words[at + 6] = sampling.choice;
    words[at + 7] = position;
  }

  /** Sends the first `count` records; the same memory every time. */
  send(count: number): Tensor {
    return this.#staging.upload(count * SAMPLING_WORDS);
  }

  close(): void {
    this.#staging.close();
  }
}
