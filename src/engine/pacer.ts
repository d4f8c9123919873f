// Turns for work beside the steps: whoever loads or saves waits for a turn before each piece of work, and the engine's host
// grants turns between steps, a bounded time after each. Knows neither steps nor what is done in a turn.

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** A queue of pieces of work, first come first served. */
export class Pacer {
  readonly #waiting: Waiting[] = [];
  #closed: Error | null = null;
  /** Called when something waits for a turn, or is ready for the next step: the host must not sleep on. */
  wake: () => void = () => {};

  /** Whether somebody waits for a turn. */
  get pending(): boolean {
    return this.#waiting.length > 0;
  }

  /** Resolves when the caller may hold up the thread for a moment. @throws Error after close() */
  turn(): Promise<void> {
    if (this.#closed !== null) return Promise.reject(this.#closed);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.wake();
    });
  }

  /** Grants turns for about that long, at least one where somebody waits. */
  async grant(milliseconds: number): Promise<void> {
    const end = performance.now() + milliseconds;
    do {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      next.resolve();
      // What was granted runs before this returns, and what it reads from files can arrive.
      await new Promise((resolve) => setImmediate(resolve));
    } while (performance.now() < end);
  }

  /** Ends everything that waits. */
  close(reason: Error): void {
    this.#closed = reason;
    for (const { reject } of this.#waiting.splice(0)) reject(reason);
  }
}
