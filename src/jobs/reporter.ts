// The words of long work in a job: who is told, and how work says that it stopped.
// The terminal form is in cli/progress.ts, the form that writes to a job's row in jobs/store_reporter.ts.
import type { Progress } from "../train/progress.ts";

export type { ReportData } from "../train/progress.ts";

/** Handed to convert and search: they call it often, it decides what is worth showing or storing. */
export type JobReporter = Progress;

/** Thrown by work that found `cancelled()` true, after it saved what can be resumed. */
export class JobCancelled extends Error {
  override name = "JobCancelled";
  constructor() {
    super("Cancelled");
  }
}
