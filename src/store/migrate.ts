// Brings a database to the newest schema: each unapplied migration in one transaction, with its hash and time
// recorded. A changed or missing applied migration stops the start. Knows no table but its own.

import type { Database } from "bun:sqlite";
import { createHash } from "node:crypto";
import type { Migration } from "./migrations.ts";
import { StoreError } from "./store_error.ts";

interface AppliedRow {
  readonly name: string;
  readonly sha256: string;
}

/**
 * Applies what is missing.
 * @returns the names applied now
 * @throws StoreError when the recorded history and `migrations` disagree
 */
export function migrate(database: Database, migrations: readonly Migration[], now: () => number = Date.now): string[] {
  database.run(
    "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT",
  );
  const applyMissing = database.transaction(() => {
    const applied = database.query<AppliedRow, []>("SELECT name, sha256 FROM migrations ORDER BY name").all();
    checkHistory(applied, migrations);
    const pending = migrations.slice(applied.length);
    return pending.map((migration) => migration.name);
  });
  const names = applyMissing.immediate();
  return names.filter((name) => applyOne(database, migrations.find((migration) => migration.name === name)!, now()));
}

function applyOne(database: Database, migration: Migration, time: number): boolean {
  const apply = database.transaction(() => {
    // Another process may have applied it between the look and this write lock.
    if (database.query("SELECT 1 FROM migrations WHERE name = ?").get(migration.name) !== null) return false;
    database.run(migration.sql);
    database.run("INSERT INTO migrations (name, sha256, applied_at) VALUES (?, ?, ?)", [
      migration.name,
      sha256(migration.sql),
      time,
    ]);
    return true;
  });
  return apply.immediate();
}

function checkHistory(applied: readonly AppliedRow[], migrations: readonly Migration[]): void {
  for (const [index, row] of applied.entries()) {
    const known = migrations[index];
    if (known === undefined || known.name !== row.name) {
      const wanted = migrations.some((migration) => migration.name === row.name) ? "out of order" : "not known here";
      throw new StoreError(
        "schema",
        `Cannot use this data folder: migration "${row.name}" was applied but is ${wanted}; use the version of graft that wrote it`,
      );
    }
    if (sha256(known.sql) !== row.sha256) {
      throw new StoreError(
        "schema",
        `Cannot use this data folder: migration "${row.name}" changed after it was applied; restore the original file`,
      );
    }
  }
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
