// Draws tokens from logits and scores given ones, through the kernels. The random number behind a token is a function of
// (seed, choice, position) alone, so a neighbour in the batch, a chunk border or a preemption cannot change it.
import { Staging } from "../ops/device.ts";
import type { Ops } from "../ops/ops.ts";
import type { Arena } from "../tensor/arena.ts";
import { rows, type Tensor } from "../tensor/tensor.ts";
import type { Drawn, Scored } from "./batch.ts";
import type { SamplingState } from "./sequence.ts";
import type { TokenLogprob } from "./types.ts";

/** Words of one graft_sampling record. */
const RECORD = 8;

/** One row of logits to draw from, for the token at `position`. */
export interface DrawRow {
  readonly sampling: SamplingState;
  readonly position: number;
}

/** Draws and scores for rows of logits on the device. */
export class Sampler {
  readonly #ops: Ops;
  readonly #arena: Arena;
  readonly #records: Staging<Float32Array>;
  readonly #recordWords: Uint32Array;
  readonly #ids: Staging<Int32Array>;
  readonly #logprobs: Staging<Float32Array>;

  /** @param maxRows most rows of one call */
  constructor(ops: Ops, arena: Arena, maxRows: number) {
    this.#ops = ops;
    this.#arena = arena;
    this.#records = Staging.float32(ops, maxRows * RECORD);
    this.#recordWords = new Uint32Array(this.#records.view.buffer as ArrayBuffer);
    this.#ids = Staging.int32(ops, maxRows);
    this.#logprobs = Staging.float32(ops, maxRows);
  }

  /** One token per row of logits[M, V]. */
  draw(logits: Tensor, requests: readonly DrawRow[]): Drawn[] {
    requests.forEach((request, i) => {
      this.#writeRecord(i * RECORD, request);
    });
    const M = requests.length;
    const wanted = requests.some(({ sampling }) => sampling.numLogprobs >= 0);
    const ids = this.#arena.alloc([M], "i32");
    const logprobs = wanted ? this.#arena.alloc([M]) : null;
    this.#ops.sample(ids, logprobs, logits, this.#records.upload(M * RECORD));
    this.#ids.download(ids, M);
    if (logprobs !== null) this.#logprobs.download(logprobs, M);
    return requests.map(({ sampling }, i) => {
      const id = this.#ids.view[i]!;
      const logprob = sampling.numLogprobs >= 0 ? this.#logprobs.view[i]! : Number.NaN;
      const top = sampling.numLogprobs > 0 ? this.#top(rows(logits, i, 1), id, logprob, sampling.numLogprobs) : [];
      return { id, logprob, top };
    });
  }

  /** Log-probabilities of ids i32[M] under logits[M, V], and the most likely ids. */
  score(logits: Tensor, ids: Tensor): Scored {
    const M = ids.shape[0]!;
    const logprobs = this.#arena.alloc([M]);
    const argmax = this.#arena.alloc([M], "i32");
    this.#ops.logProb(logprobs, argmax, logits, ids);
    this.#logprobs.download(logprobs, M);
    this.#ids.download(argmax, M);
    return { logprobs: this.#logprobs.view.slice(0, M), argmax: this.#ids.view.slice(0, M) };
  }

  close(): void {
    this.#records.close();
    this.#ids.close();
    this.#logprobs.close();
  }

  #writeRecord(at: number, { sampling, position }: DrawRow): void {
    const [floats, words] = [this.#records.view, this.#recordWords];
    floats[at] = sampling.temperature;
    floats[at + 1] = sampling.topP;
    floats[at + 2] = sampling.minP;
    words[at + 3] = sampling.topK;
    words[at + 4] = sampling.seed >>> 0;
    words[at + 5] = Math.floor(sampling.seed / 2 ** 32);
    words[at + 6] = sampling.choice;
    words[at + 7] = position;
  }

  /** The k most likely ids of one row, lowest id first among equals; the normaliser follows from a known log-probability. */
  #top(row: Tensor, id: number, logprob: number, k: number): TokenLogprob[] {
    const logits = this.#ops.toFloat32(row);
    const normalizer = logits[id]! - logprob;
    const best: number[] = [];
    for (let i = 0; i < logits.length; i++) {
      if (best.length === k && !(logits[i]! > logits[best[k - 1]!]!)) continue;
      let at = best.length;
      while (at > 0 && logits[i]! > logits[best[at - 1]!]!) at--;
      best.splice(at, 0, i);
      if (best.length > k) best.pop();
    }
    return best.map((i) => ({ id: i, logprob: logits[i]! - normalizer }));
  }
}
