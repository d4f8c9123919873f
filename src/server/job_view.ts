// A job as the routes show it, and its events as a stream that can be taken up where it broke off.

import type { JobRecord } from "../store/jobs.ts";
import type { ServerContext } from "./context.ts";
import { HttpError } from "./errors.ts";
import type { SseEvent } from "./sse.ts";
import { sseResponse } from "./sse.ts";

/** How long a follower sleeps when nothing tells it of a change. */
const LOOK_AGAIN_MS = 2000;
const ENDED: ReadonlySet<string> = new Set(["done", "failed", "cancelled"]);

/**
 * A job of this kind.
 * @throws HttpError 404
 */
export function existingJob(context: ServerContext, kind: string, id: string): JobRecord {
  const job = context.store.jobs.get(id);
  if (job !== null && job.kind === kind) return job;
  throw new HttpError(404, "unknown_job", `There is no ${kind} "${id.slice(0, 200)}"`);
}

/** The part that every kind of job shows. */
export function jobView(job: JobRecord) {
  const seconds = (time: number | null) => (time === null ? null : Math.floor(time / 1000));
  return {
    id: job.id,
    status: job.state,
    stopping: job.stopRequested !== null && !ENDED.has(job.state),
    progress: job.progress,
    result: job.result,
    error: job.error,
    attempts: job.attempts,
    created_at: seconds(job.createdAt),
    started_at: seconds(job.startedAt),
    finished_at: seconds(job.finishedAt),
    ...job.subject,
  };
}

/**
 * Streams a job's events from the one after `Last-Event-ID` (or `?after=`), its progress between them (without ids),
 * and an `end` event when it is over.
 */
export function jobEventsResponse(context: ServerContext, job: JobRecord, request: Request): Response {
  const given = request.headers.get("last-event-id") ?? new URL(request.url).searchParams.get("after") ?? "0";
  if (!/^\d{1,15}$/.test(given)) {
    throw new HttpError(
      400,
      "invalid_value",
      `Invalid "Last-Event-ID": expected a number, got "${given.slice(0, 40)}"`,
    );
  }
  const onError = () => [{ event: "error", data: JSON.stringify({ message: "The stream broke; take it up again" }) }];
  return sseResponse(request, (signal) => followJob(context, job.id, Number(given), signal), onError);
}

async function* followJob(
  context: ServerContext,
  id: string,
  after: number,
  signal: AbortSignal,
): AsyncGenerator<SseEvent> {
  let seq = after;
  let progressTime = 0;
  while (!signal.aborted) {
    const job = context.store.jobs.get(id);
    const events = context.store.events.after(id, seq);
    for (const event of events) {
      seq = event.seq;
      yield { event: event.kind, id: event.seq, data: JSON.stringify({ time: event.time, ...event.data }) };
    }
    if (job?.progress != null && job.progress.time > progressTime) {
      progressTime = job.progress.time;
      yield { event: "progress", data: JSON.stringify(job.progress) };
    }
    // The job was read before its events, so an ended job has no event that is not out yet.
    if (job === null || (ENDED.has(job.state) && events.length === 0)) {
      yield { event: "end", data: JSON.stringify(job === null ? { status: "deleted" } : jobView(job)) };
      return;
    }
    if (events.length === 0) await context.changes.wait(LOOK_AGAIN_MS, signal);
  }
}
