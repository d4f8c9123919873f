// Perplexity of rows of ids, through the engine's scoring. Knows no text.
import type { EvalEngine } from "./evaluate.ts";

/** Mean negative log-likelihood per token, and its exponential. */
export interface Perplexity {
  /** Every id but the first of each row is predicted. */
  readonly predictedTokens: number;
  /** Nats. */
  readonly meanNll: number;
  readonly perplexity: number;
}

/** Rows of at least two ids, each no longer than the model's context; the first id of a row is given. */
export async function perplexity(
  engine: EvalEngine,
  hybrid: string,
  rows: readonly ArrayLike<number>[],
  batch = 16,
): Promise<Perplexity> {
  let sum = 0;
  let count = 0;
  for (let first = 0; first < rows.length; first += batch) {
    const requests = rows.slice(first, first + batch).map((row) => {
      const ids = Array.from(row);
      return { hybrid, contextIds: ids.slice(0, 1), continuationIds: ids.slice(1) };
    });
    for (const { logprobs } of await engine.score(requests)) {
      for (const value of logprobs) sum -= value;
      count += logprobs.length;
    }
  }
  const meanNll = sum / count;
  return { predictedTokens: count, meanNll, perplexity: Math.exp(meanNll) };
}
