// From the records of a load to its figures: throughput, latencies, goodput. Failed requests count in no latency.
import { type Distribution, distributionOf } from "../statistics.ts";
import type { LoadResult } from "./load.ts";
import type { RequestRecord } from "./request.ts";

/** Latencies that a request is judged by, in milliseconds. */
export const objectiveNames = ["ttft", "tpot", "itl", "e2e"] as const;

/** Most milliseconds a good request may take, by name; "itl" is its longest gap. */
export type Objectives = { readonly [N in (typeof objectiveNames)[number]]?: number };

export interface LoadFigures {
  readonly successful: number;
  readonly failed: number;
  /** Number of failed requests by reason. */
  readonly failures: Readonly<Record<string, number>>;
  readonly seconds: number;
  readonly inputTokens: number;
  /** Input tokens that the server took from its prefix cache. */
  readonly cachedTokens: number;
  readonly outputTokens: number;
  readonly requestsPerSecond: number;
  readonly outputTokensPerSecond: number;
  readonly totalTokensPerSecond: number;
  readonly eventsPerSecond: number;
  readonly peakConcurrency: number;
  /** Milliseconds; null where nothing was measured. tpot = (e2e - ttft) / (output tokens - 1). */
  readonly ttft: Distribution | null;
  readonly tpot: Distribution | null;
  readonly itl: Distribution | null;
  readonly e2e: Distribution | null;
  /** Requests per second that met every objective; null without objectives. */
  readonly goodput: number | null;
  /** Processor time of this client, as a share of one core. */
  readonly clientShare: number;
}

export function figuresOf(result: LoadResult, objectives: Objectives): LoadFigures {
  const { records, seconds, peakConcurrency, clientSeconds } = result;
  const good = records.filter(({ failure }) => failure === null);
  const failures: Record<string, number> = {};
  for (const { failure } of records) if (failure !== null) failures[failure] = (failures[failure] ?? 0) + 1;
  const sum = (of: (record: RequestRecord) => number) => good.reduce((total, record) => total + of(record), 0);
  const [inputTokens, outputTokens] = [sum((one) => one.promptTokens), sum((one) => one.outputTokens)];
  const streamed = good.filter(({ outputTokens }) => outputTokens > 1);
  const withObjectives = objectiveNames.some((name) => objectives[name] !== undefined);
  return {
    successful: good.length,
    failed: records.length - good.length,
    failures,
    seconds,
    inputTokens,
    cachedTokens: sum((one) => one.cachedTokens),
    outputTokens,
    requestsPerSecond: good.length / seconds,
    outputTokensPerSecond: outputTokens / seconds,
    totalTokensPerSecond: (inputTokens + outputTokens) / seconds,
    eventsPerSecond: records.reduce((total, record) => total + record.numEvents, 0) / seconds,
    peakConcurrency,
    ttft: distributionOf(good.map(({ ttft }) => ttft)),
    tpot: distributionOf(streamed.map(tpotOf)),
    itl: distributionOf(good.flatMap(({ gaps }) => gaps)),
    e2e: distributionOf(good.map(({ e2e }) => e2e)),
    goodput: withObjectives ? good.filter((one) => meets(one, objectives)).length / seconds : null,
    clientShare: clientSeconds / seconds,
  };
}

function tpotOf({ e2e, ttft, outputTokens }: RequestRecord): number {
  return (e2e - ttft) / (outputTokens - 1);
}

function meets(record: RequestRecord, objectives: Objectives): boolean {
  const measured = {
    ttft: record.ttft,
    tpot: record.outputTokens > 1 ? tpotOf(record) : 0,
    itl: record.gaps.reduce((a, b) => Math.max(a, b), 0),
    e2e: record.e2e,
  };
  return objectiveNames.every((name) => measured[name] <= (objectives[name] ?? Number.POSITIVE_INFINITY));
}
