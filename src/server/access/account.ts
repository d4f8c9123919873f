// What one key has used: requests and tokens per minute, requests at once. Knows no key's digest and no route.

import { HttpError } from "../errors.ts";
import { Bucket } from "./bucket.ts";
import type { KeyLimits } from "./key_file.ts";

/** Kept while the server runs, also when the key's limits change. */
export class Account {
  readonly name: string;
  #limits: KeyLimits;
  #requests: Bucket | null;
  #tokens: Bucket | null;
  #running = 0;

  constructor(name: string, limits: KeyLimits, now: number) {
    this.name = name;
    this.#limits = limits;
    this.#requests = bucketOf(limits.requestsPerMinute, now);
    this.#tokens = bucketOf(limits.tokensPerMinute, now);
  }

  /** New limits; what was used under an unchanged one still counts. */
  setLimits(limits: KeyLimits, now: number): void {
    if (limits.requestsPerMinute !== this.#limits.requestsPerMinute) {
      this.#requests = bucketOf(limits.requestsPerMinute, now);
    }
    if (limits.tokensPerMinute !== this.#limits.tokensPerMinute) this.#tokens = bucketOf(limits.tokensPerMinute, now);
    this.#limits = limits;
  }

  /**
   * A request begins. Tokens are charged when they are known, so this only asks that the account is not overdrawn.
   * @returns ends the request; to be called once, with the tokens it used
   * @throws HttpError 429 naming the limit, with the time to wait
   */
  begin(now: number): (tokens: number, now: number) => void {
    const { requestsPerMinute, tokensPerMinute, concurrent } = this.#limits;
    if (concurrent !== null && this.#running >= concurrent) {
      throw refusal(`${concurrent} requests of this key run already`, "concurrent requests", 1);
    }
    const requestWait = this.#requests?.secondsUntil(1, now) ?? 0;
    if (requestWait > 0) {
      throw refusal(`This key may send ${requestsPerMinute} requests per minute`, "requests", requestWait);
    }
    const tokenWait = this.#tokens?.secondsUntil(1, now) ?? 0;
    if (tokenWait > 0) throw refusal(`This key may use ${tokensPerMinute} tokens per minute`, "tokens", tokenWait);
    this.#requests?.take(1, now);
    this.#running++;
    return (tokens, then) => {
      this.#running--;
      this.#tokens?.take(tokens, then);
    };
  }

  /** The state of the limits as OpenAI's headers tell it. */
  headers(now: number): [string, string][] {
    return [...bucketHeaders("requests", this.#requests, now), ...bucketHeaders("tokens", this.#tokens, now)];
  }
}

function bucketOf(perMinute: number | null, now: number): Bucket | null {
  return perMinute === null ? null : new Bucket(perMinute, now);
}

function bucketHeaders(noun: string, bucket: Bucket | null, now: number): [string, string][] {
  if (bucket === null) return [];
  return [
    [`x-ratelimit-limit-${noun}`, String(bucket.perMinute)],
    [`x-ratelimit-remaining-${noun}`, String(Math.max(0, Math.floor(bucket.level(now))))],
    [`x-ratelimit-reset-${noun}`, durationText(bucket.secondsUntil(bucket.perMinute, now))],
  ];
}

/** `6m0s`, `12s`, `250ms`, as OpenAI writes durations. */
function durationText(seconds: number): string {
  if (seconds < 1) return `${Math.ceil(seconds * 1000)}ms`;
  const whole = Math.ceil(seconds);
  return whole < 60 ? `${whole}s` : `${Math.floor(whole / 60)}m${whole % 60}s`;
}

function refusal(why: string, param: string, wait: number): HttpError {
  const seconds = Math.max(1, Math.ceil(wait));
  return new HttpError(429, "rate_limit_exceeded", `${why}; try again in ${seconds} s`, param, seconds);
}
