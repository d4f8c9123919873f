// Real checkpoints and texts for tests: the folder is GRAFT_DATA, else the data beside the checkout. Nothing of it is part of
// this project, so every test that needs it skips, saying so, where it is absent.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Folder of the real data. */
export const dataDir = process.env.GRAFT_DATA ?? join(import.meta.dir, "..", "..", "..", "shared", "data");

/** Path of a file or folder there, or null (with one printed line) where it is absent. */
export function dataPath(name: string): string | null {
  const path = join(dataDir, name);
  if (existsSync(path)) return path;
  console.log(`skipped: ${path} is absent (set GRAFT_DATA)`);
  return null;
}

/** A JSON file. */
export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, "utf8")) as T;
}
