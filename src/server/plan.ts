// From a request's fields to what is asked of the engine: prompts checked, defaults of the model filled in.
// Knows fields and limits; runs nothing.

import type { SamplingParams } from "../engine/types.ts";
import type { CompiledGrammar } from "../grammar/compile.ts";
import type { ServerContext } from "./context.ts";
import { HttpError, invalidField } from "./errors.ts";
import { shown } from "./fields.ts";
import type { ServedName } from "./hybrid_registry.ts";
import { MAX_CHOICES, type SamplingBody } from "./sampling_schema.ts";
import type { ToolUse } from "./tools/use.ts";

/** Everything a request asks of the engine. */
export interface GenerationPlan {
  readonly served: ServedName;
  readonly prompts: readonly (readonly number[])[];
  /** Sequences of one prompt. */
  readonly n: number;
  /** 0: nothing is generated, the prompt alone is answered. */
  readonly maxTokens: number;
  readonly sampling: SamplingParams;
  readonly stopStrings: readonly string[];
  readonly stopIds: readonly number[];
  /** null: none; 0: of the chosen token; k: also of the k most likely. */
  readonly logprobs: number | null;
  /** What the model may call; null: nothing. */
  readonly tools: ToolUse | null;
  /** What the text must look like; null: anything. */
  readonly grammar: CompiledGrammar | null;
  readonly urgency: Urgency;
}

/** When the engine shall turn to a request, and until when it may. */
export interface Urgency {
  readonly priority: number;
  /** On the clock of performance.now(); Infinity: never. */
  readonly deadline: number;
}

/** What the routes spell differently. */
export interface PlanFields {
  readonly prompts: readonly (readonly number[])[];
  /** The field that holds the prompt (default "prompt"). */
  readonly param?: string;
  /** Absent: up to the end of the context. */
  readonly maxTokens: number | undefined;
  readonly logprobs: number | null;
  /** Sequences of one prompt where that is not `n`. */
  readonly sequences?: number;
  readonly tools?: ToolUse | null;
  readonly grammar?: CompiledGrammar | null;
}

/**
 * The plan for prompts under the request's sampling fields, filled up from the model's own defaults.
 * @throws HttpError for a prompt that does not fit, ids out of range, or too many choices
 */
export function planGeneration(context: ServerContext, body: SamplingBody, fields: PlanFields): GenerationPlan {
  const { info } = context.engine;
  const { prompts, param = "prompt" } = fields;
  const served = context.hybrids.resolve(body.model);
  const n = fields.sequences ?? body.n ?? 1;
  if (n * prompts.length > MAX_CHOICES) {
    const field = fields.sequences === undefined ? "n" : "best_of";
    const message = `${field} times prompts is ${n * prompts.length}, at most ${MAX_CHOICES}`;
    throw new HttpError(400, "too_many_choices", message, field);
  }
  const maxTokens = Math.min(fields.maxTokens ?? info.maxContext, info.maxContext);
  for (const ids of prompts) checkPrompt(ids, info.vocabSize, info.maxContext - Math.min(1, maxTokens), param);
  const ownIds = body.ignore_eos === true ? [] : context.text.stopIds;
  return {
    served,
    prompts,
    n,
    maxTokens,
    sampling: samplingOf(context, body),
    stopStrings: typeof body.stop === "string" ? [body.stop] : (body.stop ?? []),
    stopIds: [...new Set([...ownIds, ...(body.stop_token_ids ?? [])])],
    logprobs: fields.logprobs,
    tools: fields.tools ?? null,
    grammar: fields.grammar ?? null,
    urgency: urgencyOf(context, body),
  };
}

/** The request's own wish, within what the server allows. */
export function urgencyOf(
  context: ServerContext,
  { priority = 0, timeout_ms }: { readonly priority?: number; readonly timeout_ms?: number },
): Urgency {
  const limit = Math.min(timeout_ms ?? Number.POSITIVE_INFINITY, context.requestTimeoutMs ?? Number.POSITIVE_INFINITY);
  return { priority, deadline: performance.now() + limit };
}

/** The fields of an engine's request that now begins. */
export function engineUrgency({ priority, deadline }: Urgency): { priority: number; deadlineMs?: number } {
  if (deadline === Number.POSITIVE_INFINITY) return { priority };
  return { priority, deadlineMs: Math.max(1, deadline - performance.now()) };
}

function samplingOf(context: ServerContext, body: SamplingBody): SamplingParams {
  const { defaults } = context.text;
  return {
    temperature: body.temperature ?? (defaults.doSample === false ? 0 : (defaults.temperature ?? 1)),
    topP: body.top_p ?? defaults.topP ?? 1,
    topK: Math.max(0, body.top_k ?? defaults.topK ?? 0),
    minP: body.min_p ?? defaults.minP ?? 0,
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    repetitionPenalty: body.repetition_penalty ?? 1,
    logitBias: biasesOf(body.logit_bias ?? {}, context.engine.info.vocabSize),
    seed: seedOf(body.seed),
  };
}

function biasesOf(given: Readonly<Record<string, number>>, vocabSize: number): [id: number, bias: number][] {
  return Object.entries(given).map(([key, bias]) => {
    const id = /^(0|[1-9]\d{0,9})$/.test(key) ? Number(key) : vocabSize;
    if (id < vocabSize) return [id, bias];
    const message = `Invalid "logit_bias": key ${shown(key)} is no token id, expected 0 to ${vocabSize - 1}`;
    throw invalidField("logit_bias", message);
  });
}

/** The engine counts seeds from 0; a negative one stands for the same distance from 2^53. */
function seedOf(seed: number | undefined): number {
  if (seed === undefined) return Math.floor(Math.random() * Number.MAX_SAFE_INTEGER);
  return seed >= 0 ? seed : Number.MAX_SAFE_INTEGER + 1 + seed;
}

/**
 * Checks ids that are to be fed.
 * @throws HttpError naming `param`
 */
export function checkIds(ids: readonly number[], vocabSize: number, param: string): void {
  const wrong = ids.find((id) => !(id >= 0 && id < vocabSize));
  if (wrong === undefined) return;
  throw new HttpError(400, "invalid_value", `Token id ${wrong} is not in [0, ${vocabSize - 1}]`, param);
}

function checkPrompt(ids: readonly number[], vocabSize: number, limit: number, param: string): void {
  if (ids.length === 0) throw new HttpError(400, "empty_prompt", "The prompt holds no token", param);
  if (ids.length > limit) {
    const message = `The prompt has ${ids.length} tokens; the context holds ${limit} and what is to be generated`;
    throw new HttpError(400, "context_length_exceeded", message, param);
  }
  checkIds(ids, vocabSize, param);
}
