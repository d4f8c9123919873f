// Server-sent events over a pull-based stream: the reader's pace is the writer's, silence is filled with pings, and a
// reader that leaves or stalls aborts the source. Knows no payload.

import { recordOf } from "./request_record.ts";

/** One event; without `data` it is a comment. */
export interface SseEvent {
  readonly data: string;
  readonly event?: string;
  readonly id?: string | number;
}

const PING_MS = 15_000;
const STALL_MS = 60_000;
const encoder = new TextEncoder();

/** The wire form of one event, ended by its blank line. */
export function formatEvent({ data, event, id }: SseEvent): string {
  const lines: string[] = [];
  if (event !== undefined) lines.push(`event: ${event}`);
  if (id !== undefined) lines.push(`id: ${id}`);
  for (const line of data.split("\n")) lines.push(`data: ${line}`);
  return `${lines.join("\n")}\n\n`;
}

/** When a stream speaks or ends by itself. */
export interface StreamTimes {
  /** A comment is sent when nothing else was for so long. */
  readonly pingMs: number;
  /** A reader that takes nothing for so long is cut off. */
  readonly stallMs: number;
}

/**
 * Streams what `source` yields. `source` gets a signal that aborts when the reader leaves or stalls, or when the request
 * is aborted; it must end soon after. An error it throws becomes events by `onError`, then the stream ends. The
 * request's record is held until the stream is over.
 */
export function sseResponse(
  request: Request,
  source: (signal: AbortSignal) => AsyncIterable<SseEvent>,
  onError: (error: unknown) => readonly SseEvent[],
  { pingMs, stallMs }: StreamTimes = { pingMs: PING_MS, stallMs: STALL_MS },
): Response {
  const release = recordOf(request).hold();
  const leave = new AbortController();
  const abort = () => leave.abort();
  if (request.signal.aborted) abort();
  request.signal.addEventListener("abort", abort, { once: true });
  const iterator = source(leave.signal)[Symbol.asyncIterator]();
  let timer: ReturnType<typeof setInterval> | undefined;
  /** Whether the reader waits for the source, and since when this is so or not. */
  let hungry = false;
  let since = performance.now();

  const end = () => {
    clearInterval(timer);
    request.signal.removeEventListener("abort", abort);
    release();
  };
  const look = (controller: ReadableStreamDefaultController<Uint8Array>) => {
    const quietMs = performance.now() - since;
    if (hungry && quietMs >= pingMs) {
      since = performance.now();
      controller.enqueue(encoder.encode(": ping\n\n"));
    } else if (!hungry && quietMs >= stallMs) {
      end();
      abort();
      controller.error(new Error("The reader has stalled"));
      void iterator.return?.();
    }
  };
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      timer = setInterval(() => look(controller), Math.min(pingMs, stallMs) / 2);
    },
    async pull(controller) {
      hungry = true;
      since = performance.now();
      try {
        const next = await iterator.next();
        if (leave.signal.aborted) return;
        if (next.done !== true) controller.enqueue(encoder.encode(formatEvent(next.value)));
        else {
          end();
          controller.close();
        }
      } catch (error) {
        if (leave.signal.aborted) return;
        for (const event of onError(error)) controller.enqueue(encoder.encode(formatEvent(event)));
        end();
        controller.close();
      } finally {
        hungry = false;
        since = performance.now();
      }
    },
    async cancel() {
      abort();
      // The source wakes by its signal; what it still says is for nobody.
      await iterator.return?.();
      end();
    },
  });
  return new Response(stream, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
    },
  });
}

/** The value of `promise`, or "timeout" when it takes longer than `ms`; the promise goes on. */
export async function withTimeout<T>(promise: Promise<T>, ms: number): Promise<T | "timeout"> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<"timeout">((resolve) => {
    timer = setTimeout(() => resolve("timeout"), ms);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
