// The server of a data folder, found and asked by commands that run beside it.

import { readFileSync } from "node:fs";
import type { Store } from "../store/database.ts";
import { tryLock } from "../store/lock.ts";

/** What a server writes down of itself. */
export interface ServerInfo {
  readonly pid: number;
  readonly url: string;
  readonly backbone: string;
  readonly started_at: number;
}

/** What it answered, or why there is no answer. */
export type ServerAnswer<T> =
  | { readonly value: T; readonly problem: null }
  | { readonly value: null; readonly problem: string };

/** The server of this folder, or null; its lock, not its file, says whether it lives. */
export function findServer(store: Store): ServerInfo | null {
  const lock = tryLock(store.dir.serverLock);
  if (lock === null) return JSON.parse(readFileSync(store.dir.serverInfo, "utf8")) as ServerInfo;
  lock.release();
  return null;
}

/** The JSON that a server answers to GET `path`. */
export async function askServer<T>(
  info: ServerInfo,
  path: string,
  apiKey: string | undefined,
): Promise<ServerAnswer<T>> {
  try {
    const headers: Record<string, string> = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
    const response = await fetch(info.url + path, { headers, signal: AbortSignal.timeout(5000) });
    if (response.ok) return { value: (await response.json()) as T, problem: null };
    return { value: null, problem: response.status === 401 ? "wants --api-key" : `answers ${response.status}` };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { value: null, problem: `does not answer: ${why}` };
  }
}
