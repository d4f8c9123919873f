// Table hybrids: masks over a backbone by name, their aliases, and which one the bare backbone name means.

import type { Database } from "bun:sqlite";
import { fromJson, type JsonObject, toJson } from "./json.ts";

/** A hybrid as data; `backbone:name` is how a client asks for it. */
export interface HybridRecord {
  readonly backbone: string;
  readonly name: string;
  /** One entry per layer: null keeps full attention, otherwise the variant. */
  readonly layers: readonly (string | null)[];
  /** The task it was searched for. */
  readonly task: string | null;
  /** Id of the search it came from. */
  readonly search: string | null;
  /** e.g. { metric, base_score, score, num_replaced }. */
  readonly metrics: JsonObject;
  readonly alias: string | null;
  readonly isDefault: boolean;
  readonly createdAt: number;
}

/** What a caller states; the rest follows. */
export interface NewHybrid {
  readonly backbone: string;
  readonly name: string;
  readonly layers: readonly (string | null)[];
  readonly task?: string | null;
  readonly search?: string | null;
  readonly metrics?: JsonObject;
  readonly alias?: string | null;
}

interface Row {
  backbone: string;
  name: string;
  layers_json: string;
  task: string | null;
  search: string | null;
  metrics_json: string;
  alias: string | null;
  is_default: number;
  created_at: number;
}

/** The table. */
export class Hybrids {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get(backbone: string, name: string): HybridRecord | null {
    const sql = "SELECT * FROM hybrids WHERE backbone = ? AND name = ?";
    const row = this.#database.query<Row, [string, string]>(sql).get(backbone, name);
    return row === null ? null : record(row);
  }

  findByAlias(alias: string): HybridRecord | null {
    const row = this.#database.query<Row, [string]>("SELECT * FROM hybrids WHERE alias = ?").get(alias);
    return row === null ? null : record(row);
  }

  /** Of one backbone, or all. */
  list(backbone?: string): HybridRecord[] {
    const sql = "SELECT * FROM hybrids WHERE ?1 IS NULL OR backbone = ?1 ORDER BY backbone, created_at, name";
    return this.#database
      .query<Row, [string | null]>(sql)
      .all(backbone ?? null)
      .map(record);
  }

  /** Adds a hybrid or redirects its name; alias and default stay where they were unless stated. */
  put(hybrid: NewHybrid, now: number = Date.now()): void {
    this.#database
      .query(
        `INSERT INTO hybrids (backbone, name, layers_json, task, search, metrics_json, alias, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (backbone, name) DO UPDATE SET layers_json = excluded.layers_json, task = excluded.task,
           search = excluded.search, metrics_json = excluded.metrics_json,
           alias = coalesce(excluded.alias, alias), created_at = excluded.created_at`,
      )
      .run(
        hybrid.backbone,
        hybrid.name,
        toJson(hybrid.layers),
        hybrid.task ?? null,
        hybrid.search ?? null,
        toJson(hybrid.metrics ?? {}),
        hybrid.alias ?? null,
        now,
      );
  }

  /** Makes one hybrid the meaning of the bare backbone name; null returns to the full-attention backbone. */
  setDefault(backbone: string, name: string | null): void {
    this.#database.transaction(() => {
      this.#database.query("UPDATE hybrids SET is_default = 0 WHERE backbone = ? AND is_default = 1").run(backbone);
      this.#database.query("UPDATE hybrids SET is_default = 1 WHERE backbone = ? AND name = ?").run(backbone, name);
    })();
  }

  remove(backbone: string, name: string): boolean {
    return this.#database.query("DELETE FROM hybrids WHERE backbone = ? AND name = ?").run(backbone, name).changes > 0;
  }
}

function record(row: Row): HybridRecord {
  return {
    backbone: row.backbone,
    name: row.name,
    layers: fromJson(row.layers_json),
    task: row.task,
    search: row.search,
    metrics: fromJson(row.metrics_json),
    alias: row.alias,
    isDefault: row.is_default === 1,
    createdAt: row.created_at,
  };
}
