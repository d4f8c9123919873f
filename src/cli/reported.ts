// Runs long work as a job with its progress on the terminal and in the store at once.
// Does not know what the work is.

import { JobCancelled, type JobReporter, type ReportData } from "../jobs/reporter.ts";
import { JobSession } from "../jobs/session.ts";
import { Store } from "../store/database.ts";
import { TerminalReporter } from "./progress.ts";

/** Which job the work belongs to. */
export interface ReportedWork {
  /** The command's name: "convert", "search". */
  readonly kind: string;
  /** Value of --job: the work was started by a server and reports to that row; otherwise a job is made. */
  readonly job: string | undefined;
  /** Value of --data-dir. */
  readonly dataDir: string | undefined;
  /** No bar on the terminal. */
  readonly quiet?: boolean;
  /** What makes two runs the same work, paths absolute: an unfinished job with equal args is gone on with. */
  readonly args: readonly string[];
  /** For lists: { backbone, variant, task }. */
  readonly subject: ReportData;
}

/** What the work gets. */
export interface WorkContext {
  readonly store: Store;
  /** The job's id; equal when the work is resumed. */
  readonly jobId: string;
  /** The job's own folder, kept until the job is forgotten. */
  readonly folder: string;
  readonly reporter: JobReporter;
}

/**
 * Runs `work` as a job and records its end. Its result, which must survive JSON, is stored with the job and returned.
 * @throws whatever the work throws, after recording it; JobCancelled when it was told to stop
 */
export async function runReported<R extends ReportData>(
  options: ReportedWork,
  work: (context: WorkContext) => Promise<R>,
): Promise<R> {
  const store = Store.open(options.dataDir);
  try {
    const session =
      options.job === undefined
        ? JobSession.begin(store, options.kind, options.args, options.subject)
        : JobSession.attach(store, options.job);
    // With a handler in place the request to stop is answered at the next safe point instead of at once.
    const ignore = () => {};
    if (options.job !== undefined) process.on("SIGTERM", ignore);
    const terminal = options.quiet === true ? null : new TerminalReporter();
    try {
      const reporter = terminal === null ? session.reporter : both(terminal, session.reporter);
      const result = await work({ store, jobId: session.id, folder: session.folder, reporter });
      session.finish(result);
      return result;
    } catch (error) {
      session.fail(error);
      throw error;
    } finally {
      terminal?.close();
      process.off("SIGTERM", ignore);
    }
  } finally {
    store.close();
  }
}

function both(first: JobReporter, second: JobReporter): JobReporter {
  return {
    progress(done, total, unit, data) {
      first.progress(done, total, unit, data);
      second.progress(done, total, unit, data);
    },
    event(kind, data) {
      first.event(kind, data);
      second.event(kind, data);
    },
    cancelled: () => first.cancelled() || second.cancelled(),
  };
}

export { JobCancelled };
