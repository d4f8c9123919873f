// What a completion looks like, streamed or whole.

import type { AnswerShape } from "../answer.ts";
import type { ServerContext } from "../context.ts";
import type { ChoicePiece } from "../generation.ts";
import { bestSequences } from "./best_of.ts";
import type { PromptToken } from "./echo.ts";
import { joinLogprobs, type LegacyLogprobs, LegacyLogprobsWriter } from "./legacy_logprobs.ts";
import type { CompletionPrompt } from "./prompts.ts";
import type { CompletionBody } from "./schema.ts";

/** The shape of the answer to `body`; `scored` are the prompts' tokens where echo comes with log-probabilities. */
export function completionShape(
  context: ServerContext,
  body: CompletionBody,
  prompts: readonly CompletionPrompt[],
  scored: readonly (readonly PromptToken[])[] | null,
): AnswerShape {
  const n = body.n ?? 1;
  const withLogprobs = body.logprobs !== undefined;
  const withIds = body.return_token_ids === true || context.text.tokenizer === null;
  const writers = new Map<number, LegacyLogprobsWriter>();
  const writerOf = (index: number) => {
    const known = writers.get(index) ?? new LegacyLogprobsWriter(context);
    writers.set(index, known);
    return known;
  };

  const echoOf = (index: number): { text: string; logprobs: LegacyLogprobs | null } => {
    const at = Math.floor(index / n);
    if (body.echo !== true || !withLogprobs)
      return { text: body.echo === true ? prompts[at]!.text : "", logprobs: null };
    const { text, added } = prompts[at]!;
    return { text, logprobs: writerOf(index).prompt(scored![at]!, text, added) };
  };
  const generatedLogprobs = (index: number, pieces: readonly ChoicePiece[]) => {
    if (!withLogprobs) return null;
    const tokens = pieces.flatMap(({ logprobs, endToken }) => (endToken === null ? logprobs : [...logprobs, endToken]));
    return writerOf(index).generated(tokens);
  };
  const entry = (index: number, text: string, logprobs: LegacyLogprobs | null, pieces: readonly ChoicePiece[]) => ({
    index,
    text,
    logprobs,
    finish_reason: pieces.at(-1)?.finishReason ?? null,
    ...(withIds ? { token_ids: pieces.flatMap((piece) => piece.tokenIds) } : {}),
  });

  return {
    idPrefix: "cmpl",
    object: "text_completion",
    chunkObject: "text_completion",
    opening: (plan) =>
      body.echo === true
        ? Array.from({ length: plan.n * plan.prompts.length }, (_, index) => {
            const { text, logprobs } = echoOf(index);
            return entry(index, text, logprobs, []);
          })
        : [],
    chunk: (piece) =>
      isEmpty(piece) ? null : entry(piece.index, piece.text, generatedLogprobs(piece.index, [piece]), [piece]),
    ...(body.best_of === undefined
      ? {}
      : { select: (sequences: readonly (readonly ChoicePiece[])[]) => bestSequences(sequences, n, body.best_of!) }),
    choice(index, pieces) {
      const front = echoOf(index);
      const own = generatedLogprobs(index, pieces);
      const logprobs = front.logprobs === null || own === null ? own : joinLogprobs(front.logprobs, own);
      return entry(index, front.text + pieces.map((piece) => piece.text).join(""), logprobs, pieces);
    },
  };
}

/** A piece that only holds half a character says nothing yet. */
function isEmpty(piece: ChoicePiece): boolean {
  return piece.text === "" && piece.finishReason === null && piece.tokenIds.length === 0;
}
