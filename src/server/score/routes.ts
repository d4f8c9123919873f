// POST /v1/score: how likely given continuations of a context are. What the contexts share is computed once.

import { randomBytes } from "node:crypto";
import { Elysia } from "elysia";
import type { ScoreResult } from "../../engine/types.ts";
import type { ServerContext } from "../context.ts";
import { HttpError } from "../errors.ts";
import { checkIds, engineUrgency, urgencyOf } from "../plan.ts";
import { tokenText } from "../prompt.ts";
import { recordOf } from "../request_record.ts";
import { type ScorePair, scorePairs } from "./pairs.ts";
import { scoreBody } from "./schema.ts";

export function scoreRoutes(context: ServerContext) {
  return new Elysia({ normalize: false }).post(
    "/v1/score",
    async ({ body, request }) => {
      const served = context.hybrids.resolve(body.model);
      const pairs = await scorePairs(context, body);
      for (const [i, pair] of pairs.entries()) checkPair(context, pair, i);
      const prompt = pairs[0]!.contextIds.length;
      const scored = pairs.reduce((sum, pair) => sum + pair.continuationIds.length, 0);
      const record = recordOf(request);
      record.model = served.id;
      record.hybrid = served.hybrid;
      record.usage = () => ({ promptTokens: prompt + scored, cachedTokens: 0, completionTokens: 0 });
      const over = context.lifecycle.begin();
      try {
        const urgency = engineUrgency(urgencyOf(context, body));
        const requests = pairs.map((pair) => ({ hybrid: served.hybrid, ...pair, ...urgency }));
        const results = await context.engine.score(requests, request.signal);
        return {
          id: `score-${randomBytes(12).toString("hex")}`,
          object: "list",
          created: Math.floor(Date.now() / 1000),
          model: served.id,
          data: results.map((result, index) => view(context, pairs[index]!, result, index)),
          usage: { prompt_tokens: prompt + scored, completion_tokens: 0, total_tokens: prompt + scored },
        };
      } finally {
        over();
      }
    },
    {
      parse: "json",
      body: scoreBody,
      detail: { tags: ["tokens"], summary: "Log-likelihood of continuations of a context" },
    },
  );
}

function view(context: ServerContext, { continuationIds }: ScorePair, result: ScoreResult, index: number) {
  const logprobs = [...result.logprobs];
  return {
    index,
    object: "score",
    /** Natural logarithm of the probability of the whole continuation. */
    logprob: logprobs.reduce((sum, value) => sum + value, 0),
    greedy: result.greedy,
    tokens: continuationIds.map((id) => tokenText(context, [id], true)),
    token_ids: continuationIds,
    token_logprobs: logprobs,
  };
}

function checkPair(context: ServerContext, { contextIds, continuationIds }: ScorePair, at: number): void {
  const { vocabSize, maxContext } = context.engine.info;
  checkIds(contextIds, vocabSize, "context");
  checkIds(continuationIds, vocabSize, `continuations[${at}]`);
  const length = contextIds.length + continuationIds.length;
  if (length <= maxContext) return;
  const message = `The context and continuation ${at} have ${length} tokens together; the model holds ${maxContext}`;
  throw new HttpError(400, "context_length_exceeded", message, `continuations[${at}]`);
}
