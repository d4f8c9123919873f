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
/** Characters that are formatted ahead of the reader. */
const READ_AHEAD = 64 * 1024;
const encoder = new TextEncoder();

/** The wire form of one event, ended by its blank line. */
export function formatEvent({ data, event, id }: SseEvent): string {
  const head = `${event === undefined ? "" : `event: ${event}\n`}${id === undefined ? "" : `id: ${id}\n`}`;
  return `${head}data: ${data.includes("\n") ? data.replaceAll("\n", "\ndata: ") : data}\n\n`;
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
  times: StreamTimes = { pingMs: PING_MS, stallMs: STALL_MS },
): Response {
  const release = recordOf(request).hold();
  const leave = new AbortController();
  const abort = () => leave.abort();
  if (request.signal.aborted) abort();
  request.signal.addEventListener("abort", abort, { once: true });
  const writer = new EventWriter(source(leave.signal), onError, times, () => {
    request.signal.removeEventListener("abort", abort);
    // The source wakes by its signal; after its own end this is for nobody.
    abort();
    release();
  });
  return new Response(new ReadableStream<Uint8Array>(writer, { highWaterMark: 0 }), {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache, no-transform",
      "x-accel-buffering": "no",
    },
  });
}

/**
 * Reads the source ahead of its reader, up to a limit, and hands over in one chunk what came in one turn of the event
 * loop: under load several events share one write.
 */
class EventWriter {
  readonly #iterator: AsyncIterator<SseEvent>;
  readonly #onError: (error: unknown) => readonly SseEvent[];
  readonly #times: StreamTimes;
  readonly #onOver: () => void;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  #timer: ReturnType<typeof setInterval> | undefined;
  /** What is formatted and not handed over. */
  #text = "";
  #sourceEnded = false;
  #over = false;
  /** Set while the reader waits for text, and while the pump waits for room. */
  #onText: (() => void) | null = null;
  #onRoom: (() => void) | null = null;
  #since = performance.now();

  constructor(
    source: AsyncIterable<SseEvent>,
    onError: (error: unknown) => readonly SseEvent[],
    times: StreamTimes,
    onOver: () => void,
  ) {
    this.#iterator = source[Symbol.asyncIterator]();
    this.#onError = onError;
    this.#times = times;
    this.#onOver = onOver;
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#controller = controller;
    const { pingMs, stallMs } = this.#times;
    this.#timer = setInterval(() => this.#look(), Math.min(pingMs, stallMs) / 2);
    void this.#pump();
  }

  async pull(): Promise<void> {
    this.#since = performance.now();
    if (this.#text === "" && !this.#sourceEnded) {
      await new Promise<void>((resolve) => {
        this.#onText = resolve;
      });
    }
    this.#flush();
  }

  async cancel(): Promise<void> {
    this.#finish();
    await this.#iterator.return?.();
  }

  async #pump(): Promise<void> {
    try {
      for (let next = await this.#iterator.next(); next.done !== true; next = await this.#iterator.next()) {
        if (this.#over) return;
        this.#add(formatEvent(next.value));
        if (this.#text.length > READ_AHEAD) {
          await new Promise<void>((resolve) => {
            this.#onRoom = resolve;
          });
        }
      }
    } catch (error) {
      if (this.#over) return;
      for (const event of this.#onError(error)) this.#add(formatEvent(event));
    }
    this.#sourceEnded = true;
    this.#wakeReader();
  }

  #add(text: string): void {
    this.#text += text;
    this.#wakeReader();
  }

  /** Once per turn of the event loop, after whatever else comes in it. */
  #wakeReader(): void {
    const wake = this.#onText;
    this.#onText = null;
    if (wake !== null) setImmediate(wake);
  }

  #flush(): void {
    if (this.#over) return;
    this.#since = performance.now();
    if (this.#text !== "") this.#controller.enqueue(encoder.encode(this.#text));
    this.#text = "";
    this.#onRoom?.();
    this.#onRoom = null;
    if (!this.#sourceEnded) return;
    this.#finish();
    this.#controller.close();
  }

  #look(): void {
    const quietMs = performance.now() - this.#since;
    if (this.#onText !== null && quietMs >= this.#times.pingMs) {
      this.#add(": ping\n\n");
    } else if (this.#onText === null && this.#text !== "" && quietMs >= this.#times.stallMs) {
      this.#finish();
      this.#controller.error(new Error("The reader has stalled"));
      void this.#iterator.return?.();
    }
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#timer);
    this.#onRoom?.();
    this.#onText?.();
    this.#onOver();
  }
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
