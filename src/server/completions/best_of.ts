// Picks the best of several sequences of one prompt.

import type { ChoicePiece } from "../generation.ts";

/**
 * Of each prompt's `bestOf` sequences the `n` with the highest mean log-probability per token, best first; of equals
 * the earlier.
 */
export function bestSequences(
  sequences: readonly (readonly ChoicePiece[])[],
  n: number,
  bestOf: number,
): (readonly ChoicePiece[])[] {
  const best: (readonly ChoicePiece[])[] = [];
  for (let at = 0; at < sequences.length; at += bestOf) {
    const ranked = sequences
      .slice(at, at + bestOf)
      .map((pieces) => ({ pieces, mean: meanLogprob(pieces) }))
      .sort((a, b) => b.mean - a.mean);
    best.push(...ranked.slice(0, n).map(({ pieces }) => pieces));
  }
  return best;
}

/** Over all that was generated, the token that ended the text included. */
function meanLogprob(pieces: readonly ChoicePiece[]): number {
  let sum = 0;
  let count = 0;
  for (const { logprobs, endToken } of pieces) {
    for (const token of endToken === null ? logprobs : [...logprobs, endToken]) {
      sum += token.logprob;
      count++;
    }
  }
  return count === 0 ? Number.NEGATIVE_INFINITY : sum / count;
}
