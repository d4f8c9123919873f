// Saved sessions over HTTP, over real engines: saved by prompt, found again by a server started anew, listed, deleted.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEngine } from "../../src/engine/client.ts";
import { tinyLlama, writeCheckpoint } from "../support/checkpoints.ts";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

interface Session {
  readonly id: string;
  readonly hybrid: string;
  readonly tokens: number;
  readonly bytes: number;
  readonly problem: string | null;
}

const folder = mkdtempSync(join(tmpdir(), "graft-http-sessions-"));
const modelDir = join(folder, "model");
const prompt = Array.from({ length: 40 }, (_, i) => (3 * i) % 40);

beforeAll(() => {
  writeCheckpoint(modelDir, tinyLlama);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function withServer(use: (server: TestServer) => Promise<void>, saved = true): Promise<void> {
  const sessions = { directory: join(folder, "sessions"), maxBytes: 1 << 20 };
  const small = { modelDir, threads: 1, stateBytes: 1 << 16, kvBytes: 1 << 18, pageSize: 8 };
  const engine = await startEngine({ ...small, ...(saved ? { sessions } : {}) });
  const server = await testServer({ realEngine: engine });
  try {
    await use(server);
  } finally {
    await server.dispose();
    await engine.close();
  }
}

const refused = async (response: Response) => [response.status, (await json<ErrorJson>(response)).error.code];

interface Completion {
  readonly choices: readonly { readonly text: string; readonly token_ids: number[] }[];
  readonly usage: { readonly prompt_tokens_details: { readonly cached_tokens: number } };
}

async function complete(server: TestServer): Promise<{ ids: number[]; cached: number }> {
  const body = { prompt, max_tokens: 8, temperature: 0, return_token_ids: true };
  const { choices, usage } = await json<Completion>(await server.send("POST", "/v1/completions", body));
  return { ids: choices[0]!.token_ids, cached: usage.prompt_tokens_details.cached_tokens };
}

test("a session is saved by its prompt, and a server started anew goes on from it", async () => {
  let cold: number[] = [];
  await withServer(async (server) => {
    const first = await complete(server);
    expect(first.cached).toBe(0);
    cold = first.ids;
    const response = await server.send("POST", "/v1/sessions", { prompt });
    expect(response.status).toBe(201);
    const session = await json<Session>(response);
    expect(session).toMatchObject({ hybrid: "base", problem: null });
    expect(session.tokens).toBeGreaterThanOrEqual(39);
  });
  await withServer(async (server) => {
    expect(await complete(server)).toEqual({ ids: cold, cached: 39 });
    const { data } = await json<{ data: Session[] }>(await server.get("/v1/sessions"));
    expect(data.length).toBe(1);
    expect(await json<Session>(await server.get(`/v1/sessions/${data[0]!.id}`))).toEqual(data[0]!);
    expect(await json(await server.send("DELETE", `/v1/sessions/${data[0]!.id}`, undefined))).toMatchObject({
      deleted: true,
    });
    expect(await refused(await server.send("DELETE", `/v1/sessions/${data[0]!.id}`, undefined))).toEqual([
      404,
      "unknown_session",
    ]);
  });
});

test("what cannot be saved is told by a typed error", async () => {
  await withServer(async (server) => {
    const save = async (body: unknown) => refused(await server.send("POST", "/v1/sessions", body));
    expect(await save({})).toEqual([400, "invalid_value"]);
    expect(await save({ prompt, messages: [{ role: "user", content: "a" }] })).toEqual([400, "invalid_value"]);
    expect(await save({ prompt: [] })).toEqual([400, "invalid_value"]);
    expect((await save({ prompt: [99_999] }))[0]).toBe(400);
    expect(await save({ prompt, model: "nobody" })).toEqual([404, "model_not_found"]);
    expect(await save({ prompt, path: "/etc/passwd" })).toEqual([400, "unknown_parameter"]);
    expect(await refused(await server.get("/v1/sessions/none"))).toEqual([404, "unknown_session"]);
  });
  await withServer(async (server) => {
    expect(await refused(await server.send("POST", "/v1/sessions", { prompt }))).toEqual([404, "sessions_off"]);
  }, false);
});
