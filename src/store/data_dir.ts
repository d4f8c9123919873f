// Where everything lies inside the data folder. Paths only.

import { homedir } from "node:os";
import { join, resolve } from "node:path";

/** Folder and file names of one data folder, all absolute. */
export interface DataDir {
  readonly root: string;
  readonly database: string;
  /** Held by the one server of this folder. */
  readonly serverLock: string;
  /** Where the running server says its address; meaningful only while the lock is held. */
  readonly serverInfo: string;
  /** Posted task files. */
  readonly tasks: string;
  /** Pools of linear counterparts, one folder each. */
  readonly pools: string;
  /** Computed prefixes that outlive a server. */
  readonly sessions: string;
  /** Log, lock and working files of one job. */
  job(id: string): { readonly folder: string; readonly log: string; readonly lock: string };
}

/** The layout below `root`; without one, ~/.graft. */
export function dataDir(root: string | undefined): DataDir {
  const base = resolve(root ?? join(homedir(), ".graft"));
  return {
    root: base,
    database: join(base, "graft.db"),
    serverLock: join(base, "server.lock"),
    serverInfo: join(base, "server.json"),
    tasks: join(base, "tasks"),
    pools: join(base, "pools"),
    sessions: join(base, "sessions"),
    job(id) {
      const folder = join(base, "jobs", id);
      return { folder, log: join(folder, "log.txt"), lock: join(folder, "lock") };
    },
  };
}
