// The worker's side of a job: take its lock, report, and record how it ended.
// Does not know what the work is; the server's side is supervisor.ts.

import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { RequestError } from "../errors.ts";
import type { Store } from "../store/database.ts";
import type { JsonObject } from "../store/json.ts";
import { type Lock, tryLock } from "../store/lock.ts";
import { JobCancelled, type JobReporter } from "./reporter.ts";
import { StoreReporter } from "./store_reporter.ts";

/** A new job id, e.g. "search-9f3a1c04be". */
export function newJobId(kind: string): string {
  return `${kind}-${randomBytes(5).toString("hex")}`;
}

/** A job that this process runs. */
export class JobSession {
  readonly id: string;
  readonly reporter: JobReporter;
  /** A folder of the job's own for working files; it stays for resuming. */
  readonly folder: string;
  readonly #store: Store;
  readonly #lock: Lock;

  private constructor(store: Store, id: string, lock: Lock) {
    this.id = id;
    this.folder = store.dir.job(id).folder;
    this.reporter = new StoreReporter(store, id);
    this.#store = store;
    this.#lock = lock;
  }

  /**
   * Takes on a job that a server queued.
   * @throws RequestError when there is no such job, it has ended, or another process has it
   */
  static attach(store: Store, id: string): JobSession {
    const job = store.jobs.get(id);
    if (job === null) throw new RequestError("unknown_job", `Cannot run job "${id}": it is not in ${store.dir.root}`);
    const lock = lockJob(store, id);
    if (lock === null) throw new RequestError("job_running", `Cannot run job "${id}": another process is running it`);
    if (job.state !== "running" && job.state !== "queued") {
      lock.release();
      throw new RequestError("job_ended", `Cannot run job "${id}": it is ${job.state}`);
    }
    if (job.state === "queued") store.jobs.markRunning(id);
    store.jobs.setPid(id, process.pid);
    return new JobSession(store, id, lock);
  }

  /**
   * Makes a job for work typed on a terminal, or goes on with the unfinished one of the same kind and arguments.
   * @throws RequestError when the same work is running in another process
   */
  static begin(store: Store, kind: string, args: readonly string[], subject: JsonObject): JobSession {
    const earlier = store.jobs.findUnfinished(kind, args);
    const id = earlier?.id ?? newJobId(kind);
    const lock = lockJob(store, id);
    if (lock === null) {
      throw new RequestError("job_running", `Cannot start: the same ${kind} is already running as job "${id}"`);
    }
    store.transaction(() => {
      if (earlier === null) store.jobs.add({ id, kind, origin: "terminal", args, subject });
      store.jobs.markRunning(id);
      store.jobs.setPid(id, process.pid);
    });
    return new JobSession(store, id, lock);
  }

  /** The work is done. */
  finish(result: JsonObject): void {
    this.#end(() => {
      this.#store.events.append(this.id, "done", result);
      this.#store.jobs.markFinished(this.id, "done", { result });
    });
  }

  /** The work threw: cancelled, paused (back to the queue) or failed. */
  fail(error: unknown): void {
    this.#end(() => {
      // Libraries have their own way of saying that they stopped; a request to stop explains whatever they throw.
      const stop = this.#store.jobs.stopRequested(this.id);
      if (!(error instanceof JobCancelled) && stop === null) {
        const message = error instanceof Error ? error.message : String(error);
        this.#store.events.append(this.id, "failed", { message });
        this.#store.jobs.markFinished(this.id, "failed", { error: message });
      } else if (stop === "pause") {
        this.#store.events.append(this.id, "paused", {});
        this.#store.jobs.markQueued(this.id, true);
      } else {
        this.#store.events.append(this.id, "cancelled", {});
        this.#store.jobs.markFinished(this.id, "cancelled");
      }
    });
  }

  #end(record: () => void): void {
    try {
      this.#store.transaction(record);
    } finally {
      this.#lock.release();
    }
  }
}

/** The lock of a job, or null when a process holds it; holding it is what "running" means. */
export function lockJob(store: Store, id: string): Lock | null {
  const { folder, lock } = store.dir.job(id);
  mkdirSync(folder, { recursive: true });
  return tryLock(lock);
}

/** Whether a process holds the job, whatever its row says. */
export function isHeld(store: Store, id: string): boolean {
  const lock = lockJob(store, id);
  lock?.release();
  return lock === null;
}
