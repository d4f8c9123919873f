// POST /v1/completions. Validates, calls, shapes; no logic.

import { Elysia } from "elysia";
import { answer } from "../answer.ts";
import type { ServerContext } from "../context.ts";
import { invalidField } from "../errors.ts";
import { planGeneration } from "../plan.ts";
import { refuseUnsupported } from "../sampling_schema.ts";
import { textGrammar } from "../structured_outputs.ts";
import { scorePrompts } from "./echo.ts";
import { promptsOf } from "./prompts.ts";
import { type CompletionBody, completionBody, completionNeutral } from "./schema.ts";
import { completionShape } from "./shape.ts";

/** What is generated where the request does not say. */
const DEFAULT_MAX_TOKENS = 16;

export function completionRoutes(context: ServerContext) {
  return new Elysia({ normalize: false }).post(
    "/v1/completions",
    async ({ body, request }) => {
      refuseUnsupported(body, completionNeutral);
      checkCombination(body);
      const grammar = await textGrammar(context, body, null);
      const prompts = await promptsOf(context, body.prompt);
      const plan = planGeneration(context, body, {
        prompts: prompts.map(({ ids }) => ids),
        maxTokens: body.max_tokens ?? DEFAULT_MAX_TOKENS,
        // The best of several are found by their log-probabilities.
        logprobs: body.logprobs ?? (body.best_of === undefined ? null : 0),
        ...(body.best_of === undefined ? {} : { sequences: body.best_of }),
        grammar,
      });
      const scored =
        body.echo === true && body.logprobs !== undefined ? await scorePrompts(context, plan, request.signal) : null;
      const stream = { on: body.stream === true, usage: body.stream_options?.include_usage === true };
      return answer(context, request, plan, stream, completionShape(context, body, prompts, scored));
    },
    { parse: "json", body: completionBody, detail: { tags: ["openai"], summary: "Continue a text" } },
  );
}

/** @throws HttpError for fields that are right alone and wrong together */
function checkCombination(body: CompletionBody): void {
  const { best_of, n = 1 } = body;
  if (best_of !== undefined && best_of < n) {
    throw invalidField("best_of", `Invalid "best_of": got ${best_of}, expected at least n, which is ${n}`);
  }
  if (best_of !== undefined && best_of > n && body.stream === true) {
    throw invalidField("best_of", 'Parameter "best_of" above n cannot be streamed: the best are known at the end');
  }
  if (body.max_tokens === 0 && body.echo !== true) {
    throw invalidField("max_tokens", 'Invalid "max_tokens": got 0, expected at least 1; only with "echo" may it be 0');
  }
}
