// Where a worker's code is: beside its module in a checkout, under the entry points' common root in the executable.
import { existsSync } from "node:fs";

/**
 * Address of a worker that is an entry point of its own in `bun build --compile`.
 * @param here import.meta.url of the caller, whose folder holds the worker
 * @param file name in that folder, such as "worker.ts"
 * @param fromSrc path from src/, such as "engine/worker.ts"
 * @throws Error where the executable was built without that entry point
 */
export function workerUrl(here: string, file: string, fromSrc: string): URL {
  if (!here.includes("/$bunfs/")) return new URL(`./${file}`, here);
  const built = fromSrc.replace(/\.ts$/, ".js");
  for (const path of [`./${built}`, `./src/${built}`]) {
    const url = new URL(path, here);
    if (existsSync(url.pathname)) return url;
  }
  throw new Error(`This executable was built without the entry point src/${fromSrc}`);
}
