// Locks between processes that the operating system releases when the holder dies, kill -9 included:
// an SQLite file held by an open exclusive transaction. Knows nothing of what is being locked.

import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { explained } from "./store_error.ts";

/** A lock that is held until released or until this process ends. */
export interface Lock {
  release(): void;
}

/** Held locks: without this a lock nobody refers to would be closed, and so released, by the garbage collector. */
const held = new Set<Database>();

/**
 * Takes the lock at `path` (the file is made when missing), or answers null at once when another process,
 * or another part of this one, holds it.
 * @throws StoreError when the file cannot be made or opened
 */
export function tryLock(path: string): Lock | null {
  return explained(path, () => {
    mkdirSync(dirname(path), { recursive: true });
    const database = new Database(path, { create: true, readwrite: true });
    try {
      database.run("PRAGMA busy_timeout = 0");
      database.run("PRAGMA locking_mode = EXCLUSIVE");
      database.run("BEGIN EXCLUSIVE");
    } catch (error) {
      database.close();
      if (error instanceof Error && "code" in error && error.code === "SQLITE_BUSY") return null;
      throw error;
    }
    held.add(database);
    return {
      release() {
        if (held.delete(database)) database.close();
      },
    };
  });
}
