// POST /v1/chat/completions. Validates, calls, shapes; no logic.

import { Elysia } from "elysia";
import { type AnswerShape, answer } from "../answer.ts";
import type { ServerContext } from "../context.ts";
import { HttpError, invalidField } from "../errors.ts";
import type { ChoicePiece } from "../generation.ts";
import { planGeneration } from "../plan.ts";
import { encodePrompt, tokenText } from "../prompt.ts";
import { refuseUnsupported } from "../sampling_schema.ts";
import { type ChatBody, chatBody, chatNeutral } from "./schema.ts";

export function chatRoutes(context: ServerContext) {
  return new Elysia({ normalize: false }).post(
    "/v1/chat/completions",
    async ({ body, request }) => {
      refuseUnsupported(body, chatNeutral);
      if (body.top_logprobs !== undefined && body.logprobs !== true) {
        throw invalidField("top_logprobs", 'Parameter "top_logprobs" needs "logprobs": true');
      }
      const logprobs = body.logprobs === true ? (body.top_logprobs ?? 0) : null;
      const maxTokens = body.max_completion_tokens ?? body.max_tokens;
      const prompt = await chatPrompt(context, body.messages);
      const plan = planGeneration(context, body, { prompts: [prompt], maxTokens, logprobs });
      const stream = { on: body.stream === true, usage: body.stream_options?.include_usage === true };
      return answer(context, request, plan, stream, chatShape(context, body));
    },
    { parse: "json", body: chatBody, detail: { tags: ["openai"], summary: "Answer a conversation" } },
  );
}

/** The ids of a conversation, ended by the opening of the answer. */
async function chatPrompt(context: ServerContext, messages: ChatBody["messages"]): Promise<number[]> {
  const { template } = context.text;
  if (template === null) {
    throw new HttpError(
      400,
      "no_tokenizer",
      "This model has no tokenizer: use /v1/completions with token ids",
      "messages",
    );
  }
  const rendered = template.render(
    messages.map(({ role, content, name, tool_call_id }) => ({
      // Templates know the older name of this role.
      role: role === "developer" ? "system" : role,
      content: typeof content === "string" ? content : content.map((part) => part.text).join("\n"),
      ...(name === undefined ? {} : { name }),
      ...(tool_call_id === undefined ? {} : { tool_call_id }),
    })),
  );
  // A model's own template writes the bos token itself.
  return encodePrompt(context, rendered, template.isFallback ? "auto" : "never");
}

function chatShape(context: ServerContext, body: ChatBody): AnswerShape {
  const withIds = body.return_token_ids === true;
  const extras = (pieces: readonly ChoicePiece[]) => ({
    logprobs: body.logprobs === true ? { content: chatLogprobs(context, pieces), refusal: null } : null,
    finish_reason: pieces.at(-1)?.finishReason ?? null,
    ...(withIds ? { token_ids: pieces.flatMap((piece) => piece.tokenIds) } : {}),
  });
  return {
    idPrefix: "chatcmpl",
    object: "chat.completion",
    chunkObject: "chat.completion.chunk",
    opening: (plan) =>
      Array.from({ length: plan.n }, (_, index) => ({
        index,
        delta: { role: "assistant", content: "" },
        logprobs: null,
        finish_reason: null,
      })),
    chunk: (piece) => ({
      index: piece.index,
      delta: piece.text === "" ? {} : { content: piece.text },
      ...extras([piece]),
    }),
    choice: (index, pieces) => ({
      index,
      message: { role: "assistant", content: pieces.map((piece) => piece.text).join(""), refusal: null },
      ...extras(pieces),
    }),
  };
}

function chatLogprobs(context: ServerContext, pieces: readonly ChoicePiece[]) {
  const entry = ({ id, logprob }: { id: number; logprob: number }) => ({
    token: tokenText(context, [id], true),
    logprob,
    bytes: [...(context.text.tokenizer?.pieceBytes(id) ?? [])],
  });
  return pieces.flatMap((piece) =>
    piece.logprobs.map((token) => ({ ...entry(token), top_logprobs: token.top.map(entry) })),
  );
}
