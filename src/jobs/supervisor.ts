// The server's side of jobs: a bounded queue, one process per running job, restart after a crash, cancel.
// Does not know what the jobs do, only the command that does each.

import { readFileSync } from "node:fs";
import { CapacityError, RequestError } from "../errors.ts";
import type { Store } from "../store/database.ts";
import type { JobRecord } from "../store/jobs.ts";
import type { JsonObject } from "../store/json.ts";
import { type JobProcess, processIsAlive, signalProcess, startJobProcess } from "./process.ts";
import { lockJob, newJobId } from "./session.ts";

/** How the supervisor behaves; the defaults suit a small machine. */
export interface SupervisorOptions {
  /** Jobs that run at once (default 1: they use every core). */
  readonly maxRunning?: number;
  /** Jobs that may be queued or running (default 16). */
  readonly maxJobs?: number;
  /** Processes started for one job before it counts as failed (default 5). */
  readonly maxAttempts?: number;
  /** Time between the polite and the hard end of a process (default 10 s). */
  readonly graceMs?: number;
  /** How often adopted processes are looked at (default 1 s). */
  readonly pollMs?: number;
  /** The whole command line of a job. */
  readonly command: (job: JobRecord) => readonly string[];
  /** A job ended, was queued or started. */
  readonly onChange?: (job: JobRecord) => void;
}

/** Runs the jobs of one data folder; the folder's server lock must be held. */
export class JobSupervisor {
  readonly #store: Store;
  readonly #options: Required<Omit<SupervisorOptions, "onChange">> & Pick<SupervisorOptions, "onChange">;
  /** Jobs that run now: our own children, and processes that an earlier server left (no handle). */
  readonly #running = new Map<string, JobProcess | null>();
  readonly #killTimers = new Map<string, ReturnType<typeof setTimeout>>();
  #poll: ReturnType<typeof setInterval> | null = null;
  #stopping = false;

  constructor(store: Store, options: SupervisorOptions) {
    this.#store = store;
    this.#options = { maxRunning: 1, maxJobs: 16, maxAttempts: 5, graceMs: 10_000, pollMs: 1000, ...options };
  }

  /** Adopts what still runs, puts what died back into the queue, and starts the first job. */
  start(): void {
    for (const job of this.#store.jobs.inState("running", "server")) this.#adoptOrRecover(job);
    this.#poll = setInterval(() => this.#pollAdopted(), this.#options.pollMs);
    this.#pump();
  }

  /**
   * Queues a job.
   * @throws CapacityError when the queue is full
   */
  submit(kind: string, args: readonly string[], subject: JsonObject, id: string = newJobId(kind)): JobRecord {
    if (this.#stopping) throw new CapacityError("The server is stopping: it takes no new jobs");
    if (this.#store.jobs.countUnfinished() >= this.#options.maxJobs) {
      throw new CapacityError(`The job queue is full: ${this.#options.maxJobs} jobs wait or run, try again later`);
    }
    this.#store.transaction(() => this.#store.jobs.add({ id, kind, origin: "server", args, subject }));
    this.#changed(id);
    this.#pump();
    return this.#store.jobs.get(id)!;
  }

  /**
   * Ends a job: at once when it waits, politely and then hard when it runs. Ended jobs stay as they are.
   * @throws RequestError when there is no such job
   */
  cancel(id: string): JobRecord {
    const job = this.#store.jobs.get(id);
    if (job === null) throw new RequestError("unknown_job", `There is no job "${id}"`);
    if (job.state === "queued") {
      this.#store.transaction(() => {
        this.#store.events.append(id, "cancelled", {});
        this.#store.jobs.markFinished(id, "cancelled");
      });
      this.#changed(id);
    } else if (job.state === "running") {
      this.#store.jobs.requestStop(id, "cancel");
      this.#endProcess(id, job.pid);
    }
    return this.#store.jobs.get(id)!;
  }

  /**
   * Puts a failed or cancelled job of this server back into the queue; it goes on from what it saved.
   * @throws RequestError when there is no such job or it is not one of these
   */
  resume(id: string): JobRecord {
    const job = this.#store.jobs.get(id);
    if (job === null) throw new RequestError("unknown_job", `There is no job "${id}"`);
    if (job.state !== "failed" && job.state !== "cancelled") {
      throw new RequestError(
        "job_state",
        `Cannot resume job "${id}": it is ${job.state}, expected failed or cancelled`,
      );
    }
    this.#store.jobs.markQueued(id, true);
    this.#changed(id);
    this.#pump();
    return this.#store.jobs.get(id)!;
  }

  /** Pauses running jobs and waits until they are gone, at most the grace time; the next server goes on with them. */
  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.#poll !== null) clearInterval(this.#poll);
    const exits: Promise<unknown>[] = [];
    for (const [id, process] of this.#running) {
      this.#store.jobs.requestStop(id, "pause");
      this.#endProcess(id, this.#store.jobs.get(id)?.pid ?? null);
      if (process !== null) exits.push(process.exited);
    }
    await Promise.all(exits);
    for (const timer of this.#killTimers.values()) clearTimeout(timer);
  }

  #adoptOrRecover(job: JobRecord): void {
    const lock = lockJob(this.#store, job.id);
    if (lock === null) {
      this.#running.set(job.id, null);
      return;
    }
    lock.release();
    this.#recover(job, "its process was gone");
  }

  #pollAdopted(): void {
    for (const [id, process] of this.#running) {
      if (process !== null) continue;
      const lock = lockJob(this.#store, id);
      if (lock === null) continue;
      lock.release();
      this.#ended(id, "its process was gone");
    }
  }

  #pump(): void {
    if (this.#stopping) return;
    for (const job of this.#store.jobs.inState("queued", "server")) {
      if (this.#running.size >= this.#options.maxRunning) return;
      this.#startProcess(job);
    }
  }

  #startProcess(job: JobRecord): void {
    this.#store.jobs.markRunning(job.id);
    const process = startJobProcess(this.#options.command(job), this.#store.dir.job(job.id).log);
    this.#store.jobs.setPid(job.id, process.pid);
    this.#running.set(job.id, process);
    this.#changed(job.id);
    process.exited.then((how) => this.#ended(job.id, how));
  }

  #ended(id: string, how: string): void {
    this.#running.delete(id);
    clearTimeout(this.#killTimers.get(id));
    this.#killTimers.delete(id);
    const job = this.#store.jobs.get(id);
    // A worker that ends well says so in its row; a row that still says "running" lost its worker.
    if (job?.state === "running") this.#recover(job, how);
    this.#changed(id);
    this.#pump();
  }

  #recover(job: JobRecord, how: string): void {
    this.#store.transaction(() => {
      if (job.stopRequested === "cancel") {
        this.#store.events.append(job.id, "cancelled", {});
        this.#store.jobs.markFinished(job.id, "cancelled");
      } else if (job.stopRequested === "pause" || job.attempts < this.#options.maxAttempts) {
        this.#store.events.append(job.id, "interrupted", { reason: how, attempt: job.attempts });
        this.#store.jobs.markQueued(job.id, job.stopRequested === "pause");
      } else {
        const error = `Stopped after ${job.attempts} attempts: ${how}${lastLine(this.#store.dir.job(job.id).log)}`;
        this.#store.events.append(job.id, "failed", { message: error });
        this.#store.jobs.markFinished(job.id, "failed", { error });
      }
    });
  }

  #endProcess(id: string, pid: number | null): void {
    if (pid === null || !processIsAlive(pid)) return;
    signalProcess(pid, "SIGTERM");
    if (this.#killTimers.has(id)) return;
    this.#killTimers.set(
      id,
      setTimeout(() => {
        if (this.#running.has(id)) signalProcess(pid, "SIGKILL");
      }, this.#options.graceMs),
    );
  }

  #changed(id: string): void {
    const job = this.#store.jobs.get(id);
    if (job !== null) this.#options.onChange?.(job);
  }
}

/** `: last line of the log`, so that a crash names its reason. */
function lastLine(path: string): string {
  try {
    const line = readFileSync(path, "utf8").trimEnd().split("\n").at(-1);
    return line === undefined || line === "" ? "" : `: ${line.slice(0, 300)}`;
  } catch (error) {
    return ` (and its log cannot be read: ${error instanceof Error ? error.message : String(error)})`;
  }
}
