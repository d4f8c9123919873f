// Searches and conversions over real child processes that stand in for the commands: start, follow, cancel, hot swap.
import { afterEach, expect, test } from "bun:test";
import { join } from "node:path";
import type { JobRecord } from "../../src/store/jobs.ts";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

const worker = join(import.meta.dir, "..", "jobs", "worker.ts");
let server: TestServer;
afterEach(() => server.dispose());

/** The stand-in runs `mode` as the job. */
const start = async (mode: string, jobs: Record<string, unknown> = {}) => {
  let root = "";
  server = await testServer({
    jobs: { command: (job: JobRecord) => [process.execPath, worker, mode, root, job.id], graceMs: 2000, ...jobs },
  });
  root = server.store.dir.root;
  server.context.jobs.start();
};

const body = { task: "names", documents: [{ context: "a", completion: "b" }], variant: "gla", max_drop: 0.05 };

interface SearchJson {
  id: string;
  status: string;
  error: string | null;
  task: string;
  base_score: number;
  optimal: { numReplaced: number };
  trajectory: { round: number; chosen: number; candidates: { layer: number; score: number }[] }[];
}

interface StreamEvent {
  event: string;
  id: string | null;
  data: Record<string, unknown>;
}

async function eventsOf(path: string, headers: Record<string, string> = {}): Promise<StreamEvent[]> {
  const text = await (await server.get(path, headers)).text();
  return text
    .split("\n\n")
    .filter((block) => block.startsWith("event: "))
    .map((block) => ({
      event: /^event: (.*)$/m.exec(block)![1]!,
      id: /^id: (.*)$/m.exec(block)?.[1] ?? null,
      data: JSON.parse(/^data: (.*)$/m.exec(block)![1]!) as Record<string, unknown>,
    }));
}

test("a search is started, followed to its end, and its hybrid is served without a restart", async () => {
  await start("search");
  const posted = await server.send("POST", "/v1/searches", body);
  expect(posted.status).toBe(202);
  const { id, status } = await json<SearchJson>(posted);
  expect(["queued", "running"]).toContain(status);
  expect(posted.headers.get("location")).toBe(`/v1/searches/${id}`);
  const events = await eventsOf(`/v1/searches/${id}/events`);
  const numbered = events.filter((event) => event.id !== null);
  expect(numbered.map(({ id, event }) => [id, event])).toEqual([
    ["1", "round"],
    ["2", "round"],
    ["3", "done"],
  ]);
  expect(events.at(-1)).toMatchObject({ event: "end", data: { status: "done" } });
  const found = await json<SearchJson>(await server.get(`/v1/searches/${id}`));
  expect(found).toMatchObject({ status: "done", task: "names", base_score: 0.75, optimal: { numReplaced: 2 } });
  expect(found.trajectory.map(({ round, chosen, candidates }) => [round, chosen, candidates.length])).toEqual([
    [1, 1, 4],
    [2, 0, 3],
  ]);
  await server.context.hybrids.sync();
  expect((await server.send("POST", "/v1/completions", { model: "tiny:names", prompt: "x" })).status).toBe(200);
  // Taken up after event 2, only the rest comes.
  const rest = await eventsOf(`/v1/searches/${id}/events`, { "last-event-id": "2" });
  expect(rest.map(({ event }) => event)).toEqual(["done", "progress", "end"]);
});

test("a running search is cancelled and says so", async () => {
  await start("wait");
  const { id } = await json<SearchJson>(await server.send("POST", "/v1/searches", body));
  const stream = eventsOf(`/v1/searches/${id}/events`);
  while (server.store.events.after(id, 0).length === 0) await server.context.changes.wait(500);
  expect((await server.send("DELETE", `/v1/searches/${id}`, undefined)).status).toBe(200);
  const events = await stream;
  expect(events.map(({ event }) => event)).toEqual(["started", "cancelled", "end"]);
  expect(await json<SearchJson>(await server.get(`/v1/searches/${id}`))).toMatchObject({
    status: "cancelled",
    error: null,
  });
});

test("a full queue is 429; a waiting search is cancelled at once", async () => {
  await start("wait", { maxJobs: 2 });
  await server.send("POST", "/v1/searches", body);
  const second = await json<SearchJson>(await server.send("POST", "/v1/searches", { ...body, documents: undefined }));
  expect(second.status).toBe("queued");
  const third = await server.send("POST", "/v1/searches", body);
  expect([third.status, third.headers.get("retry-after")]).toEqual([429, "1"]);
  const cancelled = await server.send("DELETE", `/v1/searches/${second.id}`, undefined);
  expect(await json(cancelled)).toMatchObject({ status: "cancelled" });
  const list = await json<{ data: SearchJson[] }>(await server.get("/v1/searches"));
  expect(list.data).toHaveLength(2);
});

test("what a search cannot be is refused by field, and no job is made", async () => {
  await start("search");
  const bad: readonly [Record<string, unknown>, number, string][] = [
    [{ ...body, max_drop: undefined }, 400, "max_drop"],
    [{ ...body, replace: 2 }, 400, "replace"],
    [{ ...body, variant: "mamba" }, 400, "variant"],
    [{ ...body, variant: "jet" }, 409, "variant"],
    [{ ...body, strategy: "best" }, 400, "strategy"],
    [{ ...body, documents: undefined, task: "unknown" }, 404, "task"],
    [{ ...body, task: undefined }, 400, "task"],
    [{ ...body, task: "base" }, 400, "task"],
    [{ ...body, max_drop: undefined, replace: 5 }, 400, "replace"],
    [{ ...body, metric: "acc_norm" }, 400, "metric"],
    [{ ...body, task: "../up" }, 400, "task"],
    [{ ...body, documents: [{ context: "a" }] }, 400, "documents"],
    [{ ...body, model: "other" }, 404, "model"],
  ];
  for (const [request, status, param] of bad) {
    const response = await server.send("POST", "/v1/searches", request);
    expect([param, response.status]).toEqual([param, status]);
    expect((await json<ErrorJson>(response)).error.param).toBe(param);
  }
  expect(server.store.jobs.list()).toEqual([]);
  expect((await server.get("/v1/searches/none")).status).toBe(404);
  expect((await server.get("/v1/searches/none/events")).status).toBe(404);
});

test("a conversion runs as a job and files must exist", async () => {
  await start("wait");
  const missing = await server.send("POST", "/v1/conversions", { variant: "gla", data: ["/no/such/file.txt"] });
  expect((await json<ErrorJson>(missing)).error.param).toBe("data[0]");
  const request = { variant: "gdn", data: [`${import.meta.path}[1:]`], tokens: 1000, seed: 3 };
  const posted = await server.send("POST", "/v1/conversions", request);
  expect(posted.status).toBe(202);
  const { id } = await json<SearchJson>(posted);
  const job = server.store.jobs.get(id)!;
  expect(job.args).toEqual([
    "tiny",
    "--variant",
    "gdn",
    "--data",
    `${import.meta.path}[1:]`,
    "--tokens",
    "1000",
    "--seed",
    "3",
  ]);
  expect(await json(await server.send("DELETE", `/v1/conversions/${id}`, undefined))).toMatchObject({ variant: "gdn" });
  // A conversion is no search.
  expect((await server.get(`/v1/searches/${id}`)).status).toBe(404);
});
