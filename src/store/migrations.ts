// The embedded migrations as a literal list of static imports, so that a bundled executable holds them.
// A test compares this list with the folder.

import initial from "../../migrations/0001_initial.sql" with { type: "text" };

/** One forward-only migration; never edited after release. */
export interface Migration {
  /** File name in migrations/. */
  readonly name: string;
  readonly sql: string;
}

/** In the order in which they apply. */
export const migrations: readonly Migration[] = [{ name: "0001_initial.sql", sql: initial }];
