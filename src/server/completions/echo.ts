// Log-probabilities of prompts, for `echo`: each token under what stands before it.

import type { ScoreResult } from "../../engine/types.ts";
import type { ServerContext } from "../context.ts";
import type { ScoredToken } from "../generation.ts";
import { engineUrgency, type GenerationPlan } from "../plan.ts";

/** A token of a prompt; nothing stands before the first one, so that it has no log-probability. */
export type PromptToken = ScoredToken | { readonly id: number; readonly logprob: null; readonly top: null };

/** The tokens of every prompt of the plan with their log-probabilities. */
export async function scorePrompts(
  context: ServerContext,
  plan: GenerationPlan,
  signal: AbortSignal,
): Promise<PromptToken[][]> {
  const over = context.lifecycle.begin();
  try {
    const long = plan.prompts.filter((ids) => ids.length > 1);
    const requests = long.map((ids) => ({
      hybrid: plan.served.hybrid,
      contextIds: ids.slice(0, 1),
      continuationIds: ids.slice(1),
      topLogprobs: plan.logprobs ?? 0,
      ...engineUrgency(plan.urgency),
    }));
    const results = requests.length === 0 ? [] : await context.engine.score(requests, signal);
    const byPrompt = new Map(long.map((ids, i) => [ids, results[i]!]));
    return plan.prompts.map((ids) => promptTokens(ids, byPrompt.get(ids) ?? null));
  } finally {
    over();
  }
}

function promptTokens(ids: readonly number[], result: ScoreResult | null): PromptToken[] {
  return ids.map((id, i) =>
    i === 0 || result === null
      ? { id, logprob: null, top: null }
      : { id, logprob: result.logprobs[i - 1]!, top: result.topLogprobs?.[i - 1] ?? [] },
  );
}
