// How a training or search loop tells its caller where it is. A job reporter is one; knows nothing of jobs.

/** Called often; the receiver decides what is worth showing or storing. */
export interface Progress {
  /** `done` of `total` units are finished; `data` are the latest figures, JSON values. */
  progress(done: number, total: number, unit: string, data?: Readonly<Record<string, unknown>>): void;
  event(kind: string, data?: Readonly<Record<string, unknown>>): void;
  /** Whether to stop at the next safe point. */
  cancelled(): boolean;
}

/** Reports to nobody. */
export const noProgress: Progress = { progress() {}, event() {}, cancelled: () => false };
