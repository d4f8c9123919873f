// What clients and probes see when the engine is lost or stuck, over HTTP with the bundled model.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { resolve } from "node:path";
import { startEngine } from "../../src/engine/client.ts";
import { RestartingEngine } from "../../src/engine/restarting_engine.ts";
import { SPINS, THROWS } from "../engine/faults.ts";
import { until } from "./sockets.ts";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

const entry = new URL(`file://${resolve(import.meta.dir, "../engine/faulty_worker.ts")}`);
const modelDir = resolve(import.meta.dir, "../../models/tiny");
const LONG_MS = 30_000;

let server: TestServer;
beforeEach(async () => {
  const start = () => startEngine({ modelDir, threads: 1, kvBytes: 1 << 22, stateBytes: 1 << 22 }, entry);
  server = await testServer({ realEngine: await RestartingEngine.start(start, { stuckMs: 6000, log: () => {} }) });
});
afterEach(async () => {
  await server.context.engine.close();
  await server.dispose();
});

const ask = (body: object) => server.send("POST", "/v1/completions", { temperature: 0, ignore_eos: true, ...body });
const health = async () => {
  const response = await server.get("/health");
  return [response.status, (await json<{ status: string }>(response)).status];
};
const text = async (body: object) => (await json<{ choices: { text: string }[] }>(await ask(body))).choices[0]!.text;

test(
  "a crash: streams end with an error event, others with 503, and soon all is as before",
  async () => {
    const before = await text({ prompt: [40, 41], max_tokens: 8 });
    const stream = await ask({ prompt: [40, 41], max_tokens: 60, stream: true, n: 2 });
    const fatal = await ask({ prompt: [THROWS], max_tokens: 4 });
    expect([fatal.status, fatal.headers.get("retry-after")]).toEqual([503, "2"]);
    const { error } = await json<ErrorJson>(fatal);
    expect(error).toMatchObject({ type: "service_unavailable_error", code: "engine_restarted" });
    const events = await stream.text();
    expect(events).toContain('"code":"engine_restarted"');
    expect(events).toEndWith("data: [DONE]\n\n");
    expect(await health()).toEqual([503, "engine_restarting"]);
    expect((await server.get("/ready")).status).toBe(503);
    const meanwhile = await ask({ prompt: [40], max_tokens: 1 });
    expect([meanwhile.status, (await json<ErrorJson>(meanwhile)).error.code]).toEqual([503, "engine_restarting"]);
    // A scrape works all the time.
    expect(await (await server.get("/metrics")).text()).toContain('graft_engine_up{model_name="tiny"} 0');
    const took = await until("it is healthy", async () => (await health())[0] === 200);
    expect(took).toBeLessThan(5000);
    expect(await text({ prompt: [40, 41], max_tokens: 8 })).toBe(before);
    const scrape = await (await server.get("/metrics")).text();
    expect(scrape).toContain('graft_engine_restarts_total{model_name="tiny"} 1');
    expect(scrape).toContain('graft_engine_up{model_name="tiny"} 1');
    const lost = server.logged.filter((line) => line.includes('"error":"engine_restarted"'));
    expect(lost).toHaveLength(2);
  },
  LONG_MS,
);

test(
  "a stuck engine fails its probe within five seconds and is replaced",
  async () => {
    const start = performance.now();
    const stuck = ask({ prompt: [SPINS], max_tokens: 4 });
    await until("the probe fails", async () => (await health())[0] === 503);
    expect(performance.now() - start).toBeLessThan(5000);
    expect(await health()).toEqual([503, "engine_stuck"]);
    expect((await stuck).status).toBe(503);
    await until("it is healthy", async () => (await health())[0] === 200);
    expect((await ask({ prompt: [40], max_tokens: 1 })).status).toBe(200);
  },
  LONG_MS,
);
