// Metrics of the engine, read from its counters at each scrape; names mirror vLLM's with our prefix.

import { Counter, Gauge, type Registry } from "prom-client";
import { STEP_TOKEN_BOUNDS } from "../engine/counters.ts";
import type { EngineClient, EngineStats } from "../engine/types.ts";
import { registerHistogram } from "./counted_histogram.ts";

type Reader = (stats: EngineStats) => number;

const GAUGES: readonly (readonly [string, string, Reader])[] = [
  ["graft_num_requests_running", "Sequences in the batch", (s) => s.running],
  ["graft_num_requests_waiting", "Sequences waiting for a place", (s) => s.waiting],
  ["graft_kv_cache_usage_perc", "Used part of the KV pages, 0 to 1", (s) => share(s.kvBytesUsed, s.kvBytesTotal)],
  ["graft_kv_cache_bytes", "Bytes of KV pages in use", (s) => s.kvBytesUsed],
  ["graft_kv_cache_total_bytes", "Bytes of all KV pages", (s) => s.kvBytesTotal],
  [
    "graft_state_usage_perc",
    "Used part of the recurrent states, 0 to 1",
    (s) => share(s.stateBytesUsed, s.stateBytesTotal),
  ],
  ["graft_state_bytes", "Bytes of recurrent and convolution states in use", (s) => s.stateBytesUsed],
  ["graft_state_total_bytes", "Bytes of all recurrent and convolution states", (s) => s.stateBytesTotal],
  ["graft_recurrent_state_bytes", "Bytes of recurrent states in use", (s) => s.recurrentBytesUsed],
  ["graft_conv_state_bytes", "Bytes of convolution states in use", (s) => s.convBytesUsed],
  ["graft_prefix_cache_bytes", "Bytes of KV pages and states kept for later requests", (s) => s.prefixBytes],
  ["graft_prefix_cache_snapshots", "Prefixes kept for later requests", (s) => s.prefixSnapshots],
  ["graft_weight_bytes", "Bytes of weights in memory", (s) => s.weightBytes],
  ["graft_last_step_seconds", "Duration of the last step", (s) => s.lastStepSeconds],
  ["graft_last_step_prefill_tokens", "Prompt tokens of the last step", (s) => s.lastStepPrefillTokens],
  ["graft_last_step_decode_tokens", "Generated tokens of the last step", (s) => s.lastStepDecodeTokens],
];

const COUNTERS: readonly (readonly [string, string, Reader])[] = [
  ["graft_engine_steps_total", "Engine steps", (s) => s.steps],
  ["graft_engine_steps_ahead_total", "Steps begun before the tokens of the last were known", (s) => s.stepsAhead],
  ["graft_engine_steps_replayed_total", "Steps replayed from a recording", (s) => s.stepsReplayed],
  ["graft_num_preemptions_total", "Sequences put back for lack of memory", (s) => s.preemptions],
  ["graft_prompt_tokens_total", "Prompt tokens taken in, cached ones included", (s) => s.promptTokens],
  ["graft_generation_tokens_total", "Tokens generated", (s) => s.generatedTokens],
  ["graft_prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache", (s) => s.prefixQueryTokens],
  ["graft_prefix_cache_hits_total", "Prompt tokens found in the prefix cache", (s) => s.prefixHitTokens],
  ["graft_prefix_cache_hit_requests_total", "Sequences that began with a cached prefix", (s) => s.prefixHits],
  ["graft_prefix_cache_missed_requests_total", "Sequences that began without one", (s) => s.prefixMisses],
  ["graft_prefix_cache_evictions_total", "Kept prefixes dropped for lack of room", (s) => s.prefixEvictions],
  ["graft_hybrid_loads_total", "Hybrids whose counterparts were read", (s) => s.hybridLoads],
  ["graft_hybrid_unloads_total", "Hybrids whose counterparts left the memory", (s) => s.hybridUnloads],
  ["graft_sessions_saved_total", "Prefixes written to the disk", (s) => s.sessions?.saved ?? 0],
  ["graft_sessions_restored_total", "Prefixes read back from the disk", (s) => s.sessions?.restored ?? 0],
  ["graft_session_tokens_restored_total", "Tokens of these prefixes", (s) => s.sessions?.restoredTokens ?? 0],
  ["graft_scored_tokens_total", "Tokens scored for evaluation", (s) => s.scoredTokens],
  ["graft_step_seconds_total", "Time spent in steps", (s) => s.stepSeconds],
];

/** Registers the family and answers the function that refreshes it. */
export function engineMetrics(
  registry: Registry,
  engine: EngineClient,
  model: string,
  settings: Readonly<Record<string, string | number>>,
): () => Promise<void> {
  const labels = { model_name: model };
  const make = { labelNames: ["model_name"] as const, registers: [registry] };
  const gauges = GAUGES.map(([name, help, read]) => ({ metric: new Gauge({ name, help, ...make }), read }));
  const counters = COUNTERS.map(([name, help, read]) => ({ metric: new Counter({ name, help, ...make }), read }));
  const finished = new Counter({
    name: "graft_sequences_finished_total",
    help: "Sequences ended, by reason",
    labelNames: ["model_name", "finished_reason"] as const,
    registers: [registry],
  });
  const outcomes = new Counter({
    name: "graft_prefix_cache_requests_total",
    help: "Sequences that began, by what the prefix cache had for them: hit, or why it had nothing",
    labelNames: ["model_name", "result"] as const,
    registers: [registry],
  });
  const weights = new Gauge({
    name: "graft_weight_kind_bytes",
    help: "Bytes of weights in memory: of the checkpoint itself, and of counterparts by variant",
    labelNames: ["model_name", "kind"] as const,
    registers: [registry],
  });
  const refused = new Counter({
    name: "graft_sessions_failed_total",
    help: "Saved prefixes that were not used, by reason",
    labelNames: ["model_name", "reason"] as const,
    registers: [registry],
  });
  const up = new Gauge({ name: "graft_engine_up", help: "Whether the engine's thread lives", ...make });
  const heartbeat = new Gauge({
    name: "graft_engine_heartbeat_age_seconds",
    help: "Since its last sign of life",
    ...make,
  });
  const restarts = new Counter({ name: "graft_engine_restarts_total", help: "New engines after a loss", ...make });
  configInfo(registry, engine, model, settings);
  let steps: EngineStats | null = null;
  registerHistogram(registry, {
    name: "graft_iteration_tokens_total",
    help: "Token rows of a step",
    bounds: STEP_TOKEN_BOUNDS,
    read: () => (steps === null ? null : { labels, counts: steps.stepsByTokens, sum: steps.stepTokens }),
  });
  return async () => {
    setCounter(restarts, labels, engine.restarts);
    up.set(labels, engine.alive ? 1 : 0);
    heartbeat.set(labels, engine.heartbeatAgeMs / 1000);
    if (!engine.alive) return;
    const stats = await engine.stats();
    steps = stats;
    for (const { metric, read } of gauges) metric.set(labels, read(stats));
    for (const { metric, read } of counters) setCounter(metric, labels, read(stats));
    for (const [kind, bytes] of Object.entries(stats.weightBytesByKind)) weights.set({ ...labels, kind }, bytes);
    refused.reset();
    for (const [reason, count] of Object.entries(stats.sessions?.failed ?? {})) {
      refused.inc({ ...labels, reason }, count);
    }
    outcomes.reset();
    for (const [result, count] of Object.entries(stats.prefixOutcomes)) outcomes.inc({ ...labels, result }, count);
    finished.reset();
    for (const [reason, count] of Object.entries(stats.finished))
      finished.inc({ ...labels, finished_reason: reason }, count);
  };
}

/** What the caches are made of, as labels of a gauge that is always 1. */
function configInfo(
  registry: Registry,
  { info }: EngineClient,
  model: string,
  settings: Readonly<Record<string, string | number>>,
): void {
  const labels = {
    model_name: model,
    page_size: info.pageSize,
    max_context: info.maxContext,
    max_batch_tokens: info.maxBatchTokens,
    max_sequences: info.maxSequences,
    max_waiting: info.maxWaiting,
    ...settings,
  };
  const name = "graft_cache_config_info";
  const help = "Settings of the engine and its caches";
  new Gauge({ name, help, labelNames: Object.keys(labels), registers: [registry] }).set(labels, 1);
}

/** The engine counts; the counter here only repeats its figure. */
function setCounter(counter: Counter<"model_name">, labels: { model_name: string }, value: number): void {
  counter.reset();
  counter.inc(labels, value);
}

function share(used: number, total: number): number {
  return total === 0 ? 0 : used / total;
}
