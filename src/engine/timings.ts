// Where the time of one request went. Times come from outside, so that tests can set the clock.
import type { Timings } from "./types.ts";

/** Milliseconds on some monotonic clock; injected where time decides something. */
export type Clock = () => number;

/** The moments of one sequence, in milliseconds. */
export class Stopwatch {
  #accepted = 0;
  #begun: number | null = null;
  #firstToken: number | null = null;

  accept(now: number): void {
    this.#accepted = now;
  }

  /** It takes part in a step; only the first counts. */
  begin(now: number): void {
    this.#begun ??= now;
  }

  /** A token of it is there; only the first counts. */
  token(now: number): void {
    this.#firstToken ??= now;
  }

  /** The three parts add up to the time since it was accepted. */
  timings(now: number): Timings {
    const begun = this.#begun ?? now;
    const first = this.#firstToken ?? now;
    return {
      queueSeconds: (begun - this.#accepted) / 1000,
      prefillSeconds: (first - begun) / 1000,
      decodeSeconds: (now - first) / 1000,
    };
  }
}
