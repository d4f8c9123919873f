// Log-probabilities in the form of chats and responses: one entry per token, with its bytes.

import type { ServerContext } from "./context.ts";
import type { ChoicePiece } from "./generation.ts";
import { tokenText } from "./prompt.ts";

/** A token with its alternatives. */
export interface TokenEntry {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
  readonly top_logprobs: readonly Omit<TokenEntry, "top_logprobs">[];
}

/** The entries of all tokens that are part of the text. */
export function tokenLogprobs(context: ServerContext, pieces: readonly ChoicePiece[]): TokenEntry[] {
  const entry = ({ id, logprob }: { readonly id: number; readonly logprob: number }) => ({
    token: tokenText(context, [id], true),
    logprob,
    bytes: [...(context.text.tokenizer?.pieceBytes(id) ?? [])],
  });
  return pieces.flatMap((piece) =>
    piece.logprobs.map((token) => ({ ...entry(token), top_logprobs: token.top.map(entry) })),
  );
}
