// Drives a server: sends requests at their times, never more at once than allowed, and keeps what became of each.
import { type PlannedRequest, type RequestRecord, type RequestSettings, sendRequest, type Target } from "./request.ts";

/** Requests and when they are sent. */
export interface LoadPlan {
  readonly requests: readonly PlannedRequest[];
  /** Seconds after the start, ascending, one per request. */
  readonly arrivals: readonly number[];
  /** Requests that are under way at once; a request that is due waits, and its times begin when it is sent. */
  readonly maxConcurrency: number;
  readonly settings: RequestSettings;
}

/** What a load has brought. */
export interface LoadResult {
  /** In the order of the requests. */
  readonly records: readonly RequestRecord[];
  /** From the first request to the end of the last. */
  readonly seconds: number;
  readonly peakConcurrency: number;
  /** Processor seconds that this client took. */
  readonly clientSeconds: number;
}

/** @param onProgress hears how many requests have ended */
export async function runLoad(target: Target, plan: LoadPlan, onProgress: (done: number) => void): Promise<LoadResult> {
  const { requests, arrivals, maxConcurrency, settings } = plan;
  const records: RequestRecord[] = new Array(requests.length);
  const running = new Set<Promise<void>>();
  let [peakConcurrency, numDone] = [0, 0];
  const processor = process.cpuUsage();
  const started = performance.now();
  for (const [i, request] of requests.entries()) {
    const wait = 1000 * arrivals[i]! - (performance.now() - started);
    if (wait > 0) await Bun.sleep(wait);
    while (running.size >= maxConcurrency) await Promise.race(running);
    const sent: Promise<void> = sendRequest(target, request, settings).then((record) => {
      records[i] = record;
      running.delete(sent);
      onProgress(++numDone);
    });
    running.add(sent);
    peakConcurrency = Math.max(peakConcurrency, running.size);
  }
  await Promise.all(running);
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(processor);
  return { records, seconds, peakConcurrency, clientSeconds: (user + system) / 1e6 };
}
