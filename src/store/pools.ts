// Table pools: where the linear counterparts of a backbone lie, one pool per variant.

import type { Database } from "bun:sqlite";
import { fromJson, type JsonObject, toJson } from "./json.ts";

/** A pool of linear counterparts. */
export interface PoolRecord {
  readonly backbone: string;
  readonly variant: string;
  /** Absolute path of the pool's folder. */
  readonly path: string;
  /** How it was made, e.g. tokens and unexplained variance. */
  readonly recipe: JsonObject;
  readonly createdAt: number;
}

interface Row {
  backbone: string;
  variant: string;
  path: string;
  recipe_json: string;
  created_at: number;
}

/** The table. */
export class Pools {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get(backbone: string, variant: string): PoolRecord | null {
    const sql = "SELECT * FROM pools WHERE backbone = ? AND variant = ?";
    const row = this.#database.query<Row, [string, string]>(sql).get(backbone, variant);
    return row === null ? null : record(row);
  }

  /** Of one backbone, or all; oldest first. */
  list(backbone?: string): PoolRecord[] {
    const sql = "SELECT * FROM pools WHERE ?1 IS NULL OR backbone = ?1 ORDER BY created_at, variant";
    return this.#database
      .query<Row, [string | null]>(sql)
      .all(backbone ?? null)
      .map(record);
  }

  /**
   * Records the pool of a backbone and variant in place of an earlier one; the same pool keeps its time, by which searches
   * know it. The model must be registered.
   */
  put(pool: Omit<PoolRecord, "createdAt">, now: number = Date.now()): void {
    this.#database
      .query(
        `INSERT INTO pools (backbone, variant, path, recipe_json, created_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (backbone, variant) DO UPDATE SET path = excluded.path, recipe_json = excluded.recipe_json,
           created_at = CASE WHEN path = excluded.path AND recipe_json = excluded.recipe_json
                             THEN created_at ELSE excluded.created_at END`,
      )
      .run(pool.backbone, pool.variant, pool.path, toJson(pool.recipe), now);
  }

  remove(backbone: string, variant: string): boolean {
    return (
      this.#database.query("DELETE FROM pools WHERE backbone = ? AND variant = ?").run(backbone, variant).changes > 0
    );
  }
}

function record(row: Row): PoolRecord {
  return {
    backbone: row.backbone,
    variant: row.variant,
    path: row.path,
    recipe: fromJson(row.recipe_json),
    createdAt: row.created_at,
  };
}
