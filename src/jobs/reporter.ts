// How a long piece of work tells the world where it is. Knows neither terminals nor what the work does;
// the terminal form is in cli/progress.ts, the form that writes to a job's row in jobs/store_reporter.ts.

/** Values that travel with progress and events; must survive JSON. */
export type ReportData = Readonly<Record<string, unknown>>;

/** Handed to convert, search, finetune: they call it often, it decides what is worth showing or storing. */
export interface JobReporter {
  /**
   * `done` of `total` units are finished (`unit` in the plural: "tokens", "documents").
   * `data` is shown beside the bar and stored as the job's latest figures, e.g. { round: 2, loss: 0.01 }.
   */
  progress(done: number, total: number, unit: string, data?: ReportData): void;
  /** Something worth keeping happened, e.g. event("round", { layer: 3, score: 0.71 }). */
  event(kind: string, data?: ReportData): void;
  /** Whether the work should stop at the next safe point; then throw JobCancelled. Cheap enough for every step. */
  cancelled(): boolean;
}

/** Thrown by work that found `cancelled()` true, after it saved what can be resumed. */
export class JobCancelled extends Error {
  override name = "JobCancelled";
  constructor() {
    super("Cancelled");
  }
}

/** Reports to nobody; for library calls and tests. */
export const silentReporter: JobReporter = { progress() {}, event() {}, cancelled: () => false };
