// From a checked request to pieces of text: runs the choices on the engine, decodes, cuts at stop strings, measures.
// Knows the engine and text, not the OpenAI shapes.

import type { SamplingParams, TokenEvent, TokenLogprob, Usage } from "../engine/types.ts";
import { Detokenizer } from "../text/detokenizer.ts";
import { StopStrings } from "../text/stop_strings.ts";
import type { ServerContext } from "./context.ts";
import { HttpError } from "./errors.ts";
import type { ServedName } from "./hybrid_registry.ts";
import { mergeIterables } from "./merge.ts";
import type { SamplingBody } from "./sampling_schema.ts";
import { MAX_CHOICES } from "./sampling_schema.ts";

/** Everything a request asks of the engine. */
export interface GenerationPlan {
  readonly served: ServedName;
  readonly prompts: readonly (readonly number[])[];
  readonly n: number;
  readonly maxTokens: number;
  readonly sampling: SamplingParams;
  readonly stopStrings: readonly string[];
  readonly stopIds: readonly number[];
  /** null: none; 0: of the chosen token; k: also of the k most likely. */
  readonly logprobs: number | null;
}

/** One generated token with its log-probability. */
export interface ScoredToken extends TokenLogprob {
  readonly top: readonly TokenLogprob[];
}

/** What one choice adds. The last piece of a choice, and only it, has a finishReason. */
export interface ChoicePiece {
  /** prompt * n + choice. */
  readonly index: number;
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly logprobs: readonly ScoredToken[];
  readonly finishReason: string | null;
  readonly usage: Usage;
}

/**
 * The plan for prompts under the request's sampling fields, filled up from the model's own defaults.
 * @throws HttpError for a prompt that does not fit, ids out of range, or too many choices
 */
export function planGeneration(
  context: ServerContext,
  body: SamplingBody,
  prompts: readonly (readonly number[])[],
  maxTokens: number | undefined,
  logprobs: number | null,
): GenerationPlan {
  const { info } = context.engine;
  const served = context.hybrids.resolve(body.model);
  const n = body.n ?? 1;
  if (n * prompts.length > MAX_CHOICES) {
    throw new HttpError(
      400,
      "too_many_choices",
      `n times prompts is ${n * prompts.length}, at most ${MAX_CHOICES}`,
      "n",
    );
  }
  for (const ids of prompts) checkPrompt(ids, info.vocabSize, info.maxContext);
  const { defaults } = context.text;
  const ownIds = body.ignore_eos === true ? [] : context.text.stopIds;
  return {
    served,
    prompts,
    n,
    maxTokens: Math.min(maxTokens ?? info.maxContext, info.maxContext),
    sampling: {
      temperature: body.temperature ?? (defaults.doSample === false ? 0 : (defaults.temperature ?? 1)),
      topP: body.top_p ?? defaults.topP ?? 1,
      topK: body.top_k ?? defaults.topK ?? 0,
      minP: body.min_p ?? defaults.minP ?? 0,
      seed: body.seed ?? Math.floor(Math.random() * Number.MAX_SAFE_INTEGER),
    },
    stopStrings: typeof body.stop === "string" ? [body.stop] : (body.stop ?? []),
    stopIds: [...new Set([...ownIds, ...(body.stop_token_ids ?? [])])],
    logprobs,
  };
}

function checkPrompt(ids: readonly number[], vocabSize: number, maxContext: number): void {
  if (ids.length === 0) throw new HttpError(400, "empty_prompt", "The prompt holds no token", "prompt");
  if (ids.length >= maxContext) {
    const message = `The prompt has ${ids.length} tokens; the context holds ${maxContext}, at least one of them to generate`;
    throw new HttpError(400, "context_length_exceeded", message, "prompt");
  }
  const wrong = ids.find((id) => !(id >= 0 && id < vocabSize));
  if (wrong !== undefined) {
    throw new HttpError(400, "invalid_value", `Token id ${wrong} is not in [0, ${vocabSize - 1}]`, "prompt");
  }
}

/** Runs every choice of every prompt at once; pieces come as they are made. Ends early when `signal` aborts. */
export async function* generateChoices(
  context: ServerContext,
  plan: GenerationPlan,
  signal: AbortSignal,
): AsyncGenerator<ChoicePiece> {
  const over = context.lifecycle.begin();
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
    yield* mergeIterables(choices, abort);
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
  const watch = stopwatch(context, plan.served.id);
  const decode = textDecoder(context, plan.stopStrings);
  const events = context.engine.generate(
    {
      hybrid: plan.served.hybrid,
      promptIds,
      maxTokens: Math.min(plan.maxTokens, context.engine.info.maxContext - promptIds.length),
      sampling: plan.sampling,
      stopIds: plan.stopIds,
      choice,
      ...(plan.logprobs === null ? {} : { logprobs: plan.logprobs }),
    },
    signal,
  );
  for await (const event of events) {
    watch.arrived(event.tokenIds.length);
    const visible = visibleCount(event, plan.stopIds);
    const { text, stopped } = decode(event.tokenIds.slice(0, visible), event.finishReason !== null);
    const finishReason = stopped ? "stop" : event.finishReason;
    if (finishReason !== null) watch.finished(finishReason, event.usage);
    yield {
      index,
      text,
      tokenIds: event.tokenIds.slice(0, visible),
      logprobs: scoredTokens(event, visible),
      finishReason,
      usage: event.usage,
    };
    // Leaving the loop cancels the sequence.
    if (finishReason !== null) return;
  }
}

/** A token that only ends the text is no part of it. */
function visibleCount(event: TokenEvent, stopIds: readonly number[]): number {
  const last = event.tokenIds.at(-1);
  const endsText = event.finishReason === "stop" && last !== undefined && stopIds.includes(last);
  return event.tokenIds.length - (endsText ? 1 : 0);
}

function scoredTokens(event: TokenEvent, count: number): ScoredToken[] {
  if (event.logprobs === undefined) return [];
  return event.logprobs
    .slice(0, count)
    .map((logprob, i) => ({ id: event.tokenIds[i]!, logprob, top: event.topLogprobs?.[i] ?? [] }));
}

/** Decodes growing ids and cuts at stop strings; without a tokenizer there is no text and nothing to cut. */
function textDecoder(context: ServerContext, stopStrings: readonly string[]) {
  const { tokenizer } = context.text;
  if (tokenizer === null) return () => ({ text: "", stopped: false });
  const detokenizer = new Detokenizer(tokenizer);
  const stops = new StopStrings(stopStrings);
  return (ids: readonly number[], last: boolean) => {
    const decoded = detokenizer.push(ids) + (last ? detokenizer.flush() : "");
    const { text, stop } = stops.push(decoded);
    return { text: last && stop === null ? text + stops.flush() : text, stopped: stop !== null };
  };
}

/** Observes one choice's times on the monotonic clock. */
function stopwatch(context: ServerContext, model: string) {
  const metrics = context.metrics.requests;
  const start = performance.now();
  let last: number | null = null;
  return {
    arrived(tokens: number) {
      const now = performance.now();
      if (last === null) metrics.firstToken(model, (now - start) / 1000);
      else if (tokens > 0) metrics.nextTokens(model, (now - last) / 1000, tokens);
      last = now;
    },
    finished(reason: string, usage: Usage) {
      metrics.finished(model, reason, (performance.now() - start) / 1000, usage.promptTokens, usage.completionTokens);
    },
  };
}
