// Table tasks: posted task files by name. The documents lie in the file, not here.

import type { Database } from "bun:sqlite";

/** A task that searches and evaluations can name. */
export interface TaskRecord {
  readonly name: string;
  /** Absolute path of the JSON Lines file. */
  readonly path: string;
  readonly sha256: string;
  /** "choice" or "completion". */
  readonly kind: string;
  readonly numDocuments: number;
  readonly createdAt: number;
}

interface Row {
  name: string;
  path: string;
  sha256: string;
  kind: string;
  num_documents: number;
  created_at: number;
}

/** The table. */
export class Tasks {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get(name: string): TaskRecord | null {
    const row = this.#database.query<Row, [string]>("SELECT * FROM tasks WHERE name = ?").get(name);
    return row === null ? null : record(row);
  }

  list(): TaskRecord[] {
    return this.#database.query<Row, []>("SELECT * FROM tasks ORDER BY name").all().map(record);
  }

  /** Adds a task or points its name at another file. */
  put(task: Omit<TaskRecord, "createdAt">, now: number = Date.now()): void {
    this.#database
      .query(
        "INSERT OR REPLACE INTO tasks (name, path, sha256, kind, num_documents, created_at) VALUES (?, ?, ?, ?, ?, ?)",
      )
      .run(task.name, task.path, task.sha256, task.kind, task.numDocuments, now);
  }

  remove(name: string): boolean {
    return this.#database.query("DELETE FROM tasks WHERE name = ?").run(name).changes > 0;
  }
}

function record(row: Row): TaskRecord {
  return {
    name: row.name,
    path: row.path,
    sha256: row.sha256,
    kind: row.kind,
    numDocuments: row.num_documents,
    createdAt: row.created_at,
  };
}
