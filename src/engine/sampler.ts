// Draws tokens from logits and scores given ones, through the kernels. The random number behind a token is a function of
// (seed, choice, position) alone, so a neighbour in the batch, a chunk border or a preemption cannot change it.
import { KernelError, RequestError } from "../errors.ts";
import { Staging } from "../ops/device.ts";
import type { Ops } from "../ops/ops.ts";
import { ROW_BROKEN } from "../ops/sampling_ops.ts";
import type { Arena } from "../tensor/arena.ts";
import { rows, type Tensor } from "../tensor/tensor.ts";
import type { Drawn, Failed, Scored } from "./batch.ts";
import { type AdjustedSequence, LogitAdjuster } from "./logit_adjuster.ts";
import { SamplingRecords } from "./sampling_records.ts";
import type { SamplingState } from "./sequence.ts";
import type { TokenLogprob } from "./types.ts";

/** Whose token is drawn; a Sequence is one. */
export interface DrawnSequence extends AdjustedSequence {
  readonly sampling: SamplingState;
}

/** Copies of rows of logits as the model gave them, and which rows of the batch they are. */
interface RawRows {
  readonly logits: Tensor;
  readonly index: readonly number[];
}

const NO_TOP: TokenLogprob[] = [];

/** The token that a row without log-probabilities drew: an id, or what stands in its place. */
export function plainToken(id: number, sequence: DrawnSequence): Drawn | Failed {
  return id < 0 ? { error: nothingToDraw(id, sequence) } : { id, logprob: Number.NaN, top: NO_TOP };
}

/** Draws and scores for rows of logits on the device. */
export class Sampler {
  readonly #ops: Ops;
  readonly #arena: Arena;
  readonly #adjuster: LogitAdjuster;
  readonly #records: SamplingRecords;
  readonly #ids: Staging<Int32Array>;
  readonly #logprobs: Staging<Float32Array>;

  /** @param maxRows most rows of one call */
  constructor(ops: Ops, arena: Arena, maxRows: number) {
    this.#ops = ops;
    this.#arena = arena;
    this.#adjuster = new LogitAdjuster(ops);
    this.#records = new SamplingRecords(ops, maxRows);
    this.#ids = Staging.int32(ops, maxRows);
    this.#logprobs = Staging.float32(ops, maxRows);
  }

  /** One token per row of logits [M, V], row i for sequences[i] and its token at positions[i]. Changes the logits. */
  draw(logits: Tensor, sequences: readonly DrawnSequence[], positions: readonly number[]): (Drawn | Failed)[] {
    const M = sequences.length;
    // Log-probabilities are the model's own: what they need is taken before the logits are adjusted.
    const raw = this.#rawRows(logits, sequences);
    const top = this.#top(
      logits,
      sequences.map(({ sampling }) => sampling.numLogprobs),
    );
    const errors = this.#adjuster.apply(logits, sequences);
    const ids = this.#arena.alloc([M], "i32");
    const logprobs = sequences.some(({ sampling }) => sampling.numLogprobs >= 0) ? this.#arena.alloc([M]) : null;
    sequences.forEach(({ sampling }, i) => {
      this.#records.set(i, sampling, positions[i]!);
    });
    this.#ops.sample(ids, logprobs, logits, this.#records.send(M));
    this.#ids.download(ids, M);
    if (logprobs !== null) this.#logprobs.download(logprobs, M);
    if (raw !== null) this.#rawLogprobs(raw);
    return sequences.map((sequence, i) => {
      const id = this.#ids.view[i]!;
      if (id < 0) return { error: errors.get(i) ?? nothingToDraw(id, sequence) };
      const logprob = sequence.sampling.numLogprobs >= 0 ? this.#logprobs.view[i]! : Number.NaN;
      return { id, logprob, top: top?.[i] ?? NO_TOP };
    });
  }

  /** Log-probabilities of ids i32[M] under logits[M, V], and of the numTop[i] most likely ids of row i. */
  score(logits: Tensor, ids: Tensor, numTop: readonly number[]): Scored {
    const M = ids.shape[0]!;
    const logprobs = this.#arena.alloc([M]);
    const argmax = this.#arena.alloc([M], "i32");
    this.#ops.logProb(logprobs, argmax, logits, ids);
    this.#logprobs.download(logprobs, M);
    this.#ids.download(argmax, M);
    const top = this.#top(logits, numTop) ?? numTop.map(() => NO_TOP);
    return { logprobs: this.#logprobs.view.slice(0, M), argmax: this.#ids.view.slice(0, M), top };
  }

  close(): void {
    this.#adjuster.close();
    this.#records.close();
    this.#ids.close();
    this.#logprobs.close();
  }

  /** The rows that adjusting will change and whose log-probabilities are wanted. */
  #rawRows(logits: Tensor, sequences: readonly DrawnSequence[]): RawRows | null {
    const index: number[] = [];
    sequences.forEach(({ sampling, adjustments, constraint }, i) => {
      if (sampling.numLogprobs >= 0 && (adjustments !== null || constraint !== null)) index.push(i);
    });
    if (index.length === 0) return null;
    const copy = this.#arena.alloc([index.length, logits.shape[1]!]);
    index.forEach((row, i) => {
      this.#ops.copy(rows(copy, i, 1), rows(logits, row, 1));
    });
    return { logits: copy, index };
  }

  /** Replaces the log-probabilities of the ids just drawn from adjusted rows. */
  #rawLogprobs({ logits, index }: RawRows): void {
    const ids = this.#arena.alloc([index.length], "i32");
    const logprobs = this.#arena.alloc([index.length]);
    this.#ops.upload(
      ids,
      Int32Array.from(index, (row) => Math.max(0, this.#ids.view[row]!)),
    );
    this.#ops.logProb(logprobs, null, logits, ids);
    this.#ops.toFloat32(logprobs).forEach((logprob, i) => {
      this.#logprobs.view[index[i]!] = logprob;
    });
  }

  /** The counts[i] most likely ids of each row; null where no row wants any. */
  #top(logits: Tensor, counts: readonly number[]): TokenLogprob[][] | null {
    const V = logits.shape[1]!;
    const K = counts.reduce((most, count) => Math.max(most, Math.min(count, V)), 0);
    if (K === 0) return null;
    const M = counts.length;
    const wanted = this.#arena.alloc([M], "i32");
    const [ids, logprobs] = [this.#arena.alloc([M, K], "i32"), this.#arena.alloc([M, K])];
    this.#ops.upload(
      wanted,
      Int32Array.from(counts, (count) => Math.max(0, Math.min(count, V))),
    );
    this.#ops.topK(ids, logprobs, logits, wanted);
    const [idsOut, logprobsOut] = [this.#ops.toInt32(ids), this.#ops.toFloat32(logprobs)];
    return counts.map((count, i) =>
      count <= 0
        ? NO_TOP
        : Array.from({ length: Math.min(count, V) }, (_, j) => {
            return { id: idsOut[i * K + j]!, logprob: logprobsOut[i * K + j]! };
          }),
    );
  }
}

function nothingToDraw(id: number, { constraint }: DrawnSequence): Error {
  if (id === ROW_BROKEN) return new KernelError("Cannot draw a token: the model's logits hold NaN or infinity");
  if (constraint === null) return new KernelError("Cannot draw a token: every logit of the model is -infinity");
  return new RequestError("constraint_failed", "Cannot go on with the text: its constraint allows no token here");
}
