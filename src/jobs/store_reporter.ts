// Reports a job's progress and events to its row, seldom enough that reporting costs nothing.
// Does not decide how a job ends; session.ts does.

import type { Store } from "../store/database.ts";
import type { JobReporter, ReportData } from "./reporter.ts";

const WRITE_INTERVAL_MS = 250;

/** The reporter of work that runs as a job. */
export class StoreReporter implements JobReporter {
  readonly #store: Store;
  readonly #job: string;
  readonly #now: () => number;
  #lastWrite = Number.NEGATIVE_INFINITY;
  #lastLook = Number.NEGATIVE_INFINITY;
  #stop = false;

  /** `now` is a monotonic clock in milliseconds. */
  constructor(store: Store, job: string, now: () => number = () => performance.now()) {
    this.#store = store;
    this.#job = job;
    this.#now = now;
  }

  progress(done: number, total: number, unit: string, data: ReportData = {}): void {
    const now = this.#now();
    if (now - this.#lastWrite < WRITE_INTERVAL_MS && done < total) return;
    this.#lastWrite = now;
    this.#store.transaction(() =>
      this.#store.jobs.setProgress(this.#job, { done, total, unit, data, time: Date.now() }),
    );
  }

  event(kind: string, data: ReportData = {}): void {
    this.#store.transaction(() => this.#store.events.append(this.#job, kind, data));
  }

  /** The row is asked, not a signal: a loop of kernel calls never lets a signal handler run. */
  cancelled(): boolean {
    const now = this.#now();
    if (!this.#stop && now - this.#lastLook >= WRITE_INTERVAL_MS) {
      this.#lastLook = now;
      this.#stop = this.#store.jobs.stopRequested(this.#job) !== null;
    }
    return this.#stop;
  }
}
