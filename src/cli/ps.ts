// graft ps: what runs on this data folder: the server, as it says of itself, and jobs with a live process.

import { readFileSync } from "node:fs";
import type { EngineInfo, EngineStats } from "../engine/types.ts";
import { isHeld } from "../jobs/session.ts";
import { Store } from "../store/database.ts";
import type { JobRecord } from "../store/jobs.ts";
import { tryLock } from "../store/lock.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, JSON_FLAG } from "./config.ts";
import { type Column, formatTable } from "./table.ts";
import { formatAge, formatBytes } from "./terminal.ts";

interface ServerInfo {
  readonly pid: number;
  readonly url: string;
  readonly backbone: string;
  readonly started_at: number;
}

interface StatsAnswer {
  readonly active_requests: number;
  readonly info: EngineInfo;
  readonly engine: EngineStats;
}

interface ServerRow extends ServerInfo {
  /** null: it does not answer, or wants a key that was not given. */
  readonly stats: StatsAnswer | null;
  readonly problem: string | null;
}

const serverColumns: readonly Column<ServerRow>[] = [
  { title: "MODEL", cell: (row) => row.backbone },
  { title: "PID", align: "right", cell: (row) => row.pid },
  { title: "URL", cell: (row) => row.url },
  { title: "RUNNING", align: "right", cell: (row) => row.stats?.engine.running },
  { title: "WAITING", align: "right", cell: (row) => row.stats?.engine.waiting },
  { title: "CONTEXT", align: "right", cell: (row) => row.stats?.info.maxContext },
  { title: "WEIGHTS", align: "right", cell: (row) => bytes(row.stats?.engine.weightBytes) },
  { title: "KV USED", align: "right", cell: (row) => bytes(row.stats?.engine.kvBytesUsed) },
  { title: "STATE USED", align: "right", cell: (row) => bytes(row.stats?.engine.stateBytesUsed) },
  { title: "STARTED", cell: (row) => formatAge(Date.now() - row.started_at) },
  { title: "PROBLEM", cell: (row) => row.problem },
];

const jobColumns: readonly Column<JobRecord>[] = [
  { title: "JOB", cell: (row) => row.id },
  { title: "PID", align: "right", cell: (row) => row.pid },
  { title: "ABOUT", cell: (row) => Object.values(row.subject).join(" ") || null },
  {
    title: "PROGRESS",
    align: "right",
    cell: ({ progress }) => (progress ? `${progress.done}/${progress.total} ${progress.unit}` : null),
  },
];

export const psCommand = defineCommand(
  {
    name: "ps",
    summary: "Shows the running server and jobs",
    positionals: [],
    flags: {
      "api-key": { type: "string", value: "KEY", help: "key of the server, if it wants one" },
      "data-dir": DATA_DIR_FLAG,
      json: JSON_FLAG,
    },
    examples: ["graft ps", "graft ps --json"],
  },
  async ({ flags }) => {
    const store = Store.open(flags["data-dir"]);
    try {
      const server = await runningServer(store, flags["api-key"]);
      const marked = [...store.jobs.inState("running", "server"), ...store.jobs.inState("running", "terminal")];
      const jobs = marked.filter((job) => isHeld(store, job.id));
      if (flags.json) process.stdout.write(`${JSON.stringify({ server, jobs }, null, 2)}\n`);
      else {
        process.stdout.write(formatTable(serverColumns, server === null ? [] : [server], process.stdout));
        if (jobs.length > 0) process.stdout.write(`\n${formatTable(jobColumns, jobs, process.stdout)}`);
      }
      return 0;
    } finally {
      store.close();
    }
  },
);

/** The server of this folder; its lock, not its file, says whether it lives. */
async function runningServer(store: Store, apiKey: string | undefined): Promise<ServerRow | null> {
  const lock = tryLock(store.dir.serverLock);
  if (lock !== null) {
    lock.release();
    return null;
  }
  const info = JSON.parse(readFileSync(store.dir.serverInfo, "utf8")) as ServerInfo;
  try {
    const headers: Record<string, string> = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
    const response = await fetch(`${info.url}/v1/stats`, { headers, signal: AbortSignal.timeout(5000) });
    if (response.ok) return { ...info, stats: (await response.json()) as StatsAnswer, problem: null };
    return {
      ...info,
      stats: null,
      problem: response.status === 401 ? "wants --api-key" : `answers ${response.status}`,
    };
  } catch (error) {
    return {
      ...info,
      stats: null,
      problem: `does not answer: ${error instanceof Error ? error.message : String(error)}`,
    };
  }
}

function bytes(value: number | undefined): string | null {
  return value === undefined ? null : formatBytes(value);
}
