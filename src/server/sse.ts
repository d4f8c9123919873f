// Server-sent events over a pull-based stream: the reader's pace is the writer's, silence is filled with pings, and a
// reader that leaves aborts the source. Knows no payload.

/** One event; without `data` it is a comment. */
export interface SseEvent {
  readonly data: string;
  readonly event?: string;
  readonly id?: string | number;
}

const PING_INTERVAL_MS = 15_000;
const encoder = new TextEncoder();

/** The wire form of one event, ended by its blank line. */
export function formatEvent({ data, event, id }: SseEvent): string {
  const lines: string[] = [];
  if (event !== undefined) lines.push(`event: ${event}`);
  if (id !== undefined) lines.push(`id: ${id}`);
  for (const line of data.split("\n")) lines.push(`data: ${line}`);
  return `${lines.join("\n")}\n\n`;
}

/**
 * Streams what `source` yields. `source` gets a signal that aborts when the reader leaves (or `request` is aborted);
 * it must end soon after. An error it throws becomes events by `onError`, then the stream ends.
 */
export function sseResponse(
  request: AbortSignal,
  source: (signal: AbortSignal) => AsyncIterable<SseEvent>,
  onError: (error: unknown) => readonly SseEvent[],
  pingMs: number = PING_INTERVAL_MS,
): Response {
  const leave = new AbortController();
  const abort = () => leave.abort();
  if (request.aborted) abort();
  request.addEventListener("abort", abort, { once: true });
  const iterator = source(leave.signal)[Symbol.asyncIterator]();
  let pending: Promise<IteratorResult<SseEvent>> | null = null;

  const finish = (controller: ReadableStreamDefaultController<Uint8Array>) => {
    request.removeEventListener("abort", abort);
    controller.close();
  };
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      pending ??= iterator.next();
      try {
        const next = await withTimeout(pending, pingMs);
        if (leave.signal.aborted) return;
        if (next === "timeout") {
          controller.enqueue(encoder.encode(": ping\n\n"));
          return;
        }
        pending = null;
        if (next.done === true) finish(controller);
        else controller.enqueue(encoder.encode(formatEvent(next.value)));
      } catch (error) {
        if (leave.signal.aborted) return;
        for (const event of onError(error)) controller.enqueue(encoder.encode(formatEvent(event)));
        finish(controller);
      }
    },
    async cancel() {
      request.removeEventListener("abort", abort);
      abort();
      // The source wakes by its signal; what it still says is for nobody.
      await iterator.return?.();
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
