// Checks requests and turns them into sequences. Knows the model's limits, not the queue.
import { RequestError } from "../errors.ts";
import type { ConstraintFactory, TokenConstraint } from "./constraint.ts";
import type { Hybrid } from "./hybrid.ts";
import { Sequence } from "./sequence.ts";
import type { GenerateRequest, SamplingParams, ScoreRequest } from "./types.ts";

/** Most alternatives whose log-probabilities a request may ask for. */
export const MAX_LOGPROBS = 20;
/** Most ids whose logits a request may shift. */
export const MAX_LOGIT_BIAS = 1024;
const MAX_CHOICE = 0xffff_ffff;
const MAX_PRIORITY = 2 ** 31;
const MAX_DEADLINE_MS = 2 ** 31;

/** What a model and the memory for it allow one sequence. */
export interface RequestLimits {
  readonly vocabSize: number;
  readonly maxContext: number;
}

/** @param constraints makes constraints; null: a request with one is refused. @throws RequestError */
export function generateSequence(
  id: number,
  request: GenerateRequest,
  hybrid: Hybrid,
  limits: RequestLimits,
  constraints: ConstraintFactory | null,
): Sequence {
  const tokens = checkIds("promptIds", request.promptIds, limits);
  if (tokens.length > limits.maxContext) {
    refuse("context_length", `prompt has ${tokens.length} tokens, the context holds ${limits.maxContext}`);
  }
  checkInteger("maxTokens", request.maxTokens, 1, Number.MAX_SAFE_INTEGER);
  if (request.logprobs !== undefined) checkInteger("logprobs", request.logprobs, 0, MAX_LOGPROBS);
  const choice = request.choice ?? 0;
  checkInteger("choice", choice, 0, MAX_CHOICE);
  const stopIds = new Set(request.stopIds ?? []);
  return new Sequence({
    id,
    hybrid,
    tokens,
    // The last token is never fed, so it may stand one past the context's end.
    maxTokens: Math.min(tokens.length + request.maxTokens, limits.maxContext + 1),
    sampling: { ...checkSampling(request.sampling ?? {}, limits), choice, numLogprobs: request.logprobs ?? -1 },
    stopIds,
    constraint: makeConstraint(request, stopIds, constraints),
    score: null,
    boundaries: checkBoundaries(request.boundaries ?? [], tokens.length),
    ...checkUrgency(request),
  });
}

/** @throws RequestError */
export function scoreSequence(id: number, request: ScoreRequest, hybrid: Hybrid, limits: RequestLimits): Sequence {
  const context = checkIds("contextIds", request.contextIds, limits);
  const continuation = checkIds("continuationIds", request.continuationIds, limits);
  const fed = context.length + continuation.length - 1;
  if (fed > limits.maxContext) {
    refuse("context_length", `context and continuation have ${fed + 1} tokens, at most ${limits.maxContext + 1} fit`);
  }
  const numTop = request.topLogprobs ?? 0;
  checkInteger("topLogprobs", numTop, 0, MAX_LOGPROBS);
  return new Sequence({
    id,
    hybrid,
    tokens: context.concat(continuation),
    maxTokens: fed + 1,
    sampling: { ...checkSampling({}, limits), choice: 0, numLogprobs: -1 },
    stopIds: new Set(),
    constraint: null,
    score: {
      from: context.length,
      logprobs: new Float32Array(continuation.length),
      argmax: new Int32Array(continuation.length),
      numTop,
      top: [],
    },
    boundaries: [],
    ...checkUrgency(request),
  });
}

function checkIds(field: string, ids: readonly number[] | Int32Array, limits: RequestLimits): number[] {
  if (ids.length === 0) refuse("invalid_request", `${field} is empty`);
  for (const id of ids) {
    if (!Number.isInteger(id) || id < 0 || id >= limits.vocabSize) {
      refuse("invalid_request", `${field} holds ${id}, expected integers from 0 to ${limits.vocabSize - 1}`);
    }
  }
  return Array.from(ids);
}

function checkBoundaries(boundaries: readonly number[], numPrompt: number): number[] {
  for (const boundary of boundaries) checkInteger("boundaries", boundary, 1, numPrompt);
  return [...new Set(boundaries)].sort((a, b) => a - b);
}

function checkUrgency(request: { priority?: number; deadlineMs?: number }): { priority: number; deadlineMs: number } {
  const { priority = 0, deadlineMs } = request;
  checkInteger("priority", priority, -MAX_PRIORITY, MAX_PRIORITY);
  if (deadlineMs !== undefined) checkNumber("deadlineMs", deadlineMs, 1, MAX_DEADLINE_MS);
  return { priority, deadlineMs: deadlineMs ?? Number.POSITIVE_INFINITY };
}

function makeConstraint(
  { constraint: spec }: GenerateRequest,
  stopIds: ReadonlySet<number>,
  factory: ConstraintFactory | null,
): TokenConstraint | null {
  if (spec === undefined) return null;
  if (factory === null) refuse("unsupported_constraint", "this engine takes no constraints");
  const constraint = factory(spec, stopIds);
  if (constraint.done) refuse("invalid_constraint", "the constraint allows no text at all");
  return constraint;
}

function checkSampling(params: SamplingParams, limits: RequestLimits): Required<SamplingParams> {
  const { temperature = 0, topP = 1, topK = 0, minP = 0, seed = 0 } = params;
  const { presencePenalty = 0, frequencyPenalty = 0, repetitionPenalty = 1, logitBias = [] } = params;
  checkNumber("temperature", temperature, 0, 1e6);
  checkNumber("topP", topP, 0, 1);
  if (topP === 0) refuse("invalid_request", "topP is 0, expected more than 0");
  checkInteger("topK", topK, 0, 0x7fff_ffff);
  checkNumber("minP", minP, 0, 1);
  checkInteger("seed", seed, 0, Number.MAX_SAFE_INTEGER);
  checkNumber("presencePenalty", presencePenalty, -2, 2);
  checkNumber("frequencyPenalty", frequencyPenalty, -2, 2);
  checkNumber("repetitionPenalty", repetitionPenalty, 1e-6, 2); // a logit divided by less could overflow
  checkBias(logitBias, limits);
  const penalties = { presencePenalty, frequencyPenalty, repetitionPenalty, logitBias };
  return { temperature, topP, topK, minP, seed, ...penalties };
}

function checkBias(logitBias: Required<SamplingParams>["logitBias"], { vocabSize }: RequestLimits): void {
  if (logitBias.length > MAX_LOGIT_BIAS) {
    refuse("invalid_request", `logitBias has ${logitBias.length} entries, at most ${MAX_LOGIT_BIAS} fit`);
  }
  const seen = new Set<number>();
  for (const [id, bias] of logitBias) {
    checkInteger("logitBias id", id, 0, vocabSize - 1);
    checkNumber(`logitBias of ${id}`, bias, -100, 100);
    if (seen.has(id)) refuse("invalid_request", `logitBias names ${id} twice`);
    seen.add(id);
  }
}

function checkNumber(field: string, value: number, min: number, max: number): void {
  if (typeof value !== "number" || !(value >= min && value <= max)) {
    refuse("invalid_request", `${field} is ${value}, expected ${min} to ${max}`);
  }
}

function checkInteger(field: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value)) refuse("invalid_request", `${field} is ${value}, expected an integer`);
  checkNumber(field, value, min, max);
}

function refuse(code: string, why: string): never {
  throw new RequestError(code, `Cannot accept the request: ${why}`);
}
