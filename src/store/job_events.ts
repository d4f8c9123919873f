// Table job_events: what happened in a job, numbered from 1 without gaps, so that a reader can go on where it stopped.

import type { Database } from "bun:sqlite";
import { fromJson, type JsonObject, toJson } from "./json.ts";

/** Something that happened in a job. */
export interface JobEvent {
  readonly job: string;
  /** 1, 2, 3, ... within the job. */
  readonly seq: number;
  readonly time: number;
  readonly kind: string;
  readonly data: JsonObject;
}

interface Row {
  job: string;
  seq: number;
  time: number;
  kind: string;
  data_json: string;
}

/** The table. */
export class JobEvents {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Appends one event and answers its number. */
  append(job: string, kind: string, data: JsonObject, now: number = Date.now()): number {
    const sql = `INSERT INTO job_events (job, seq, time, kind, data_json)
                 SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4 FROM job_events WHERE job = ?1 RETURNING seq`;
    const values: [string, number, string, string] = [job, now, kind, toJson(data)];
    return this.#database.query<{ seq: number }, [string, number, string, string]>(sql).get(...values)!.seq;
  }

  /** Events numbered above `after`, in order. */
  after(job: string, after: number, limit = 500): JobEvent[] {
    const sql = "SELECT * FROM job_events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?";
    const rows = this.#database.query<Row, [string, number, number]>(sql).all(job, after, limit);
    return rows.map(({ data_json, ...row }) => ({ ...row, data: fromJson(data_json) }));
  }
}
