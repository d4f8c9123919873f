// graft ps: what runs on this data folder: the server, as it says of itself, and jobs with a live process.

import type { EngineInfo, EngineStats } from "../engine/types.ts";
import { isHeld } from "../jobs/session.ts";
import { Store } from "../store/database.ts";
import type { JobRecord } from "../store/jobs.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, JSON_FLAG } from "./config.ts";
import { askServer, findServer, type ServerInfo } from "./running_server.ts";
import { type Column, formatTable } from "./table.ts";
import { formatAge, formatBytes } from "./terminal.ts";

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
  { title: "DEVICE", cell: (row) => deviceName(row.stats?.info) },
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

async function runningServer(store: Store, apiKey: string | undefined): Promise<ServerRow | null> {
  const info = findServer(store);
  if (info === null) return null;
  const { value: stats, problem } = await askServer<StatsAnswer>(info, "/v1/stats", apiKey);
  return { ...info, stats, problem };
}

function deviceName(info: EngineInfo | undefined): string | null {
  if (info === undefined) return null;
  return info.device.kind === "cuda" ? info.device.name : `cpu ${info.device.isa}`;
}

function bytes(value: number | undefined): string | null {
  return value === undefined ? null : formatBytes(value);
}
