// graft jobs: background work of this data folder; its log, cancel, resume. A running server is not needed.

import { readFileSync } from "node:fs";
import { RequestError } from "../errors.ts";
import { processIsAlive, signalProcess } from "../jobs/process.ts";
import { isHeld } from "../jobs/session.ts";
import { Store } from "../store/database.ts";
import type { JobRecord } from "../store/jobs.ts";
import { explained } from "../store/store_error.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, JSON_FLAG, UsageError } from "./config.ts";
import { suggestion } from "./suggest.ts";
import { type Column, printRows } from "./table.ts";
import { formatAge } from "./terminal.ts";

/** A job with what is really the case: a row may say "running" though its process was killed. */
type Row = JobRecord & { readonly shownState: string };

const columns: readonly Column<Row>[] = [
  { title: "ID", cell: (row) => row.id },
  { title: "STATE", cell: (row) => row.shownState },
  { title: "PROGRESS", align: "right", cell: progressText },
  { title: "ABOUT", cell: (row) => Object.values(row.subject).join(" ") || null },
  { title: "TRIES", align: "right", cell: (row) => row.attempts },
  { title: "MADE", cell: (row) => formatAge(Date.now() - row.createdAt) },
  { title: "ERROR", cell: (row) => row.error?.slice(0, 80) ?? null },
];

export const jobsCommand = defineCommand(
  {
    name: "jobs",
    summary: "Lists background jobs",
    positionals: ["[ACTION]", "[JOB]"],
    flags: { "data-dir": DATA_DIR_FLAG, json: JSON_FLAG },
    details: `ACTION is list (the default), log ID, cancel ID, resume ID (put back in the queue; the next server start goes on
with it) or rm ID.`,
    examples: ["graft jobs", "graft jobs log search-0a1b2c3d4e", "graft jobs cancel search-0a1b2c3d4e"],
  },
  async ({ flags, positionals }) => {
    const [action = "list", id] = positionals;
    const store = Store.open(flags["data-dir"]);
    try {
      if (action === "list")
        printRows(
          columns,
          store.jobs.list().map((job) => ({ ...job, shownState: shownState(store, job) })),
          flags.json,
        );
      else act(store, action, id);
      return 0;
    } finally {
      store.close();
    }
  },
);

function shownState(store: Store, job: JobRecord): string {
  if (job.state !== "running") return job.state;
  if (!isHeld(store, job.id)) return "interrupted";
  return job.stopRequested === null ? "running" : "stopping";
}

function act(store: Store, action: string, id: string | undefined): void {
  const actions: Readonly<Record<string, (store: Store, job: JobRecord) => void>> = { log, cancel, resume, rm };
  const run = Object.hasOwn(actions, action) ? actions[action] : undefined;
  if (run === undefined || id === undefined) {
    throw new UsageError(
      `Expected list, log ID, cancel ID, resume ID or rm ID, got "${[action, id ?? ""].join(" ").trim()}"`,
    );
  }
  const job = store.jobs.get(id);
  if (job === null) {
    const hint = suggestion(
      id,
      store.jobs.list().map((one) => one.id),
    );
    throw new RequestError("unknown_job", `There is no job "${id}"${hint}; graft jobs lists them`);
  }
  run(store, job);
}

function log(store: Store, job: JobRecord): void {
  const path = store.dir.job(job.id).log;
  process.stdout.write(explained(path, () => readFileSync(path, "utf8")));
}

function cancel(store: Store, job: JobRecord): void {
  if (job.state === "running" && isHeld(store, job.id)) {
    store.jobs.requestStop(job.id, "cancel");
    if (job.pid !== null && processIsAlive(job.pid)) signalProcess(job.pid, "SIGTERM");
    return;
  }
  if (!store.jobs.markFinished(job.id, "cancelled")) {
    throw new RequestError("job_state", `Cannot cancel job "${job.id}": it is ${job.state}`);
  }
}

function resume(store: Store, job: JobRecord): void {
  if (job.state !== "failed" && job.state !== "cancelled") {
    throw new RequestError(
      "job_state",
      `Cannot resume job "${job.id}": it is ${job.state}, expected failed or cancelled`,
    );
  }
  if (job.origin === "terminal") {
    throw new RequestError(
      "job_state",
      `Cannot resume job "${job.id}": it was typed on a terminal; type the same command again`,
    );
  }
  store.jobs.markQueued(job.id, true);
}

function rm(store: Store, job: JobRecord): void {
  if (isHeld(store, job.id)) {
    throw new RequestError("job_running", `Cannot remove job "${job.id}": it is running; cancel it first`);
  }
  store.jobs.remove(job.id);
}

function progressText({ progress }: JobRecord): string | null {
  if (progress === null || progress.total === 0) return null;
  return `${Math.floor((100 * progress.done) / progress.total)}%`;
}
