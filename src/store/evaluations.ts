// Table evaluations: scores of hybrids on tasks, kept for reports.

import type { Database } from "bun:sqlite";
import { fromJson, type JsonObject, toJson } from "./json.ts";

/** One evaluation on documents. */
export interface EvaluationRecord {
  readonly backbone: string;
  readonly layers: readonly (string | null)[];
  readonly task: string;
  readonly taskSha256: string;
  readonly metric: string;
  readonly score: number;
  readonly numDocuments: number;
  readonly details: JsonObject;
  readonly createdAt: number;
}

interface Row {
  backbone: string;
  layers_json: string;
  task: string;
  task_sha256: string;
  metric: string;
  score: number;
  num_documents: number;
  details_json: string;
  created_at: number;
}

/** The table. */
export class Evaluations {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  add(evaluation: Omit<EvaluationRecord, "createdAt">, now: number = Date.now()): void {
    this.#database
      .query(
        `INSERT INTO evaluations (backbone, layers_json, task, task_sha256, metric, score, num_documents, details_json,
           created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        evaluation.backbone,
        toJson(evaluation.layers),
        evaluation.task,
        evaluation.taskSha256,
        evaluation.metric,
        evaluation.score,
        evaluation.numDocuments,
        toJson(evaluation.details),
        now,
      );
  }

  /** Newest first. */
  list(backbone: string, task?: string): EvaluationRecord[] {
    const sql = `SELECT * FROM evaluations WHERE backbone = ?1 AND (?2 IS NULL OR task = ?2)
                 ORDER BY created_at DESC, id DESC`;
    return this.#database
      .query<Row, [string, string | null]>(sql)
      .all(backbone, task ?? null)
      .map(record);
  }
}

function record(row: Row): EvaluationRecord {
  return {
    backbone: row.backbone,
    layers: fromJson(row.layers_json),
    task: row.task,
    taskSha256: row.task_sha256,
    metric: row.metric,
    score: row.score,
    numDocuments: row.num_documents,
    details: fromJson(row.details_json),
    createdAt: row.created_at,
  };
}
