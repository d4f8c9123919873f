// One generation as its reader sees it: an async iterator that can be left or aborted at any moment, also while it waits.
import { RequestError } from "../errors.ts";
import type { TokenEvent } from "./types.ts";

/** Tokens, alternatives counted, that may wait for the reader: some hundred kilobytes. */
const MAX_UNREAD = 8192;

/** Ends with its last event, or with the error that fail() gave. */
export class TokenStream implements AsyncIterableIterator<TokenEvent> {
  readonly #cancel: () => void;
  readonly #events: TokenEvent[] = [];
  #unread = 0;
  #error: Error | null = null;
  #ended = false;
  #waiting: { resolve: (result: IteratorResult<TokenEvent>) => void; reject: (error: Error) => void } | null = null;

  /** @param cancel asks the engine to stop; called at most once, and only while the stream runs */
  constructor(cancel: () => void) {
    this.#cancel = cancel;
  }

  push(event: TokenEvent): void {
    if (this.#ended) return;
    if (event.finishReason !== null) this.#ended = true;
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting !== null) waiting.resolve({ done: false, value: event });
    else this.#keep(event);
  }

  /** A reader that stays behind loses its stream, not the server its memory. */
  #keep(event: TokenEvent): void {
    this.#events.push(event);
    this.#unread += sizeOf(event);
    if (this.#unread <= MAX_UNREAD) return;
    if (!this.#ended) this.#cancel();
    this.#ended = true;
    this.#events.length = 0;
    this.#error = new RequestError("reader_too_slow", "The answer was not read as fast as it came");
  }

  fail(error: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) return;
    this.#error = null;
    waiting.reject(error);
  }

  /** Asks the engine to stop; its "cancelled" event ends the stream. */
  abort(): void {
    if (!this.#ended) this.#cancel();
  }

  next(): Promise<IteratorResult<TokenEvent>> {
    const event = this.#events.shift();
    if (event !== undefined) {
      this.#unread -= sizeOf(event);
      return Promise.resolve({ done: false, value: event });
    }
    if (this.#error !== null) {
      const error = this.#error;
      this.#error = null;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    if (this.#waiting !== null) return Promise.reject(new Error("Cannot read a stream from two places at once"));
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  /** Leaves the stream: cancels, and ends a read that is under way. */
  return(): Promise<IteratorResult<TokenEvent>> {
    if (!this.#ended) {
      this.#ended = true;
      this.#cancel();
    }
    this.#events.length = 0;
    this.#error = null;
    this.#waiting?.resolve({ done: true, value: undefined });
    this.#waiting = null;
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

function sizeOf({ tokenIds, topLogprobs }: TokenEvent): number {
  return tokenIds.length * (1 + (topLogprobs?.[0]?.length ?? 0));
}
