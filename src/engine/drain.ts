// Runs a list of requests to its end on an engine that nobody else uses: what jobs, evaluation and search do.
import type { Engine, StepResult } from "./engine.ts";
import type { GenerateRequest, GenerateResult, ScoreRequest, ScoreResult, TokenEvent } from "./types.ts";

/** Results in the order of the requests. @throws RequestError, KernelError; then nothing of the list runs on. */
export function generateAll(engine: Engine, requests: readonly GenerateRequest[]): GenerateResult[] {
  const results = requests.map(emptyResult);
  const use = (index: ReadonlyMap<number, number>, step: StepResult) => {
    for (const { id, event } of step.events) append(results[index.get(id)!]!, event);
  };
  drain(engine, requests, (request) => engine.add(request), use);
  return results;
}

/** Results in the order of the requests. @throws as generateAll() */
export function scoreAll(engine: Engine, requests: readonly ScoreRequest[]): ScoreResult[] {
  const results: ScoreResult[] = new Array(requests.length);
  const use = (index: ReadonlyMap<number, number>, step: StepResult) => {
    for (const { id, result } of step.scores) results[index.get(id)!] = result;
  };
  drain(engine, requests, (request) => engine.addScore(request), use);
  return results;
}

/** Feeds requests as the queue has room, and steps until all have ended. `use` finds a request's index by its id. */
function drain<T>(
  engine: Engine,
  requests: readonly T[],
  add: (request: T) => number,
  use: (index: ReadonlyMap<number, number>, step: StepResult) => void,
): void {
  if (engine.hasWork) throw new Error("Cannot run requests to their end: the engine is in use");
  const index = new Map<number, number>();
  let next = 0;
  try {
    while (next < requests.length || engine.hasWork) {
      while (next < requests.length && engine.hasRoom) {
        index.set(add(requests[next]!), next);
        next++;
      }
      const step = engine.step();
      if (step.failed.length > 0) throw step.failed[0]!.error;
      const idle = step.numPrefillTokens + step.numDecodeTokens + step.events.length + step.scores.length === 0;
      if (idle) throw new Error("The engine has work and admits none of it");
      use(index, step);
    }
  } finally {
    for (const id of index.keys()) engine.cancel(id);
  }
}

function emptyResult(): GenerateResult {
  return {
    tokenIds: [],
    finishReason: "cancelled",
    usage: { promptTokens: 0, completionTokens: 0, cachedTokens: 0 },
  };
}

function append(result: GenerateResult, event: TokenEvent): void {
  result.tokenIds.push(...event.tokenIds);
  if (event.logprobs) {
    result.logprobs ??= [];
    result.logprobs.push(...event.logprobs);
  }
  if (event.topLogprobs) {
    result.topLogprobs ??= [];
    result.topLogprobs.push(...event.topLogprobs);
  }
  if (event.finishReason !== null) result.finishReason = event.finishReason;
  result.usage = event.usage;
}
