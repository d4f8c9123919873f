// Table jobs: what is queued, running and finished. The processes behind the rows are src/jobs' affair.

import type { Database } from "bun:sqlite";
import { fromJson, fromJsonOrNull, type JsonObject, toJson } from "./json.ts";

/** cancel ends a job; pause puts it back into the queue. */
export type StopKind = "cancel" | "pause";

/** done, failed and cancelled are ends. */
export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

/** How far a job is, as its worker last said. */
export interface JobProgress {
  readonly done: number;
  readonly total: number;
  readonly unit: string;
  readonly data: JsonObject;
  readonly time: number;
}

/** A job's row. */
export interface JobRecord {
  readonly id: string;
  /** "convert", "search", ... = the command that does it. */
  readonly kind: string;
  /** Only a server's jobs are started and resumed by a server; a terminal's belong to whoever typed them. */
  readonly origin: "server" | "terminal";
  /** Arguments of the command, without --job and --data-dir. */
  readonly args: readonly string[];
  /** What it is about, for people: { backbone, variant, task }. */
  readonly subject: JsonObject;
  readonly state: JobState;
  /** How often a process was started for it. */
  readonly attempts: number;
  readonly pid: number | null;
  /** "cancel" ends the job for good, "pause" (the server is stopping) puts it back in the queue. */
  readonly stopRequested: StopKind | null;
  readonly progress: JobProgress | null;
  readonly result: JsonObject | null;
  readonly error: string | null;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly finishedAt: number | null;
}

/** What a caller states of a new job. */
export interface NewJob {
  readonly id: string;
  readonly kind: string;
  readonly origin: "server" | "terminal";
  readonly args: readonly string[];
  readonly subject: JsonObject;
}

interface Row {
  id: string;
  kind: string;
  origin: "server" | "terminal";
  args_json: string;
  subject_json: string;
  state: JobState;
  attempts: number;
  pid: number | null;
  stop_requested: StopKind | null;
  progress_json: string | null;
  result_json: string | null;
  error: string | null;
  created_at: number;
  started_at: number | null;
  finished_at: number | null;
}

/** The table. */
export class Jobs {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get(id: string): JobRecord | null {
    const row = this.#database.query<Row, [string]>("SELECT * FROM jobs WHERE id = ?").get(id);
    return row === null ? null : record(row);
  }

  /** Newest first, of one kind or all. */
  list(kind?: string, limit = 1000): JobRecord[] {
    const sql = "SELECT * FROM jobs WHERE ?1 IS NULL OR kind = ?1 ORDER BY created_at DESC, rowid DESC LIMIT ?2";
    return this.#database
      .query<Row, [string | null, number]>(sql)
      .all(kind ?? null, limit)
      .map(record);
  }

  /** Of one state and origin, oldest first. */
  inState(state: JobState, origin: "server" | "terminal"): JobRecord[] {
    const sql = "SELECT * FROM jobs WHERE state = ? AND origin = ? ORDER BY created_at, rowid";
    return this.#database.query<Row, [string, string]>(sql).all(state, origin).map(record);
  }

  /** The newest unfinished terminal job of the same kind and arguments: what a repeated command resumes. */
  findUnfinished(kind: string, args: readonly string[]): JobRecord | null {
    const sql = `SELECT * FROM jobs WHERE kind = ? AND args_json = ? AND origin = 'terminal' AND state <> 'done'
                 ORDER BY created_at DESC, rowid DESC LIMIT 1`;
    const row = this.#database.query<Row, [string, string]>(sql).get(kind, toJson(args));
    return row === null ? null : record(row);
  }

  /** Adds a job as queued. */
  add(job: NewJob, now: number = Date.now()): void {
    this.#database
      .query(
        `INSERT INTO jobs (id, kind, origin, args_json, subject_json, state, created_at)
         VALUES (?, ?, ?, ?, ?, 'queued', ?)`,
      )
      .run(job.id, job.kind, job.origin, toJson(job.args), toJson(job.subject), now);
  }

  /** A process is being started for the job; its id follows by setPid. */
  markRunning(id: string, now: number = Date.now()): void {
    this.#database
      .query(
        `UPDATE jobs SET state = 'running', pid = NULL, attempts = attempts + 1, error = NULL, finished_at = NULL,
           stop_requested = NULL, started_at = coalesce(started_at, ?) WHERE id = ?`,
      )
      .run(now, id);
  }

  /** The process that does the job. */
  setPid(id: string, pid: number): void {
    this.#database.query("UPDATE jobs SET pid = ? WHERE id = ? AND state = 'running'").run(pid, id);
  }

  /** Back to the queue, to be resumed; `forgetAttempts` gives it its full number of attempts again. */
  markQueued(id: string, forgetAttempts: boolean): void {
    this.#database
      .query(
        `UPDATE jobs SET state = 'queued', pid = NULL, stop_requested = NULL, error = NULL, finished_at = NULL,
           attempts = CASE WHEN ? THEN 0 ELSE attempts END WHERE id = ?`,
      )
      .run(forgetAttempts, id);
  }

  /** The job ended; a job that already ended keeps its first ending. */
  markFinished(
    id: string,
    state: "done" | "failed" | "cancelled",
    outcome: { readonly result?: JsonObject; readonly error?: string } = {},
    now: number = Date.now(),
  ): boolean {
    const sql = `UPDATE jobs SET state = ?, pid = NULL, result_json = ?, error = ?, finished_at = ?
                 WHERE id = ? AND state IN ('queued', 'running')`;
    const result = outcome.result === undefined ? null : toJson(outcome.result);
    return this.#database.query(sql).run(state, result, outcome.error ?? null, now, id).changes > 0;
  }

  /** Asks the process of an unfinished job to stop; a pause never weakens a cancel. */
  requestStop(id: string, kind: StopKind): void {
    const sql = `UPDATE jobs SET stop_requested = CASE WHEN stop_requested = 'cancel' THEN 'cancel' ELSE ? END
                 WHERE id = ? AND state IN ('queued', 'running')`;
    this.#database.query(sql).run(kind, id);
  }

  stopRequested(id: string): StopKind | null {
    const sql = "SELECT stop_requested FROM jobs WHERE id = ?";
    return this.#database.query<{ stop_requested: StopKind | null }, [string]>(sql).get(id)?.stop_requested ?? null;
  }

  setProgress(id: string, progress: JobProgress): void {
    this.#database.query("UPDATE jobs SET progress_json = ? WHERE id = ?").run(toJson(progress), id);
  }

  countUnfinished(): number {
    const sql = "SELECT count(*) AS count FROM jobs WHERE state IN ('queued', 'running') AND origin = 'server'";
    return this.#database.query<{ count: number }, []>(sql).get()?.count ?? 0;
  }

  countByState(): { kind: string; state: JobState; count: number }[] {
    const sql = "SELECT kind, state, count(*) AS count FROM jobs GROUP BY kind, state ORDER BY kind, state";
    return this.#database.query<{ kind: string; state: JobState; count: number }, []>(sql).all();
  }

  /** Forgets a job and everything recorded about it. */
  remove(id: string): boolean {
    return this.#database.query("DELETE FROM jobs WHERE id = ?").run(id).changes > 0;
  }
}

function record(row: Row): JobRecord {
  return {
    id: row.id,
    kind: row.kind,
    origin: row.origin,
    args: fromJson(row.args_json),
    subject: fromJson(row.subject_json),
    state: row.state,
    attempts: row.attempts,
    pid: row.pid,
    stopRequested: row.stop_requested,
    progress: fromJsonOrNull(row.progress_json),
    result: fromJsonOrNull(row.result_json),
    error: row.error,
    createdAt: row.created_at,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
  };
}
