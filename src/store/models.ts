// Table models: the backbones this data folder knows, by name.

import type { Database } from "bun:sqlite";

/** A registered backbone. */
export interface ModelRecord {
  readonly name: string;
  /** Absolute path of its Hugging Face directory. */
  readonly path: string;
  readonly architecture: string | null;
  readonly numLayers: number | null;
  /** Hash that pools are tied to, once known. */
  readonly fingerprint: string | null;
  readonly createdAt: number;
}

interface Row {
  name: string;
  path: string;
  architecture: string | null;
  num_layers: number | null;
  fingerprint: string | null;
  created_at: number;
}

/** The table. */
export class Models {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get(name: string): ModelRecord | null {
    const row = this.#database.query<Row, [string]>("SELECT * FROM models WHERE name = ?").get(name);
    return row === null ? null : record(row);
  }

  findByPath(path: string): ModelRecord | null {
    const row = this.#database.query<Row, [string]>("SELECT * FROM models WHERE path = ?").get(path);
    return row === null ? null : record(row);
  }

  list(): ModelRecord[] {
    return this.#database.query<Row, []>("SELECT * FROM models ORDER BY name").all().map(record);
  }

  /** Adds a model or replaces what is known about it. */
  put(model: Omit<ModelRecord, "createdAt">, now: number = Date.now()): void {
    this.#database
      .query(
        `INSERT INTO models (name, path, architecture, num_layers, fingerprint, created_at) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET path = excluded.path, architecture = excluded.architecture,
           num_layers = excluded.num_layers, fingerprint = excluded.fingerprint`,
      )
      .run(model.name, model.path, model.architecture, model.numLayers, model.fingerprint, now);
  }

  /** Forgets a model with its pools and hybrids; the files stay. */
  remove(name: string): boolean {
    return this.#database.query("DELETE FROM models WHERE name = ?").run(name).changes > 0;
  }
}

function record(row: Row): ModelRecord {
  return {
    name: row.name,
    path: row.path,
    architecture: row.architecture,
    numLayers: row.num_layers,
    fingerprint: row.fingerprint,
    createdAt: row.created_at,
  };
}
