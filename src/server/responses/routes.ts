// POST /v1/responses, without memory: every request brings its whole conversation. Validates, calls, shapes; no logic.

import { Elysia } from "elysia";
import type { ServerContext } from "../context.ts";
import { encodeConversation } from "../conversation.ts";
import { HttpError } from "../errors.ts";
import type { ChoicePiece } from "../generation.ts";
import { type GenerationPlan, planGeneration } from "../plan.ts";
import { recordOf } from "../request_record.ts";
import { refuseUnsupported } from "../sampling_schema.ts";
import type { SseEvent } from "../sse.ts";
import { endedEarly, streamAnswer, wholePieces } from "../stream_answer.ts";
import { formatGrammar } from "../structured_outputs.ts";
import { tokenLogprobs } from "../token_logprobs.ts";
import { toolGrammar } from "../tools/grammar.ts";
import { toolUse } from "../tools/use.ts";
import { UsageCount } from "../usage.ts";
import { messagesOf, toolsOf } from "./input.ts";
import { type ResponseBody, responseBody, responseNeutral } from "./schema.ts";
import { responseView } from "./view.ts";
import { type ResponseEvent, ResponseWriter } from "./writer.ts";

export function responseRoutes(context: ServerContext) {
  return new Elysia({ normalize: false }).post(
    "/v1/responses",
    async ({ body, request }) => {
      refuseMemory(body);
      refuseUnsupported(body, responseNeutral);
      const plan = await planResponse(context, body);
      return body.stream === true
        ? streamedResponse(context, request, body, plan)
        : wholeResponse(context, request, body, plan);
    },
    { parse: "json", body: responseBody, detail: { tags: ["openai"], summary: "Answer a conversation (stateless)" } },
  );
}

/** @throws HttpError for what would need former responses to be kept */
function refuseMemory(body: ResponseBody): void {
  for (const field of ["previous_response_id", "conversation"] as const) {
    if (body[field] === undefined) continue;
    const message = `Parameter "${field}" is not supported: responses are not stored; send the whole conversation as "input"`;
    throw new HttpError(400, "unsupported_parameter", message, field);
  }
}

async function planResponse(context: ServerContext, body: ResponseBody): Promise<GenerationPlan> {
  const choice = typeof body.tool_choice === "object" ? { name: body.tool_choice.name } : body.tool_choice;
  const tools = toolUse(context, { tools: toolsOf(body), choice, parallel: body.parallel_tool_calls });
  const grammar =
    (await formatGrammar(context, body.text?.format, tools === null ? null : "tools")) ??
    (await toolGrammar(context, tools));
  const prompt = await encodeConversation(context, messagesOf(body), { param: "input", tools: tools?.tools ?? [] });
  const withLogprobs = (body.include ?? []).length > 0 || body.top_logprobs !== undefined;
  return planGeneration(context, body, {
    prompts: [prompt],
    param: "input",
    maxTokens: body.max_output_tokens,
    logprobs: withLogprobs ? (body.top_logprobs ?? 0) : null,
    tools,
    grammar,
  });
}

/** What the end of a text means for its response. */
function statusOf(finishReason: string | null): "completed" | "incomplete" {
  return finishReason === "length" ? "incomplete" : "completed";
}

async function wholeResponse(context: ServerContext, request: Request, body: ResponseBody, plan: GenerationPlan) {
  const writer = new ResponseWriter();
  const usage = new UsageCount(plan.n, recordOf(request));
  const view = responseView(body, plan, writer, usage);
  let status: "completed" | "incomplete" = "completed";
  for await (const piece of wholePieces(context, request, plan)) {
    usage.add(piece);
    status = statusOf(piece.finishReason);
    for (const _ of writer.push(piece.text, piece.calls, tokenLogprobs(context, [piece])));
  }
  for (const _ of writer.finish(status));
  return view(status);
}

function streamedResponse(context: ServerContext, request: Request, body: ResponseBody, plan: GenerationPlan) {
  const writer = new ResponseWriter();
  const usage = new UsageCount(plan.n, recordOf(request));
  const view = responseView(body, plan, writer, usage);
  let sequence = 0;
  const sse = (event: ResponseEvent): SseEvent => ({
    event: event.type,
    data: JSON.stringify({ ...event, sequence_number: sequence++ }),
  });
  async function* events(pieces: AsyncIterable<ChoicePiece>): AsyncGenerator<ResponseEvent> {
    yield { type: "response.created", response: view("in_progress") };
    yield { type: "response.in_progress", response: view("in_progress") };
    let last: string | null = null;
    for await (const piece of pieces) {
      usage.add(piece);
      last = piece.finishReason;
      // A part must not pass for a whole.
      if (last === "cancelled") throw endedEarly();
      yield* writer.push(piece.text, piece.calls, tokenLogprobs(context, [piece]));
    }
    const status = statusOf(last);
    yield* writer.finish(status);
    yield { type: `response.${status}`, response: view(status) };
  }
  return streamAnswer(context, request, plan, {
    async *events(pieces) {
      for await (const event of events(pieces)) yield sse(event);
    },
    failure({ code, message, param }) {
      const failed = { type: "response.failed", response: view("failed", { code, message }) };
      return [sse(failed), sse({ type: "error", code, message, param })];
    },
  });
}
