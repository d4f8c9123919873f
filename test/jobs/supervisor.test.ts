// Jobs as real processes: order, bounds, crash and resume, cancel by force, pause and adoption by the next server.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CapacityError, RequestError } from "../../src/errors.ts";
import { ChangeWatcher } from "../../src/jobs/change_watcher.ts";
import { processIsAlive } from "../../src/jobs/process.ts";
import { JobSession, lockJob } from "../../src/jobs/session.ts";
import { StoreReporter } from "../../src/jobs/store_reporter.ts";
import { JobSupervisor, type SupervisorOptions } from "../../src/jobs/supervisor.ts";
import { Store } from "../../src/store/database.ts";

const worker = join(import.meta.dir, "worker.ts");
let root: string;
let store: Store;
let changes: ChangeWatcher;
let supervisor: JobSupervisor;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "graft-jobs-"));
  store = Store.open(root);
  changes = new ChangeWatcher(store);
});
afterEach(async () => {
  await supervisor?.stop();
  changes.close();
  store.close();
  rmSync(root, { recursive: true, force: true });
});

function supervise(options: Partial<SupervisorOptions> = {}): JobSupervisor {
  return new JobSupervisor(store, {
    // The job's first argument is the worker's mode.
    command: (job) => [process.execPath, worker, job.args[0]!, root, job.id],
    graceMs: 5000,
    pollMs: 50,
    onChange: () => changes.notify(),
    ...options,
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await changes.wait(200);
}

const ended = (id: string) => ["done", "failed", "cancelled"].includes(store.jobs.get(id)!.state);
const kinds = (id: string) => store.events.after(id, 0).map((event) => event.kind);

test("jobs run one after the other in the order they came", async () => {
  supervisor = supervise();
  supervisor.start();
  const ids = ["throw", "count", "throw"].map((mode) => supervisor.submit("search", [mode], {}).id);
  expect(ids.map((id) => store.jobs.get(id)!.state)).toEqual(["running", "queued", "queued"]);
  await until(() => ids.every(ended));
  const times = ids.map((id) => store.jobs.get(id)!);
  expect(times.map((job) => job.state)).toEqual(["failed", "done", "failed"]);
  expect(times[1]!.startedAt!).toBeGreaterThanOrEqual(times[0]!.finishedAt!);
  expect(times[2]!.startedAt!).toBeGreaterThanOrEqual(times[1]!.finishedAt!);
  expect(times[0]!.error).toBe("the weights are broken");
});

test("a killed job is resumed and does nothing twice", async () => {
  supervisor = supervise();
  supervisor.start();
  const { id } = supervisor.submit("search", ["count"], {});
  await until(() => ended(id));
  expect(store.jobs.get(id)).toMatchObject({ state: "done", attempts: 2, result: { counted: 10 } });
  const counted = readFileSync(join(store.dir.job(id).folder, "count.txt"), "utf8");
  expect(counted).toBe("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
  expect(kinds(id).filter((kind) => kind === "interrupted")).toHaveLength(1);
});

test("a job that always crashes fails after its attempts, with the reason", async () => {
  supervisor = supervise({ maxAttempts: 3 });
  supervisor.start();
  const { id } = supervisor.submit("search", ["crash"], {});
  await until(() => ended(id));
  expect(store.jobs.get(id)).toMatchObject({ state: "failed", attempts: 3 });
  expect(store.jobs.get(id)!.error).toStartWith("Stopped after 3 attempts: its process was ended by SIGKILL");
  const again = supervisor.resume(id);
  expect(again.attempts).toBeLessThanOrEqual(1);
  await until(() => ended(id));
  expect(store.jobs.get(id)!.state).toBe("failed");
});

test("a command that cannot start fails with the reason", async () => {
  supervisor = supervise({ maxAttempts: 1, command: () => ["/no/such/program"] });
  supervisor.start();
  const { id } = supervisor.submit("search", [], {});
  await until(() => ended(id));
  expect(store.jobs.get(id)!.error).toContain("could not start");
});

test("a deaf job is cancelled by force after the grace time", async () => {
  supervisor = supervise({ graceMs: 100 });
  supervisor.start();
  const { id } = supervisor.submit("search", ["deaf"], {});
  await until(() => kinds(id).includes("started"));
  const pid = store.jobs.get(id)!.pid!;
  supervisor.cancel(id);
  await until(() => ended(id));
  expect(store.jobs.get(id)!.state).toBe("cancelled");
  expect(processIsAlive(pid)).toBe(false);
  // Ended jobs stay as they are.
  expect(supervisor.cancel(id).state).toBe("cancelled");
  expect(() => supervisor.cancel("none")).toThrow(RequestError);
});

test("the queue is bounded", () => {
  supervisor = supervise({
    maxJobs: 2,
    command: () => [process.execPath, "-e", "setInterval(() => {}, 1000)"],
    graceMs: 50,
  });
  supervisor.submit("search", ["wait"], {});
  supervisor.submit("search", ["wait"], {});
  expect(() => supervisor.submit("search", ["wait"], {})).toThrow(CapacityError);
  expect(store.jobs.list()).toHaveLength(2);
});

test("a stopping server pauses its job and the next one goes on with it", async () => {
  supervisor = supervise();
  supervisor.start();
  const { id } = supervisor.submit("search", ["wait"], {});
  await until(() => kinds(id).includes("started"));
  await supervisor.stop();
  expect(store.jobs.get(id)).toMatchObject({ state: "queued", attempts: 0, pid: null });
  supervisor = supervise();
  supervisor.start();
  await until(() => kinds(id).filter((kind) => kind === "started").length === 2);
  supervisor.cancel(id);
  await until(() => ended(id));
  expect(store.jobs.get(id)!.state).toBe("cancelled");
});

test("a job left running by a killed server is adopted, not started twice", async () => {
  supervisor = supervise();
  supervisor.start();
  const { id } = supervisor.submit("search", ["wait"], {});
  await until(() => kinds(id).includes("started"));
  // A second supervisor on the same rows is what a server finds after kill -9 of the first.
  const next = supervise();
  next.start();
  expect(store.jobs.get(id)).toMatchObject({ state: "running", attempts: 1 });
  expect(() => JobSession.attach(store, id)).toThrow("another process is running it");
  next.cancel(id);
  await until(() => ended(id));
  await next.stop();
  expect(readFileSync(join(store.dir.job(id).folder, "runs.txt"), "utf8")).toBe("wait\n");
});

test("a running row whose process is gone is put back and resumed at start", async () => {
  store.jobs.add({ id: "search-1", kind: "search", origin: "server", args: ["count"], subject: {} });
  store.jobs.markRunning("search-1");
  store.jobs.setPid("search-1", 999_999_999);
  supervisor = supervise();
  supervisor.start();
  await until(() => ended("search-1"));
  expect(store.jobs.get("search-1")!.state).toBe("done");
  expect(kinds("search-1")[0]).toBe("interrupted");
});

test("terminal jobs are left alone by a server, and resumed by the same words", () => {
  const first = JobSession.begin(store, "convert", ["a"], {});
  supervisor = supervise();
  supervisor.start();
  expect(store.jobs.get(first.id)!.state).toBe("running");
  expect(() => JobSession.begin(store, "convert", ["a"], {})).toThrow("already running");
  first.fail(new Error("power cut"));
  const again = JobSession.begin(store, "convert", ["a"], {});
  expect(again.id).toBe(first.id);
  const other = JobSession.begin(store, "convert", ["b"], {});
  expect(other.id).not.toBe(first.id);
  other.finish({});
  again.finish({ ok: true });
  expect(store.jobs.get(first.id)).toMatchObject({ state: "done", result: { ok: true }, attempts: 2, error: null });
  expect(JobSession.begin(store, "convert", ["a"], {}).id).not.toBe(first.id);
});

test("the reporter writes seldom, and the last progress always", () => {
  let now = 0;

  store.jobs.add({ id: "j", kind: "search", origin: "terminal", args: [], subject: {} });
  supervisor = supervise();
  const reporter = new StoreReporter(store, "j", () => now);
  const done = () => store.jobs.get("j")!.progress?.done;
  reporter.progress(1, 10, "steps");
  now = 100;
  reporter.progress(2, 10, "steps");
  expect(done()).toBe(1);
  now = 300;
  reporter.progress(3, 10, "steps");
  expect(done()).toBe(3);
  reporter.progress(10, 10, "steps", { loss: 0.5 });
  expect(store.jobs.get("j")!.progress).toMatchObject({ done: 10, total: 10, unit: "steps", data: { loss: 0.5 } });
  expect(reporter.cancelled()).toBe(false);
  store.jobs.requestStop("j", "cancel");
  expect(reporter.cancelled()).toBe(false);
  now = 600;
  expect(reporter.cancelled()).toBe(true);
});

test("the lock of a job goes with its process", async () => {
  supervisor = supervise({ maxAttempts: 1 });
  supervisor.start();
  const { id } = supervisor.submit("search", ["deaf"], {});
  await until(() => kinds(id).includes("started"));
  expect(lockJob(store, id)).toBeNull();
  process.kill(store.jobs.get(id)!.pid!, "SIGKILL");
  await until(() => ended(id));
  const lock = lockJob(store, id);
  expect(lock).not.toBeNull();
  lock?.release();
});
