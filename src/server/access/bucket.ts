// A token bucket: an allowance per minute that refills steadily. Knows no key and no clock of its own.

/** Full at the start; may be overdrawn, and then fills up from below zero. */
export class Bucket {
  readonly perMinute: number;
  #level: number;
  #at: number;

  /** @param now milliseconds of any clock that never goes back; the same one in every call */
  constructor(perMinute: number, now: number) {
    this.perMinute = perMinute;
    this.#level = perMinute;
    this.#at = now;
  }

  /** What may be taken now. */
  level(now: number): number {
    const grown = this.#level + ((now - this.#at) * this.perMinute) / 60_000;
    return Math.min(this.perMinute, grown);
  }

  take(amount: number, now: number): void {
    this.#level = this.level(now) - amount;
    this.#at = now;
  }

  /** Seconds until `amount` can be taken, to the microsecond; 0 when it can already. */
  secondsUntil(amount: number, now: number): number {
    const seconds = ((Math.min(amount, this.perMinute) - this.level(now)) * 60) / this.perMinute;
    return Math.max(0, Math.round(seconds * 1e6) / 1e6);
  }
}
