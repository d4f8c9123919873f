// From a plan to pieces of text: runs the choices on the engine, reads what they say, measures.
// Knows the engine and text, not the OpenAI shapes.

import type { Timings, TokenEvent, TokenLogprob, Usage } from "../engine/types.ts";
import { messageEnds } from "../text/message_ends.ts";
import { ChoiceText, type ToolCallDelta } from "./choice_text.ts";
import type { ServerContext } from "./context.ts";
import { deadlineExceeded } from "./errors.ts";
import { mergeIterables } from "./merge.ts";
import { engineUrgency, type GenerationPlan } from "./plan.ts";

/** One generated token with its log-probability. */
export interface ScoredToken extends TokenLogprob {
  readonly top: readonly TokenLogprob[];
}

/** What one choice adds. The last piece of a choice, and only it, has a finishReason. */
export interface ChoicePiece {
  /** prompt * n + choice. */
  readonly index: number;
  readonly text: string;
  readonly calls: readonly ToolCallDelta[];
  readonly tokenIds: readonly number[];
  readonly logprobs: readonly ScoredToken[];
  /** The token that ended the text without being a part of it; only where logprobs are asked for. */
  readonly endToken: ScoredToken | null;
  readonly finishReason: string | null;
  readonly usage: Usage;
  /** Of the sequence so far, in its first piece. */
  readonly timings?: Timings;
}

/** Runs every choice of every prompt at once; pieces come as they are made. Ends early when `signal` aborts. */
export async function* generateChoices(
  context: ServerContext,
  plan: GenerationPlan,
  signal: AbortSignal,
): AsyncGenerator<ChoicePiece> {
  const over = context.lifecycle.begin();
  context.metrics.requests.accepted(plan.served.id, plan.n, plan.maxTokens);
  const own = new AbortController();
  const abort = () => own.abort();
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    const choices = plan.prompts.flatMap((ids, prompt) =>
      Array.from({ length: plan.n }, (_, choice) =>
        generateChoice(context, plan, ids, prompt * plan.n + choice, choice, own.signal),
      ),
    );
    // Most requests want one text, which needs no merging.
    if (choices.length === 1) yield* choices[0]!;
    else yield* mergeIterables(choices, abort);
  } finally {
    signal.removeEventListener("abort", abort);
    over();
  }
}

async function* generateChoice(
  context: ServerContext,
  plan: GenerationPlan,
  promptIds: readonly number[],
  index: number,
  choice: number,
  signal: AbortSignal,
): AsyncGenerator<ChoicePiece> {
  if (plan.maxTokens === 0) {
    yield promptOnly(index, promptIds.length);
    return;
  }
  const watch = context.metrics.requests.sequence(plan.served.id);
  const said = new ChoiceText(context.text.tokenizer, plan.stopStrings, plan.tools);
  const events = context.engine.generate(
    {
      hybrid: plan.served.hybrid,
      promptIds,
      maxTokens: Math.min(plan.maxTokens, context.engine.info.maxContext - promptIds.length),
      sampling: plan.sampling,
      stopIds: plan.stopIds,
      choice,
      boundaries: messageEnds(promptIds, context.text.stopIds, context.text.tokenizer),
      ...engineUrgency(plan.urgency),
      ...(plan.logprobs === null ? {} : { logprobs: plan.logprobs }),
      ...(plan.grammar === null ? {} : { constraint: plan.grammar }),
    },
    signal,
  );
  for await (const event of events) {
    watch.arrived(event);
    const visible = visibleCount(event, plan.stopIds);
    const { text, calls, ended } = said.push(event.tokenIds.slice(0, visible), event.finishReason !== null);
    const ending = ended ?? event.finishReason;
    const finishReason = ending === "stop" && said.hasCalls ? "tool_calls" : ending;
    if (finishReason !== null) watch.finished(finishReason, event);
    if (finishReason === "deadline") throw deadlineExceeded();
    const scored = scoredTokens(event);
    yield {
      index,
      text,
      calls,
      tokenIds: event.tokenIds.slice(0, visible),
      logprobs: scored.slice(0, visible),
      endToken: scored[visible] ?? null,
      finishReason,
      usage: event.usage,
      ...(event.timings === undefined ? {} : { timings: event.timings }),
    };
    // Leaving the loop cancels the sequence.
    if (finishReason !== null) return;
  }
}

/** A choice of which nothing is generated. */
function promptOnly(index: number, promptTokens: number): ChoicePiece {
  const usage = { promptTokens, completionTokens: 0, cachedTokens: 0 };
  return { index, text: "", calls: [], tokenIds: [], logprobs: [], endToken: null, finishReason: "length", usage };
}

/** A token that only ends the text is no part of it. */
function visibleCount(event: TokenEvent, stopIds: readonly number[]): number {
  const last = event.tokenIds.at(-1);
  const endsText = event.finishReason === "stop" && last !== undefined && stopIds.includes(last);
  return event.tokenIds.length - (endsText ? 1 : 0);
}

function scoredTokens(event: TokenEvent): ScoredToken[] {
  const { logprobs = [], tokenIds, topLogprobs } = event;
  return logprobs.map((logprob, i) => ({ id: tokenIds[i]!, logprob, top: topLogprobs?.[i] ?? [] }));
}
