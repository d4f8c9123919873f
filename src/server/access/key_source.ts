// Where a server's keys come from: its flags and a file that is read again when it changes or when asked.

import { readFileSync, statSync } from "node:fs";
import type { Access } from "./access.ts";
import { type ApiKey, type KeyLimits, parseKeys, plainKeys } from "./key_file.ts";

/** How often the file is looked at. */
const LOOK_MS = 1000;

/** What the keys are read from. */
export interface KeySettings {
  /** Keys by themselves, of scope admin. */
  readonly keys: readonly string[];
  readonly file: string | null;
  /** Limits of a key that has no own ones. */
  readonly limits: KeyLimits;
}

export interface KeySource {
  /** Reads the file again now; a broken one leaves the keys as they were and is told to the log. */
  reload(): void;
  close(): void;
}

/**
 * Gives `access` its keys and keeps them up to date.
 * @throws RequestError for a broken file, Error for one that cannot be read
 */
export function followKeys(access: Access, settings: KeySettings, log: (line: string) => void): KeySource {
  const { file } = settings;
  if (file === null && settings.keys.length === 0) return { reload: () => {}, close: () => {} };
  const load = () => {
    if (file !== null && (statSync(file).mode & 0o077) !== 0) {
      log(`others on this machine can read the API keys in "${file}": chmod 600 it`);
    }
    const keys = readKeys(settings);
    access.setKeys(keys);
    return keys.length;
  };
  load();
  if (file === null) return { reload: () => {}, close: () => {} };
  let seen = stampOf(file);
  const reload = () => {
    seen = stampOf(file);
    try {
      log(`read ${load()} API keys`);
    } catch (error) {
      log(`the API keys stay as they are: ${error instanceof Error ? error.message : error}`);
    }
  };
  const timer = setInterval(() => {
    if (stampOf(file) !== seen) reload();
  }, LOOK_MS);
  timer.unref();
  return { reload, close: () => clearInterval(timer) };
}

function readKeys({ keys, file, limits }: KeySettings): ApiKey[] {
  const own = plainKeys(keys, limits);
  if (file === null) return own;
  const read = parseKeys(readFileSync(file, "utf8"), `"${file}"`, limits);
  const names = new Set(read.map((key) => key.name));
  // A numbered key never takes the place of one that the file names.
  return [...read, ...own.map((key) => (names.has(key.name) ? { ...key, name: `${key.name} (flag)` } : key))];
}

/** Changes when the file does, also when another takes its place. */
function stampOf(file: string): string {
  const stat = statSync(file, { throwIfNoEntry: false });
  return stat === undefined ? "" : `${stat.ino} ${stat.size} ${stat.mtimeMs}`;
}
