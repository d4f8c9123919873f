// The response object: what was asked, how it went, what came out.

import type { GenerationPlan } from "../plan.ts";
import type { UsageCount } from "../usage.ts";
import type { ResponseBody } from "./schema.ts";
import { newId, type ResponseWriter } from "./writer.ts";

/** How far a response is. */
export type ResponseStatus = "in_progress" | "completed" | "incomplete" | "failed";

/** A failure as a response shows it. */
export interface ResponseFailure {
  readonly code: string;
  readonly message: string;
}

/** Makes the views of one response. Nothing is stored, so that each view holds the whole of it. */
export function responseView(body: ResponseBody, plan: GenerationPlan, writer: ResponseWriter, usage: UsageCount) {
  const fixed = {
    id: newId("resp"),
    object: "response",
    created_at: Math.floor(Date.now() / 1000),
    model: plan.served.id,
    background: false,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    metadata: body.metadata ?? {},
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: null,
    reasoning: { effort: null, summary: null },
    service_tier: "default",
    store: false,
    temperature: plan.sampling.temperature ?? 0,
    text: { format: body.text?.format ?? { type: "text" } },
    tool_choice: body.tool_choice ?? "auto",
    tools: body.tools ?? [],
    top_logprobs: body.top_logprobs ?? 0,
    top_p: plan.sampling.topP ?? 1,
    truncation: "disabled",
    user: body.user ?? null,
  };
  return (status: ResponseStatus, error: ResponseFailure | null = null) => ({
    ...fixed,
    status,
    error,
    incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" } : null,
    output: writer.output,
    usage: status === "in_progress" ? null : usageView(usage),
  });
}

function usageView(usage: UsageCount) {
  const { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details } = usage.body();
  return {
    input_tokens: prompt_tokens,
    input_tokens_details: prompt_tokens_details,
    output_tokens: completion_tokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens,
  };
}
