// The log: one line per request with what an operator asks for, never a prompt, an answer or a key.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { createLog } from "../../src/server/log.ts";
import { type TestServer, testServer } from "./support.ts";

const KEY = "sk-user-0123456789";
let server: TestServer;
beforeEach(async () => {
  server = await testServer({ keys: `alice ${KEY}` });
});
afterEach(() => server.dispose());

const headers = { authorization: `Bearer ${KEY}` };
const requests = () =>
  server.logged.map((line) => JSON.parse(line) as Record<string, unknown>).filter((line) => line.message === "request");
const complete = (body: object, more: Record<string, string> = {}) =>
  server.send("POST", "/v1/completions", body, { ...headers, ...more });

test("a whole answer", async () => {
  const response = await complete({ prompt: "the secret prompt", max_tokens: 30 });
  const line = requests()[0]!;
  expect(line).toMatchObject({
    level: "info",
    key: "alice",
    address: "unknown",
    method: "POST",
    route: "/v1/completions",
    status: 200,
    model: "tiny",
    hybrid: "base",
    prompt_tokens: 17,
    cached_tokens: 0,
    completion_tokens: 18,
    queue_ms: 0,
    finish_reason: "stop",
  });
  expect(line.request_id).toBe(response.headers.get("x-request-id"));
  expect(Date.parse(String(line.time))).toBeGreaterThan(0);
  for (const field of ["ttft_ms", "total_ms"]) expect(line[field]).toBeNumber();
  expect(line).not.toHaveProperty("error");
});

test("a stream is logged when it ends, a client that leaves with what it had", async () => {
  server.engine.holdAfter = 2;
  const stream = await complete({ prompt: "abc", stream: true });
  expect(requests()).toEqual([]);
  server.engine.release();
  await stream.text();
  expect(requests()[0]).toMatchObject({ status: 200, completion_tokens: 4, finish_reason: "stop" });
  server.engine.holdAfter = 2;
  const left = await complete({ prompt: "abc", stream: true });
  const reader = left.body!.getReader();
  await reader.read();
  await reader.cancel();
  expect(requests()[1]).toMatchObject({ status: 200, prompt_tokens: 3 });
});

test("errors by their code, unknown routes without their path, probes for debugging only", async () => {
  await complete({ prompt: 5 });
  await server.get("/v1/secret-path?token=secret", headers);
  await server.get("/health");
  await server.get("/v1/models");
  expect(requests().map(({ level, route, status, error, key }) => [level, route, status, error, key])).toEqual([
    ["info", "/v1/completions", 400, "invalid_value", "alice"],
    ["info", "unknown", 403, "insufficient_scope", undefined],
    ["debug", "/health", 200, undefined, undefined],
    ["info", "unknown", 401, "invalid_api_key", undefined],
  ]);
});

test("prompts, answers and keys are never in it, also when the server fails", async () => {
  server.engine.reply = () => [..."the secret answer"].map((char) => char.charCodeAt(0));
  await complete({ prompt: "the secret prompt", stream: true }).then((response) => response.text());
  await complete({ prompt: "the secret prompt", model: "the secret model" });
  await complete({ prompt: ["the secret prompt", { secret: 1 }] });
  await server.send("POST", "/v1/completions", '{"prompt": "the secret prompt"', headers);
  await server.send("POST", "/v1/chat/completions", { messages: [{ role: "user", content: "secret" }] }, headers);
  server.engine.generate = () => {
    throw new Error("a defect");
  };
  const failed = await complete({ prompt: "the secret prompt" }, { "x-request-id": "mine-1" });
  expect([failed.status, failed.headers.get("x-request-id")]).toEqual([500, "mine-1"]);
  const said = server.logged.join("\n");
  expect(said).toContain("a defect");
  expect(said).toContain('"request_id":"mine-1"');
  expect(said).not.toContain("secret");
  expect(said).not.toContain(KEY);
});

test("a client's id is taken over only where it is harmless", async () => {
  const idOf = async (given: string) =>
    (await server.get("/health", { "x-request-id": given })).headers.get("x-request-id");
  expect(await idOf("trace-01.a:b_c")).toBe("trace-01.a:b_c");
  for (const bad of ["a b", 'x"y', "x".repeat(129), "\u00e9", "a=b"])
    expect(await idOf(bad)).toMatch(/^[0-9a-f-]{36}$/);
});

test("text lines quote what could look like another field; levels leave lines out", () => {
  const lines: string[] = [];
  const log = createLog("text", "warn", (line) => void lines.push(line));
  log("unseen");
  log("unseen", "debug");
  log("seen", "warn", { a: 1, b: 'x y="1"\n', none: null, path: "/v1/models/:model" });
  log("two\nlines", "error");
  expect(lines.map((line) => line.replace(/^\S+ /, ""))).toEqual([
    'warn seen a=1 b="x y=\\"1\\"\\n" path=/v1/models/:model\n',
    "error two\n  lines\n",
  ]);
});
