// The ops on rows of logits: adjustments, drawing, scores. What a negative id means is defined here and in graft.h.
import { numel, type Tensor } from "../tensor/tensor.ts";
import { at, expectAtLeast, expectCount, expectRows, rowsOf } from "./expect.ts";
import { SAMPLING_WORDS } from "./repeat_ops.ts";
import { StepOps } from "./step_ops.ts";

/** In place of an id where a row of logits has no answer: it holds NaN or +infinity. */
export const ROW_BROKEN = -1;
/** In place of an id where a row of logits has no answer: nothing but -infinity. */
export const ROW_EMPTY = -2;
/** Words of one graft_adjustment: id (integer), scale, add. */
export const ADJUSTMENT_WORDS = 3;
export { SAMPLING_WORDS };

/** What changes rows of logits before a token is drawn. */
export interface Adjustments {
  /** Packed graft_adjustment records, row after row; null: none. */
  readonly entries: Tensor | null;
  /** i32 [N + 1]: where each row's entries begin. */
  readonly entryStart: Tensor;
  /** i32 [M, ceil(V / 32)]: bit set = allowed; null: none. */
  readonly masks: Tensor | null;
  /** i32 [N]: the row's mask, -1 = none; null with masks. */
  readonly maskRows: Tensor | null;
}

/** Every forward op. */
export class SamplingOps extends StepOps {
  /** Log-probability of ids[i] under logits row i and the argmax of the row (or ROW_*); either output may be null. */
  logProb(logprob: Tensor | null, argmax: Tensor | null, logits: Tensor, ids: Tensor): void {
    const N = rowsOf("logProb", "ids", ids);
    const V = numel(logits) / N;
    expectRows("logProb", "logits", logits, N, V);
    expectCount("logProb", "ids", ids, N, "i32");
    if (logprob) expectCount("logProb", "logprob", logprob, N);
    if (argmax) expectCount("logProb", "argmax", argmax, N, "i32");
    this.check("logProb", this.symbols.graft_log_prob(at(logprob), at(argmax), at(logits), at(ids), N, V));
  }

  /** The counts[i] most likely ids of each row and their log-probabilities, at the front of rows of ids, logprob [N, K]. */
  topK(ids: Tensor, logprob: Tensor, logits: Tensor, counts: Tensor): void {
    const N = rowsOf("topK", "counts", counts);
    const [V, K] = [numel(logits) / N, numel(ids) / N];
    expectCount("topK", "counts", counts, N, "i32");
    expectRows("topK", "logits", logits, N, V);
    expectRows("topK", "ids", ids, N, K, "i32");
    expectRows("topK", "logprob", logprob, N, K);
    this.check("topK", this.symbols.graft_top_k(at(ids), at(logprob), at(logits), at(counts), N, V, K));
  }

  /** Changes logits [N, V] in place; rows without entries and mask are not touched. */
  adjustLogits(logits: Tensor, { entries, entryStart, masks, maskRows }: Adjustments): void {
    const N = rowsOf("adjustLogits", "logits", logits);
    const V = numel(logits) / N;
    const M = masks ? rowsOf("adjustLogits", "masks", masks) : 0;
    expectRows("adjustLogits", "logits", logits, N, V);
    expectCount("adjustLogits", "entryStart", entryStart, N + 1, "i32");
    if (entries) expectAtLeast("adjustLogits", "entries", entries, ADJUSTMENT_WORDS, entries.dtype);
    if (masks) expectRows("adjustLogits", "masks", masks, M, Math.ceil(V / 32), "i32");
    if (maskRows) expectCount("adjustLogits", "maskRows", maskRows, N, "i32");
    const [e, start, m, rows] = [at(entries), at(entryStart), at(masks), at(maskRows)];
    this.check("adjustLogits", this.symbols.graft_adjust_logits(at(logits), e, start, m, rows, N, V, M));
  }

  /** One id per row, or ROW_*. params: N packed graft_sampling records. */
  sample(ids: Tensor, logprob: Tensor | null, logits: Tensor, params: Tensor): void {
    const N = rowsOf("sample", "ids", ids);
    const V = numel(logits) / N;
    expectCount("sample", "ids", ids, N, "i32");
    expectRows("sample", "logits", logits, N, V);
    expectAtLeast("sample", "params", params, N * SAMPLING_WORDS, params.dtype);
    if (logprob) expectCount("sample", "logprob", logprob, N);
    this.check("sample", this.symbols.graft_sample(at(ids), at(logprob), at(logits), at(params), N, V));
  }
}
