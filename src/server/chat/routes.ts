// POST /v1/chat/completions. Validates, calls, shapes; no logic.

import { Elysia } from "elysia";
import { answer } from "../answer.ts";
import type { ServerContext } from "../context.ts";
import { encodeConversation } from "../conversation.ts";
import { invalidField } from "../errors.ts";
import { planGeneration } from "../plan.ts";
import { refuseUnsupported } from "../sampling_schema.ts";
import { textGrammar } from "../structured_outputs.ts";
import { toolGrammar } from "../tools/grammar.ts";
import { toolUse } from "../tools/use.ts";
import { type ChatBody, chatBody, chatNeutral } from "./schema.ts";
import { chatShape } from "./shape.ts";

export function chatRoutes(context: ServerContext) {
  return new Elysia({ normalize: false }).post(
    "/v1/chat/completions",
    async ({ body, request }) => {
      refuseUnsupported(body, chatNeutral);
      if (body.top_logprobs !== undefined && body.logprobs !== true) {
        throw invalidField("top_logprobs", 'Parameter "top_logprobs" needs "logprobs": true');
      }
      const tools = toolUse(context, {
        tools: body.tools,
        choice: choiceOf(body.tool_choice),
        parallel: body.parallel_tool_calls,
      });
      const grammar =
        (await textGrammar(context, body, tools === null ? null : "tools")) ?? (await toolGrammar(context, tools));
      const prompt = await encodeConversation(context, body.messages, { tools: tools?.tools ?? [] });
      const plan = planGeneration(context, body, {
        prompts: [prompt],
        param: "messages",
        maxTokens: body.max_completion_tokens ?? body.max_tokens,
        logprobs: body.logprobs === true ? (body.top_logprobs ?? 0) : null,
        tools,
        grammar,
      });
      const stream = { on: body.stream === true, usage: body.stream_options?.include_usage === true };
      return answer(context, request, plan, stream, chatShape(context, body));
    },
    { parse: "json", body: chatBody, detail: { tags: ["openai"], summary: "Answer a conversation" } },
  );
}

function choiceOf(choice: ChatBody["tool_choice"]) {
  return typeof choice === "object" ? { name: choice.function.name } : choice;
}
