// Whether the server takes work, and what is still under way. Knows neither sockets nor signals.

import { HttpError } from "./errors.ts";

/** Counts generations under way, so that a stop can wait for them. */
export class Lifecycle {
  readonly startedAt = Date.now();
  #draining = false;
  #active = 0;
  #idle: (() => void)[] = [];

  get draining(): boolean {
    return this.#draining;
  }

  get active(): number {
    return this.#active;
  }

  /**
   * A generation begins; call the result once when it is over.
   * @throws HttpError 503 while draining
   */
  begin(): () => void {
    if (this.#draining) throw new HttpError(503, "shutting_down", "The server is stopping and takes no new requests");
    this.#active++;
    let over = false;
    return () => {
      if (over) return;
      over = true;
      this.#active--;
      if (this.#active === 0) for (const wake of this.#idle.splice(0)) wake();
    };
  }

  /** From now on nothing new is taken; resolves when nothing is under way. */
  drain(): Promise<void> {
    this.#draining = true;
    if (this.#active === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }
}
