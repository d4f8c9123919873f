// What the engine has done so far, for metrics. Knows step results, not sequences' insides.
import type { FinishReason } from "./types.ts";

/** Upper bounds by which steps are counted; one more count holds what is above the last. */
export const STEP_TOKEN_BOUNDS: readonly number[] = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];

/** Counts since the engine's start; one mutable record. */
export class Counters {
  steps = 0;
  /** Begun before the tokens of the step before were known. */
  stepsAhead = 0;
  promptTokens = 0;
  generatedTokens = 0;
  scoredTokens = 0;
  readonly finished: Record<FinishReason | "score", number> = {
    stop: 0,
    length: 0,
    deadline: 0,
    cancelled: 0,
    score: 0,
  };
  stepSeconds = 0;
  readonly stepsByTokens: number[] = new Array(STEP_TOKEN_BOUNDS.length + 1).fill(0);
  stepTokens = 0;
  lastStepSeconds = 0;
  lastStepPrefillTokens = 0;
  lastStepDecodeTokens = 0;

  recordStep(seconds: number, prefillTokens: number, decodeTokens: number): void {
    this.steps++;
    this.stepSeconds += seconds;
    const tokens = prefillTokens + decodeTokens;
    const bucket = STEP_TOKEN_BOUNDS.findIndex((bound) => tokens <= bound);
    this.stepsByTokens[bucket < 0 ? STEP_TOKEN_BOUNDS.length : bucket]!++;
    this.stepTokens += tokens;
    this.lastStepSeconds = seconds;
    this.lastStepPrefillTokens = prefillTokens;
    this.lastStepDecodeTokens = decodeTokens;
  }
}
