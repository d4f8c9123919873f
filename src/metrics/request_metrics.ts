// Metrics of generation requests as a client feels them: first token, between tokens, whole answer.

import { Counter, Histogram, type Registry } from "prom-client";

const LABELS = ["model_name"] as const;
/** Seconds; with a bound at exactly 2, so that a two-second objective reads something. */
const LONG_BUCKETS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
];
const SHORT_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5];
const TOKEN_BUCKETS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000];

export interface RequestMetrics {
  /** Seconds from the request to its first token. */
  firstToken(model: string, seconds: number): void;
  /** Seconds between two deliveries of `tokens` tokens. */
  nextTokens(model: string, seconds: number, tokens: number): void;
  /** A choice ended. */
  finished(model: string, reason: string, seconds: number, promptTokens: number, completionTokens: number): void;
}

export function requestMetrics(registry: Registry): RequestMetrics {
  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name, help, labelNames: LABELS, buckets, registers: [registry] });
  const ttft = histogram("graft_time_to_first_token_seconds", "From the request to its first token", LONG_BUCKETS);
  const itl = histogram("graft_inter_token_latency_seconds", "Between two tokens of a sequence", SHORT_BUCKETS);
  const e2e = histogram("graft_e2e_request_latency_seconds", "From the request to its last token", LONG_BUCKETS);
  const prompt = histogram("graft_request_prompt_tokens", "Prompt tokens of a request", TOKEN_BUCKETS);
  const generated = histogram("graft_request_generation_tokens", "Generated tokens of a request", TOKEN_BUCKETS);
  const success = new Counter({
    name: "graft_request_success_total",
    help: "Ended requests, by what ended the text",
    labelNames: ["model_name", "finished_reason"] as const,
    registers: [registry],
  });
  return {
    firstToken: (model, seconds) => ttft.observe({ model_name: model }, seconds),
    nextTokens(model, seconds, tokens) {
      for (let i = 0; i < tokens; i++) itl.observe({ model_name: model }, seconds / tokens);
    },
    finished(model, reason, seconds, promptTokens, completionTokens) {
      e2e.observe({ model_name: model }, seconds);
      prompt.observe({ model_name: model }, promptTokens);
      generated.observe({ model_name: model }, completionTokens);
      success.inc({ model_name: model, finished_reason: reason });
    },
  };
}
