// POST /v1/completions. Validates, calls, shapes; no logic.

import { Elysia } from "elysia";
import { type AnswerShape, answer } from "../answer.ts";
import type { ServerContext } from "../context.ts";
import { invalidField } from "../errors.ts";
import { type ChoicePiece, planGeneration } from "../generation.ts";
import { encodePrompt, tokenText } from "../prompt.ts";
import { refuseUnsupported } from "../sampling_schema.ts";
import { type CompletionBody, completionBody, completionNeutral } from "./schema.ts";

export function completionRoutes(context: ServerContext) {
  return new Elysia({ normalize: false }).post(
    "/v1/completions",
    async ({ body, request }) => {
      refuseUnsupported(body, completionNeutral);
      if (body.echo === true && body.logprobs !== undefined) {
        throw invalidField("logprobs", 'Parameter "logprobs" is not supported together with "echo"');
      }
      const prompts = await promptsOf(context, body.prompt);
      const plan = planGeneration(context, body, prompts, body.max_tokens ?? 16, body.logprobs ?? null);
      const stream = { on: body.stream === true, usage: body.stream_options?.include_usage === true };
      return answer(context, request, plan, stream, completionShape(context, body, prompts));
    },
    { parse: "json", body: completionBody, detail: { tags: ["openai"], summary: "Continue a text" } },
  );
}

async function promptsOf(context: ServerContext, prompt: CompletionBody["prompt"]): Promise<readonly number[][]> {
  if (typeof prompt === "string") return [await encodePrompt(context, prompt)];
  if (typeof prompt[0] === "number") return [prompt as number[]];
  const ids = async (one: string | number[]) => (typeof one === "string" ? encodePrompt(context, one) : one);
  return Promise.all((prompt as (string | number[])[]).map(ids));
}

function completionShape(
  context: ServerContext,
  body: CompletionBody,
  prompts: readonly (readonly number[])[],
): AnswerShape {
  const n = body.n ?? 1;
  const withIds = body.return_token_ids === true || context.text.tokenizer === null;
  const echoOf = (index: number) => {
    if (body.echo !== true) return "";
    const given = typeof body.prompt === "string" ? body.prompt : body.prompt[Math.floor(index / n)];
    return typeof given === "string" ? given : tokenText(context, prompts[Math.floor(index / n)]!, false);
  };
  const shape = (index: number, pieces: readonly ChoicePiece[], front: string) => ({
    index,
    text: front + pieces.map((piece) => piece.text).join(""),
    logprobs: body.logprobs === undefined ? null : legacyLogprobs(context, pieces),
    finish_reason: pieces.at(-1)?.finishReason ?? null,
    ...(withIds ? { token_ids: pieces.flatMap((piece) => piece.tokenIds) } : {}),
  });
  return {
    idPrefix: "cmpl",
    object: "text_completion",
    chunkObject: "text_completion",
    opening: (plan) =>
      body.echo === true
        ? Array.from({ length: plan.n * plan.prompts.length }, (_, index) => shape(index, [], echoOf(index)))
        : [],
    chunk: (piece) => (isEmpty(piece) ? null : shape(piece.index, [piece], "")),
    choice: (index, pieces) => shape(index, pieces, echoOf(index)),
  };
}

/** A piece that only holds half a character says nothing yet. */
function isEmpty(piece: ChoicePiece): boolean {
  return piece.text === "" && piece.finishReason === null && piece.tokenIds.length === 0;
}

/** The parallel lists of the legacy API. Offsets count within the generated text. */
function legacyLogprobs(context: ServerContext, pieces: readonly ChoicePiece[]) {
  const scored = pieces.flatMap((piece) => piece.logprobs);
  const tokens = scored.map(({ id }) => tokenText(context, [id], true));
  let offset = 0;
  return {
    tokens,
    token_logprobs: scored.map(({ logprob }) => logprob),
    top_logprobs: scored.map(({ top }) =>
      Object.fromEntries(top.map(({ id, logprob }) => [tokenText(context, [id], true), logprob])),
    ),
    text_offset: tokens.map((token) => {
      offset += token.length;
      return offset - token.length;
    }),
  };
}
