// Table searches: what was searched for and what was found. The running state is the job of the same id.

import type { Database } from "bun:sqlite";
import { fromJson, fromJsonOrNull, type JsonObject, toJson } from "./json.ts";

/** A hybrid found by a search. */
export interface FoundHybrid {
  readonly layers: readonly (string | null)[];
  readonly score: number;
  readonly numReplaced: number;
}

/** A search's row. */
export interface SearchRecord {
  /** The id of its job. */
  readonly id: string;
  readonly backbone: string;
  readonly variant: string;
  readonly task: string;
  readonly taskSha256: string;
  readonly metric: string;
  readonly strategy: string;
  /** e.g. { maxDrop: 0.05 }, { replace: 4 } or { all: true }. */
  readonly stop: JsonObject;
  readonly baseScore: number | null;
  readonly best: FoundHybrid | null;
  readonly opt: FoundHybrid | null;
  readonly createdAt: number;
  readonly finishedAt: number | null;
}

/** What is known when a search begins. */
export type NewSearch = Pick<
  SearchRecord,
  "id" | "backbone" | "variant" | "task" | "taskSha256" | "metric" | "strategy" | "stop"
>;

interface Row {
  id: string;
  backbone: string;
  variant: string;
  task: string;
  task_sha256: string;
  metric: string;
  strategy: string;
  stop_json: string;
  base_score: number | null;
  best_json: string | null;
  opt_json: string | null;
  created_at: number;
  finished_at: number | null;
}

/** The table. */
export class Searches {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get(id: string): SearchRecord | null {
    const row = this.#database.query<Row, [string]>("SELECT * FROM searches WHERE id = ?").get(id);
    return row === null ? null : record(row);
  }

  /** Newest first. */
  list(): SearchRecord[] {
    return this.#database.query<Row, []>("SELECT * FROM searches ORDER BY created_at DESC, id").all().map(record);
  }

  /** Records the start of a search; one that is already there (resumed) stays as it is. The job must exist. */
  begin(search: NewSearch, now: number = Date.now()): void {
    this.#database
      .query(
        `INSERT INTO searches (id, backbone, variant, task, task_sha256, metric, strategy, stop_json, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
      )
      .run(
        search.id,
        search.backbone,
        search.variant,
        search.task,
        search.taskSha256,
        search.metric,
        search.strategy,
        toJson(search.stop),
        now,
      );
  }

  setBaseScore(id: string, score: number): void {
    this.#database.query("UPDATE searches SET base_score = ? WHERE id = ?").run(score, id);
  }

  /** What the search has found so far. */
  setFound(id: string, best: FoundHybrid, opt: FoundHybrid): void {
    this.#database
      .query("UPDATE searches SET best_json = ?, opt_json = ? WHERE id = ?")
      .run(toJson(best), toJson(opt), id);
  }

  finish(id: string, now: number = Date.now()): void {
    this.#database.query("UPDATE searches SET finished_at = ? WHERE id = ?").run(now, id);
  }
}

function record(row: Row): SearchRecord {
  return {
    id: row.id,
    backbone: row.backbone,
    variant: row.variant,
    task: row.task,
    taskSha256: row.task_sha256,
    metric: row.metric,
    strategy: row.strategy,
    stop: fromJson(row.stop_json),
    baseScore: row.base_score,
    best: fromJsonOrNull(row.best_json),
    opt: fromJsonOrNull(row.opt_json),
    createdAt: row.created_at,
    finishedAt: row.finished_at,
  };
}
