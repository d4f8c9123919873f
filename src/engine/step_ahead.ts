// Keeps the device from waiting for the host: begins the next step before the tokens of this one are known, where it is
// certain what that step is. Knows neither tokens nor what becomes of them.
import type { Backend, Batch, ChunkOutput } from "./batch.ts";
import type { Counters } from "./counters.ts";
import type { Scheduler } from "./scheduler.ts";

/**
 * Runs an engine's batches, at most one step ahead of the tokens that are known. A sequence that turns out to have ended has
 * a row too many in the batch behind: what comes of it is nobody's, and the places that it held are free at once, because
 * whatever uses them next is done after it.
 */
export class StepAhead {
  readonly #backend: Backend;
  readonly #scheduler: Scheduler;
  readonly #counters: Counters;
  readonly #enabled: boolean;
  #next: Batch | null = null;

  constructor(backend: Backend, scheduler: Scheduler, counters: Counters, enabled: boolean) {
    this.#backend = backend;
    this.#scheduler = scheduler;
    this.#counters = counters;
    this.#enabled = enabled;
  }

  /** The batch that has been begun already: this step's. */
  get begun(): Batch | null {
    return this.#next;
  }

  /** The outputs of a batch, begun() or another. @throws KernelError */
  run(batch: Batch): ChunkOutput[] {
    if (batch === this.#next) this.#next = null;
    else this.#backend.start(batch);
    this.#scheduler.advance(batch);
    if (this.#enabled) this.#begin(batch);
    return this.#backend.finish();
  }

  /** A batch has failed: what was begun behind it is worth nothing. */
  drop(): void {
    this.#next = null;
    this.#backend.drop();
  }

  #begin(batch: Batch): void {
    const next = this.#scheduler.foresee(batch);
    if (next === null || !this.#backend.follow(next)) return;
    this.#scheduler.begun(next);
    this.#next = next;
    this.#counters.stepsAhead++;
  }
}
