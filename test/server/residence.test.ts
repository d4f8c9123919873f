// Loading and unloading hybrids over HTTP, over a real engine: typed errors, figures, and pools converted anew while served.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEngine } from "../../src/engine/client.ts";
import type { EngineClient } from "../../src/engine/types.ts";
import { tinyLlama, writeCheckpoint } from "../support/checkpoints.ts";
import { makePool } from "../support/pools.ts";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

interface Hybrid {
  readonly residence: string;
  readonly counterpart_bytes: number;
  readonly loaded_bytes: number;
  readonly last_used_at: number | null;
  readonly expires_at: number | null;
}

const folder = mkdtempSync(join(tmpdir(), "graft-residence-"));
const modelDir = join(folder, "model");
const poolDir = join(folder, "gla");
let engine: EngineClient;
let server: TestServer;

beforeAll(async () => {
  writeCheckpoint(modelDir, tinyLlama);
  makePool(modelDir, poolDir, "gla");
  engine = await startEngine({ modelDir, threads: 1, stateBytes: 1 << 20 });
  server = await testServer({ realEngine: engine });
  server.store.pools.put({ backbone: "tiny", variant: "gla", path: poolDir, recipe: {} }, 1);
  server.store.hybrids.put({ backbone: "tiny", name: "one", layers: ["gla", null] });
  server.store.hybrids.put({ backbone: "tiny", name: "two", layers: ["gla", "gla"] });
  await server.context.hybrids.sync();
});
afterAll(async () => {
  await server.dispose();
  await engine.close();
  rmSync(folder, { recursive: true, force: true });
});

const show = async (name: string) => json<Hybrid>(await server.get(`/v1/hybrids/${name}`));
const post = (path: string, body?: unknown) => server.send("POST", `/v1/hybrids/${path}`, body ?? {});

test("a hybrid is loaded and unloaded by name, and shows where its weights are", async () => {
  expect(await show("one")).toMatchObject({ residence: "unloaded", loaded_bytes: 0, last_used_at: null });
  const loaded = await json<Hybrid>(await post("one/load", { keep_alive: 3600 }));
  expect(loaded).toMatchObject({ residence: "loaded", loaded_bytes: loaded.counterpart_bytes });
  expect(loaded.expires_at! - loaded.last_used_at!).toBe(3600);
  // The first layer is in memory for the other already.
  const two = await show("two");
  expect(two).toMatchObject({ residence: "unloaded", loaded_bytes: loaded.loaded_bytes });
  expect(two.counterpart_bytes).toBe(2 * loaded.counterpart_bytes);
  const metrics = await (await server.get("/metrics")).text();
  expect(metrics).toContain(`graft_weight_kind_bytes{model_name="tiny",kind="gla"} ${loaded.loaded_bytes}\n`);
  expect(metrics).toContain('graft_hybrid_loads_total{model_name="tiny"} 1\n');
  expect(await json<Hybrid>(await post("tiny:one/unload"))).toMatchObject({ residence: "unloaded", loaded_bytes: 0 });
  expect((await post("one/unload")).status).toBe(200);
  expect(await json<Hybrid>(await post("base/load"))).toMatchObject({ residence: "loaded", counterpart_bytes: 0 });
});

test("what cannot be loaded is told by a typed error", async () => {
  const refused = async (response: Response) => [response.status, (await json<ErrorJson>(response)).error.code];
  expect(await refused(await post("nobody/load"))).toEqual([404, "unknown_hybrid"]);
  expect(await refused(await post("nobody/unload"))).toEqual([404, "unknown_hybrid"]);
  for (const keep_alive of [-2, 0.5, "5m", true]) {
    expect((await refused(await post("one/load", { keep_alive })))[0]).toBe(400);
  }
  expect(await refused(await post("one/load", { for_ever: true }))).toEqual([400, "unknown_parameter"]);
});

test("a pool converted anew takes the place of the old one, whose memory goes; a broken one leaves the old one serving", async () => {
  await post("two/load");
  const before = await engine.stats();
  makePool(modelDir, poolDir, "gla", {}, 99);
  server.store.pools.put({ backbone: "tiny", variant: "gla", path: poolDir, recipe: { seed: 99 } }, 2);
  await server.context.hybrids.sync();
  expect((await engine.pools()).length).toBe(1);
  expect((await engine.stats()).weightBytesByKind.gla).toBe(0);
  expect(await json<Hybrid>(await post("two/load"))).toMatchObject({ residence: "loaded" });
  expect((await engine.stats()).weightBytesByKind).toEqual(before.weightBytesByKind);

  const broken = join(folder, "broken");
  makePool(modelDir, broken, "gla");
  truncateSync(join(broken, "linear.safetensors"), 1000);
  server.store.pools.put({ backbone: "tiny", variant: "gla", path: broken, recipe: {} }, 3);
  await server.context.hybrids.sync();
  expect(await show("two")).toMatchObject({ residence: "loaded" });
  expect((await engine.pools()).map(({ directory }) => directory)).toEqual([poolDir]);
});
