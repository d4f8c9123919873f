// Models, hybrids, tasks, probes, metrics and the OpenAPI document over a fake engine.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { CheckpointError, EngineLostError } from "../../src/errors.ts";
import { followStore } from "../../src/server/follow_store.ts";
import { HybridRegistry } from "../../src/server/hybrid_registry.ts";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

let server: TestServer;
beforeEach(async () => {
  server = await testServer({ aliases: { short: "tiny" } });
});
afterEach(() => server.dispose());

interface Hybrid {
  id: string;
  name: string;
  layers: string[];
  num_linear: number;
  default: boolean;
  served: boolean;
}

const modelIds = async () =>
  (await json<{ data: { id: string }[] }>(await server.get("/v1/models"))).data.map(({ id }) => id);
const register = (body: Record<string, unknown>) => server.send("POST", "/v1/hybrids", body);

test("models are the backbone, its full form and aliases", async () => {
  expect(await modelIds()).toEqual(["tiny", "tiny:base", "short", "short:base"]);
  expect(await json(await server.get("/v1/models/short"))).toMatchObject({ id: "short", max_model_len: 64 });
  expect((await server.get("/v1/models/none")).status).toBe(404);
});

test("a hybrid is registered by layers and served under its name and alias at once", async () => {
  const response = await register({ name: "recall", variant: "gla", replace: [1, 3], alias: "fast", task: "t" });
  expect(response.status).toBe(201);
  expect(await json(response)).toMatchObject({
    id: "tiny:recall",
    layers: ["full_attention", "gla", "full_attention", "gla"],
    num_linear: 2,
    task: "t",
    default: false,
    served: true,
  });
  expect(await modelIds()).toEqual(["tiny", "tiny:base", "tiny:recall", "fast", "short", "short:base", "short:recall"]);
  for (const model of ["tiny:recall", "fast"]) {
    expect((await server.send("POST", "/v1/completions", { model, prompt: "x" })).status).toBe(200);
  }
  expect(server.engine.requests.map((request) => request.hybrid)).toEqual(["recall", "recall"]);
});

test("the default hybrid is what the backbone's name means", async () => {
  await register({ name: "a", layers: ["full_attention", "gla", "full", "gla"], default: true });
  await server.send("POST", "/v1/completions", { model: "tiny", prompt: "x" });
  const base = await server.send("PUT", "/v1/hybrids/default", { name: "base" });
  const data = (await json<{ data: Hybrid[] }>(base)).data;
  expect(data.map((hybrid) => [hybrid.name, hybrid.default])).toEqual([
    ["base", true],
    ["a", false],
  ]);
  await server.send("POST", "/v1/completions", { prompt: "x" });
  expect(server.engine.requests.map((request) => request.hybrid)).toEqual(["a", "base"]);
  expect((await server.send("PUT", "/v1/hybrids/default", { name: "zzz" })).status).toBe(404);
});

test("a deleted hybrid is gone from engine, store and names", async () => {
  await register({ name: "a", variant: "gla", replace: [0], default: true });
  expect(await json(await server.send("DELETE", "/v1/hybrids/a", undefined))).toMatchObject({ deleted: true });
  expect(await modelIds()).toEqual(["tiny", "tiny:base", "short", "short:base"]);
  expect(server.engine.registered.size).toBe(0);
  expect((await server.send("POST", "/v1/completions", { model: "tiny:a", prompt: "x" })).status).toBe(404);
  expect((await server.send("DELETE", "/v1/hybrids/a", undefined)).status).toBe(404);
  expect((await server.send("DELETE", "/v1/hybrids/base", undefined)).status).toBe(400);
});

test("a hybrid that cannot be served is refused and not kept, and does not displace the old one", async () => {
  await register({ name: "a", variant: "gla", replace: [0] });
  const response = await register({ name: "a", variant: "jet", replace: [1] });
  expect(response.status).toBe(400);
  expect((await json<ErrorJson>(response)).error.message).toContain('no loaded pool of variant "jet"');
  expect(await json<Hybrid>(await server.get("/v1/hybrids/a"))).toMatchObject({ num_linear: 1, served: true });
  expect(server.engine.registered.get("a")?.layers).toEqual(["gla", null, null, null]);
});

test("hybrid bodies are checked", async () => {
  const bad: readonly [Record<string, unknown>, string][] = [
    [{ name: "a" }, "layers"],
    [{ name: "a", replace: [0], layers: ["gla"], variant: "gla" }, "replace"],
    [{ name: "a", replace: [4], variant: "gla" }, "replace"],
    [{ name: "a", replace: [0] }, "variant"],
    [{ name: "a", layers: ["gla"] }, "layers"],
    [{ name: "a", layers: ["gla", "gla", "gla", "mamba"] }, "layers[3]"],
    [{ name: "base", replace: [0], variant: "gla" }, "name"],
    [{ name: "a", replace: [0], variant: "mamba" }, "variant"],
    [{ name: "a", replace: [0], variant: "gla", alias: "tiny" }, "alias"],
  ];
  for (const [body, param] of bad) {
    const response = await register(body);
    expect([param, response.status]).toEqual([param, 400]);
    expect((await json<ErrorJson>(response)).error.param).toBe(param);
  }
});

test("a hybrid comes out of a search's trajectory", async () => {
  const { store } = server;
  store.jobs.add({ id: "search-1", kind: "search", origin: "terminal", args: [], subject: {} });
  const common = { backbone: "tiny", variant: "gla", task: "t", taskSha256: "", metric: "acc", strategy: "greedy" };
  store.searches.begin({ id: "search-1", ...common, stop: { all: true } });
  const early = await register({ name: "early", search: "search-1" });
  expect(early.status).toBe(409);
  const one = { layers: [null, "gla", null, null], score: 0.9, numReplaced: 1 };
  const two = { layers: ["gla", "gla", null, null], score: 0.8, numReplaced: 2 };
  store.searches.setFound("search-1", one, two);
  store.candidates.add({ search: "search-1", round: 1, layer: 1, numDocuments: 5, seconds: 1, ...one });
  store.candidates.choose("search-1", 1, 1);
  expect(await json(await register({ name: "opt", search: "search-1" }))).toMatchObject({ num_linear: 2, task: "t" });
  expect(await json(await register({ name: "best", search: "search-1", pick: "best" }))).toMatchObject({
    num_linear: 1,
  });
  expect(await json(await register({ name: "k1", search: "search-1", num_replaced: 1 }))).toMatchObject({
    num_linear: 1,
  });
  expect((await register({ name: "k3", search: "search-1", num_replaced: 3 })).status).toBe(400);
  expect((await register({ name: "x", search: "search-9" })).status).toBe(404);
});

test("a hybrid written by another process is served after a sync", async () => {
  server.store.hybrids.put({ backbone: "tiny", name: "late", layers: ["gla", null, null, null], task: "late" });
  expect(await modelIds()).not.toContain("tiny:late");
  await server.context.hybrids.sync();
  expect(await modelIds()).toContain("tiny:late");
});

test("the store is followed on after a look that failed", async () => {
  const { store, engine, context, logged } = server;
  store.hybrids.put({ backbone: "tiny", name: "early", layers: ["gla", null, null, null] });
  await context.hybrids.sync();
  const remove = engine.removeHybrid.bind(engine);
  engine.removeHybrid = () => Promise.reject(new Error("lost for a moment"));
  store.hybrids.remove("tiny", "early");
  const stop = followStore(context, 20);
  while (!logged.some((line) => line.includes("lost for a moment"))) await Bun.sleep(1);
  engine.removeHybrid = remove;
  for (let i = 0; i < 200 && engine.registered.has("early"); i++) await Bun.sleep(5);
  stop();
  expect(engine.registered.has("early")).toBe(false);
});

test("a task is posted as JSON or JSON Lines and kept as a file", async () => {
  const documents = [{ context: "a", choices: ["b", "c"], gold: 1 }];
  const first = await server.send("POST", "/v1/tasks", { name: "t1", documents });
  expect(first.status).toBe(201);
  expect(await json(first)).toMatchObject({ id: "t1", kind: "choice", num_documents: 1 });
  const lines = '{"context":"a","completion":"b"}\n\n{"context":"c","completion":"d"}\n';
  const second = await server.send("POST", "/v1/tasks?name=t2", lines, { "content-type": "application/jsonl" });
  expect(await json(second)).toMatchObject({ id: "t2", kind: "completion", num_documents: 2 });
  const path = server.store.tasks.get("t2")!.path;
  expect(readFileSync(path, "utf8")).toBe(lines);
  expect(path.endsWith("/t2.jsonl")).toBe(true);
  const list = await json<{ data: { id: string }[] }>(await server.get("/v1/tasks"));
  expect(list.data.map(({ id }) => id)).toEqual(["t1", "t2"]);
  expect(await json(await server.send("DELETE", "/v1/tasks/t2", undefined))).toMatchObject({ deleted: true });
  expect((await server.get("/v1/tasks/t2")).status).toBe(404);
});

test("a broken task names its line and leaves nothing", async () => {
  const lines = '{"context":"a","completion":"b"}\n{"context":"c"\n';
  const response = await server.send("POST", "/v1/tasks?name=bad", lines, { "content-type": "text/plain" });
  expect(response.status).toBe(400);
  expect((await json<ErrorJson>(response)).error).toMatchObject({ code: "invalid_task" });
  expect((await server.send("POST", "/v1/tasks", { name: "bad", documents: [{ context: 5 }] })).status).toBe(400);
  expect(server.store.tasks.list()).toEqual([]);
  expect(existsSync(server.store.dir.tasks)).toBe(false);
});

test("tokenize and detokenize are inverse", async () => {
  const tokens = await json<{ tokens: number[]; count: number }>(
    await server.send("POST", "/tokenize", { prompt: "hé" }),
  );
  expect(tokens).toMatchObject({ tokens: [104, 195, 169], count: 3 });
  expect(await json(await server.send("POST", "/detokenize", { tokens: tokens.tokens }))).toEqual({ prompt: "hé" });
  const wrong = await server.send("POST", "/detokenize", { tokens: [104, 999] });
  expect((await json<ErrorJson>(wrong)).error.param).toBe("tokens[1]");
});

test("health follows the engine's heartbeat, ready also the drain", async () => {
  const status = async (path: string) => (await server.get(path)).status;
  expect([await status("/health"), await status("/ready")]).toEqual([200, 200]);
  server.engine.heartbeatAgeMs = 6000;
  expect([await status("/health"), await status("/ready")]).toEqual([503, 503]);
  server.engine.heartbeatAgeMs = 5;
  server.engine.alive = false;
  expect([await status("/health"), await status("/ready")]).toEqual([503, 503]);
  server.engine.alive = true;
  await server.context.lifecycle.drain();
  expect([await status("/health"), await status("/ready")]).toEqual([200, 503]);
  const late = await server.send("POST", "/v1/completions", { prompt: "x" });
  expect([late.status, late.headers.get("retry-after")]).toEqual([503, "1"]);
});

test("a drain waits for what is under way", async () => {
  server.engine.holdAfter = 1;
  const response = await server.send("POST", "/v1/completions", { prompt: "ab", stream: true });
  let drained = false;
  const drain = server.context.lifecycle.drain().then(() => {
    drained = true;
  });
  await server.get("/ready");
  expect(drained).toBe(false);
  server.engine.release();
  expect(await response.text()).toEndWith("data: [DONE]\n\n");
  await drain;
  expect(drained).toBe(true);
});

test("metrics hold the engine's figures and what was answered", async () => {
  await server.send("POST", "/v1/completions", { prompt: "ab" });
  await server.send("POST", "/v1/completions", { prompt: "" });
  const response = await server.get("/metrics");
  expect(response.headers.get("content-type")).toStartWith("text/plain");
  const text = await response.text();
  const lines = text.split("\n");
  expect(lines).toContain('graft_kv_cache_usage_perc{model_name="tiny"} 0.5');
  expect(lines).toContain('graft_generation_tokens_total{model_name="tiny"} 13');
  expect(lines).toContain('graft_sequences_finished_total{model_name="tiny",finished_reason="stop"} 2');
  expect(lines).toContain('graft_request_success_total{model_name="tiny",finished_reason="stop"} 1');
  expect(lines).toContain('graft_request_prompt_tokens_sum{model_name="tiny"} 2');
  expect(lines).toContain('graft_http_requests_total{method="POST",route="/v1/completions",status="200"} 1');
  expect(lines).toContain('graft_http_requests_total{method="POST",route="/v1/completions",status="400"} 1');
  expect(text).toContain('graft_time_to_first_token_seconds_bucket{le="2.5",model_name="tiny"} 1');
  // A second scrape repeats the engine's counters, it does not add them.
  expect(await (await server.get("/metrics")).text()).toContain('graft_generation_tokens_total{model_name="tiny"} 13');
});

test("the OpenAPI document lists every route with its body", async () => {
  interface Document {
    openapi: string;
    paths: Record<string, Record<string, { requestBody?: unknown }>>;
  }
  const document = await json<Document>(await server.get("/openapi.json"));
  expect(document.openapi).toStartWith("3.");
  for (const path of [
    "/v1/models",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/hybrids",
    "/v1/tasks",
    "/v1/searches",
  ]) {
    expect(Object.keys(document.paths)).toContain(path);
  }
  expect(document.paths["/v1/chat/completions"]?.post?.requestBody).toBeDefined();
  expect(JSON.stringify(document)).toContain("max_completion_tokens");
});

test("a server may mean another hybrid by the bare name than the store does", async () => {
  const { store, engine } = server;
  store.hybrids.put({ backbone: "tiny", name: "a", layers: ["gla", null, null, null] });
  store.hybrids.put({ backbone: "tiny", name: "b", layers: [null, "gla", null, null] });
  store.hybrids.setDefault("tiny", "a");
  const registry = new HybridRegistry(engine, store, "tiny", { standard: "b", aliases: { x: "a", y: "tiny:b" } });
  await registry.sync();
  const means = Object.fromEntries(registry.names().map(({ id, hybrid }) => [id, hybrid]));
  expect(means).toEqual({ tiny: "b", "tiny:base": "base", "tiny:a": "a", "tiny:b": "b", x: "a", y: "b" });
});

test("a pool that cannot be loaded leaves the rest served, with the reason", async () => {
  const { store, engine } = server;
  engine.loadPool = async (directory) => {
    throw new CheckpointError(`Cannot load pool "${directory}": it is torn`);
  };
  store.pools.put({ backbone: "tiny", variant: "jet", path: "/torn", recipe: {} });
  store.hybrids.put({ backbone: "tiny", name: "j", layers: ["jet", null, null, null] });
  store.hybrids.put({ backbone: "tiny", name: "g", layers: ["gla", null, null, null] });
  await server.context.hybrids.sync();
  expect(await modelIds()).toEqual(["tiny", "tiny:base", "tiny:g", "short", "short:base", "short:g"]);
  const asked = await server.send("POST", "/v1/completions", { model: "tiny:j", prompt: "x" });
  expect((await json<ErrorJson>(asked)).error.message).toBe(
    'The model "tiny:j" is not served here: Cannot load pool "/torn": it is torn',
  );
  expect(await json<Hybrid>(await server.get("/v1/hybrids/j"))).toMatchObject({ served: false });
});

test("a pool that met a lost engine is tried again at the next look", async () => {
  const { store, engine, context } = server;
  const load = engine.loadPool.bind(engine);
  engine.loadPool = () => Promise.reject(new EngineLostError("engine_restarting", "lost for a moment"));
  store.pools.put({ backbone: "tiny", variant: "gdn", path: "/pools/gdn", recipe: {} });
  await context.hybrids.sync();
  expect(context.hybrids.poolOf("gdn")).toBeNull();
  engine.loadPool = load;
  await context.hybrids.sync();
  expect(context.hybrids.poolOf("gdn")).not.toBeNull();
  expect(context.hybrids.problems.has("pool gdn")).toBe(false);
});
