// What the engine has done so far, for metrics. Knows step results, not sequences' insides.
import type { FinishReason } from "./types.ts";

/** Counts since the engine's start; one mutable record. */
export class Counters {
  steps = 0;
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
  lastStepSeconds = 0;
  lastStepPrefillTokens = 0;
  lastStepDecodeTokens = 0;

  recordStep(seconds: number, prefillTokens: number, decodeTokens: number): void {
    this.steps++;
    this.stepSeconds += seconds;
    this.lastStepSeconds = seconds;
    this.lastStepPrefillTokens = prefillTokens;
    this.lastStepDecodeTokens = decodeTokens;
  }
}
