// What an answer of a chat looks like, streamed or whole.

import type { AnswerShape } from "../answer.ts";
import { type ToolCall, type ToolCallDelta, wholeCalls } from "../choice_text.ts";
import type { ServerContext } from "../context.ts";
import type { ChoicePiece } from "../generation.ts";
import { tokenLogprobs } from "../token_logprobs.ts";
import type { ChatBody } from "./schema.ts";

/** The shape of the answer to `body`. */
export function chatShape(context: ServerContext, body: ChatBody): AnswerShape {
  const withLogprobs = body.logprobs === true;
  const withIds = body.return_token_ids === true;
  const extras = (pieces: readonly ChoicePiece[]) => ({
    logprobs: withLogprobs ? { content: tokenLogprobs(context, pieces), refusal: null } : null,
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
    chunk(piece) {
      const { index, text, calls, finishReason } = piece;
      const says = text !== "" || calls.length > 0 || finishReason !== null;
      if (!says && !withLogprobs && !withIds) return null;
      const delta = {
        ...(text === "" ? {} : { content: text }),
        ...(calls.length === 0 ? {} : { tool_calls: calls.map(callDelta) }),
      };
      return { index, delta, ...extras([piece]) };
    },
    choice(index, pieces) {
      const content = pieces.map((piece) => piece.text).join("");
      const calls = wholeCalls(pieces.flatMap((piece) => piece.calls));
      const message = {
        role: "assistant",
        content: content === "" && calls.length > 0 ? null : content,
        refusal: null,
        ...(calls.length === 0 ? {} : { tool_calls: calls.map(callView) }),
      };
      return { index, message, ...extras(pieces) };
    },
  };
}

function callView({ id, name, arguments: args }: ToolCall) {
  return { id, type: "function", function: { name, arguments: args } };
}

function callDelta({ index, id, name, arguments: args }: ToolCallDelta) {
  if (name === undefined) return { index, function: { arguments: args } };
  return { index, id, type: "function", function: { name, arguments: args } };
}
