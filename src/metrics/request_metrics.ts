// Metrics of generation requests as a client feels them and of where their time went. Names, meanings and bounds are
// vLLM's under our prefix; for each sequence e2e = queue + prefill + decode + what the server itself adds.

import { Counter, Histogram, type Registry } from "prom-client";
import type { TokenEvent } from "../engine/types.ts";

const LABELS = ["model_name"] as const;
/** Names beyond so many share one series: a client that registers hybrids without end must not grow the scrape. */
const MAX_MODELS = 256;

const FIRST_TOKEN_BUCKETS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
];
/** vLLM's begin at 0.01; a small model on a CPU needs the four before. */
const TOKEN_BUCKETS = [
  ...[0.0005, 0.001, 0.0025, 0.005],
  ...[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80],
];
const REQUEST_BUCKETS = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680];
const CHOICE_BUCKETS = [1, 2, 5, 10, 20];

/** 1, 2, 5, 10, ... up to `max`. */
function oneTwoFive(max: number): number[] {
  const bounds: number[] = [];
  for (let power = 1; power <= max; power *= 10) bounds.push(...[power, 2 * power, 5 * power].filter((n) => n <= max));
  return bounds;
}

/** The times of one sequence; each method is called as the thing happens. */
export interface SequenceWatch {
  arrived(event: TokenEvent): void;
  /** It ended, by the engine's word or because its text did. `event` is the last one read. */
  finished(reason: string, event: TokenEvent): void;
}

export interface RequestMetrics {
  /** A request was taken for `n` choices of at most `maxTokens` tokens each. */
  accepted(model: string, n: number, maxTokens: number): void;
  /** A sequence begins now. */
  sequence(model: string): SequenceWatch;
}

/** Registers the family. */
export function requestMetrics(registry: Registry, maxContext: number): RequestMetrics {
  const families = createFamilies(registry, maxContext);
  const known = new Map<string, ModelSeries>();
  const seriesOf = (model: string): ModelSeries => {
    const found = known.get(model);
    if (found !== undefined) return found;
    const label = known.size < MAX_MODELS ? model : "other";
    const series = known.get(label) ?? bindSeries(families, label);
    known.set(label, series);
    return series;
  };
  return {
    accepted(model, n, maxTokens) {
      const series = seriesOf(model);
      series.n.observe(n);
      series.maxTokens.observe(maxTokens);
    },
    sequence: (model) => watchSequence(seriesOf(model)),
  };
}

function createFamilies(registry: Registry, maxContext: number) {
  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name: `graft_${name}`, help, labelNames: LABELS, buckets, registers: [registry] });
  const lengths = oneTwoFive(maxContext);
  return {
    firstToken: histogram("time_to_first_token_seconds", "From the request to its first token", FIRST_TOKEN_BUCKETS),
    betweenTokens: histogram("inter_token_latency_seconds", "Between two tokens of a sequence", TOKEN_BUCKETS),
    perToken: histogram("request_time_per_output_token_seconds", "Mean of a request after its first", TOKEN_BUCKETS),
    endToEnd: histogram("e2e_request_latency_seconds", "From the request to its last token", REQUEST_BUCKETS),
    queue: histogram("request_queue_time_seconds", "Waiting for a place in the batch", REQUEST_BUCKETS),
    inference: histogram("request_inference_time_seconds", "In the batch: prefill and decode", REQUEST_BUCKETS),
    prefill: histogram("request_prefill_time_seconds", "From the first step to the first token", REQUEST_BUCKETS),
    decode: histogram("request_decode_time_seconds", "From the first token to the last", REQUEST_BUCKETS),
    promptTokens: histogram("request_prompt_tokens", "Prompt tokens of a request", lengths),
    generatedTokens: histogram("request_generation_tokens", "Generated tokens of a request", lengths),
    n: histogram("request_params_n", "Choices asked for", CHOICE_BUCKETS),
    maxTokens: histogram("request_params_max_tokens", "Most tokens asked for", lengths),
    success: new Counter({
      name: "graft_request_success_total",
      help: "Ended requests, by what ended the text",
      labelNames: ["model_name", "finished_reason"] as const,
      registers: [registry],
    }),
  };
}

type Families = ReturnType<typeof createFamilies>;
type Observer = { observe(value: number): void };
type ModelSeries = { readonly [K in Exclude<keyof Families, "success">]: Observer } & {
  ended(reason: string): void;
};

/** The series of one model, looked up once instead of at every token. */
function bindSeries(families: Families, model: string): ModelSeries {
  const { success, ...histograms } = families;
  const bound = Object.entries(histograms).map(([name, family]) => [name, family.labels({ model_name: model })]);
  return {
    ...(Object.fromEntries(bound) as Omit<ModelSeries, "ended">),
    ended: (reason) => success.inc({ model_name: model, finished_reason: reason }),
  };
}

function watchSequence(series: ModelSeries): SequenceWatch {
  const start = performance.now();
  let first: number | null = null;
  let last = start;
  let timings: TokenEvent["timings"];
  return {
    arrived(event) {
      const now = performance.now();
      const tokens = event.tokenIds.length;
      timings = event.timings ?? timings;
      if (tokens === 0) return;
      if (first === null) {
        first = now;
        series.firstToken.observe((now - start) / 1000);
      } else {
        const each = (now - last) / 1000 / tokens;
        for (let i = 0; i < tokens; i++) series.betweenTokens.observe(each);
      }
      last = now;
    },
    finished(reason, { usage, timings: final }) {
      series.ended(reason);
      series.endToEnd.observe((performance.now() - start) / 1000);
      series.promptTokens.observe(usage.promptTokens);
      series.generatedTokens.observe(usage.completionTokens);
      if (timings === undefined) return;
      // A text that ended before its sequence did has the engine's word for the time up to its first token only.
      const decode = final?.decodeSeconds ?? (last - (first ?? last)) / 1000;
      const { queueSeconds, prefillSeconds } = timings;
      series.queue.observe(queueSeconds);
      series.prefill.observe(prefillSeconds);
      series.decode.observe(decode);
      series.inference.observe(prefillSeconds + decode);
      if (usage.completionTokens > 1) series.perToken.observe(decode / (usage.completionTokens - 1));
    },
  };
}
