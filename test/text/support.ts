// Where real data lies for the text tests, and why a test is skipped without it.
import { existsSync } from "node:fs";
import { resolve } from "node:path";

export const dataDir = resolve(process.env.GRAFT_DATA ?? "../shared/data");

/** True (with a line on standard error) where the directory is absent. */
export function skipReason(directory: string): boolean {
  if (existsSync(directory)) return false;
  console.error(`skipped: no ${directory} (set GRAFT_DATA)`);
  return true;
}
