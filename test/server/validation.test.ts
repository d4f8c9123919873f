// Bodies that are no requests, limits of lists, words of refusals; guards. Values of fields: field_tables.test.ts.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

let server: TestServer;
beforeAll(async () => {
  server = await testServer();
});
afterAll(() => server.dispose());

const layers = { name: "h", variant: "gla" };

test("messages say what was found and what was expected", async () => {
  const message = async (body: Record<string, unknown>) =>
    (await json<ErrorJson>(await server.send("POST", "/v1/completions", body))).error.message;
  expect(await message({ prompt: "x", temperature: 3 })).toBe(
    'Invalid "temperature": got 3, expected a number in [0, 2]',
  );
  expect(await message({ prompt: "x", n: 1.5 })).toBe('Invalid "n": got 1.5, expected a whole number in [1, 128]');
  expect(await message({})).toStartWith('Missing parameter "prompt": expected a text, a list of texts');
  expect(await message({ prompt: null })).toStartWith('Missing parameter "prompt"');
  expect(await message({ prompt: {} })).toStartWith('Invalid "prompt": got {}, expected a text');
  expect(await message({ prompt: "x", stop: ["a", ""] })).toStartWith('Invalid "stop"');
  expect(await message({ prompt: "x", stream: "yes" })).toBe('Invalid "stream": got "yes", expected true or false');
  expect(await message({ prompt: "x", max_tokens: "a".repeat(500) })).not.toContain("a".repeat(100));
});

test("lists have limits", async () => {
  const bodies: readonly Record<string, unknown>[] = [
    { prompt: "x", stop: Array.from({ length: 10_000 }, (_, i) => `s${i}`) },
    { prompt: Array.from({ length: 129 }, () => "x") },
    { prompt: ["x", "y"], n: 100 },
    { prompt: [] },
    { prompt: [[]] },
    { prompt: "" },
  ];
  for (const body of bodies) expect((await server.send("POST", "/v1/completions", body)).status).toBe(400);
  const messages = Array.from({ length: 100_000 }, () => ({ role: "user", content: "x" }));
  const many = await server.send("POST", "/v1/chat/completions", { messages });
  expect(many.status).toBe(413);
});

test("messages must be well formed", async () => {
  const bad: readonly unknown[] = [
    "x",
    [],
    [{ role: "robot", content: "x" }],
    [{ role: "user" }],
    [{ role: "user", content: [{ type: "image_url", image_url: { url: "http://x" } }] }],
    [{ role: "user", content: 5 }],
    ["x"],
  ];
  for (const messages of bad) {
    const response = await server.send("POST", "/v1/chat/completions", { messages });
    expect(response.status).toBe(400);
    expect((await json<ErrorJson>(response)).error.param).toStartWith("messages");
  }
});

test("bodies that are no JSON objects are refused", async () => {
  for (const body of ["{bad", "null", "[1]", '"x"', "5", ""]) {
    const response = await server.send("POST", "/v1/completions", body);
    expect(response.status).toBe(400);
    expect((await json<ErrorJson>(response)).error.type).toBe("invalid_request_error");
  }
  const invalid = await server.handle(
    new Request("http://localhost/v1/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: new Uint8Array([0x7b, 0xff, 0x7d]),
    }),
  );
  expect((await json<ErrorJson>(invalid)).error.code).toBe("invalid_utf8");
});

test("a lone surrogate and a null character in the prompt do no harm", async () => {
  for (const prompt of ['{"prompt":"\\ud800x"}', '{"prompt":"\\u0000"}']) {
    expect((await server.send("POST", "/v1/completions", prompt)).status).toBe(200);
  }
});

test("a body beyond the limit is 413, whatever its headers say", async () => {
  const small = await testServer({ maxBodyBytes: 1000 });
  try {
    const declared = await small.send("POST", "/v1/completions", { prompt: "x".repeat(2000) });
    expect(declared.status).toBe(413);
    const chunks = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let i = 0; i < 10; i++) controller.enqueue(new Uint8Array(500).fill(32));
        controller.close();
      },
    });
    const streamed = await small.handle(
      new Request("http://localhost/v1/completions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: chunks,
      }),
    );
    expect(streamed.status).toBe(413);
    expect((await json<ErrorJson>(streamed)).error.code).toBe("body_too_large");
  } finally {
    await small.dispose();
  }
});

test("an unknown route is 404 in the same form", async () => {
  const response = await server.get("/v1/nothing");
  expect(response.status).toBe(404);
  expect((await json<ErrorJson>(response)).error).toMatchObject({ code: "not_found", type: "not_found_error" });
});

test("a percent sign in an address is a character like others", async () => {
  for (const path of ["/v1/hybrids/%25", "/v1/hybrids/50%25/load", "/v1/hybrids/%2525/unload", "/v1/models/%25"]) {
    const response = await (/load$/.test(path) ? server.send("POST", path, {}) : server.get(path));
    expect([path, response.status]).toEqual([path, 404]);
  }
});

test("names cannot leave the store", async () => {
  const names = ["..", "../x", "a/b", "%2e%2e", "", "/etc/passwd", "x".repeat(4096), "é", "a\0b", "a:b"];
  for (const name of names) {
    const task = await server.send("POST", "/v1/tasks", { name, documents: [{ context: "a", completion: "b" }] });
    expect(task.status).toBe(400);
    const hybrid = await server.send("POST", "/v1/hybrids", { ...layers, name, replace: [0] });
    expect(hybrid.status).toBe(400);
    const model = await server.send("POST", "/v1/completions", { prompt: "x", model: name });
    expect([400, 404]).toContain(model.status);
  }
});

test("only this machine's names reach a loopback server", async () => {
  const get = (headers: Record<string, string>) => server.get("/v1/models", headers);
  expect((await get({ host: "evil.example" })).status).toBe(403);
  expect((await get({ host: "localhost:8000" })).status).toBe(200);
  expect((await get({ host: "127.0.0.1:8000" })).status).toBe(200);
  expect((await get({ host: "[::1]:8000" })).status).toBe(200);
  expect((await get({ host: "localhost", origin: "https://evil.example" })).status).toBe(403);
  expect((await get({ host: "localhost", origin: "null" })).status).toBe(403);
  expect((await get({ host: "localhost", origin: "http://localhost" })).status).toBe(200);
  // Another port is another site, with pages of its own.
  expect((await get({ host: "localhost", origin: "http://localhost:3000" })).status).toBe(403);
});

describe("API key", () => {
  let keyed: TestServer;
  beforeAll(async () => {
    keyed = await testServer({ apiKey: "sk-right" });
  });
  afterAll(() => keyed.dispose());

  test("every route but the probes needs it", async () => {
    const routes = keyed.app.routes.filter((route) => !["/health", "/ready"].includes(route.path));
    expect(routes.length).toBeGreaterThan(20);
    for (const { method, path } of routes) {
      const response = await keyed.send(method === "GET" ? "GET" : method, path.replaceAll(/:\w+/g, "x"), undefined);
      expect([method, path, response.status]).toEqual([method, path, 401]);
    }
    expect((await keyed.get("/health")).status).toBe(200);
    expect((await keyed.get("/ready")).status).toBe(200);
  });

  test("a wrong key, a part of it and none are refused, the right one works", async () => {
    const status = async (authorization: string) => (await keyed.get("/v1/models", { authorization })).status;
    for (const wrong of ["Bearer sk-wrong", "Bearer sk-righ", "Bearer sk-right2", "sk-right", "Basic sk-right", ""]) {
      expect(await status(wrong)).toBe(401);
    }
    expect(await status("Bearer sk-right")).toBe(200);
    expect(await status("bearer sk-right")).toBe(200);
  });
});

test("deep nesting is refused before anything takes time on it", async () => {
  const nested = (depth: number) =>
    `{"prompt":${"[".repeat(depth)}${"]".repeat(depth)},"note":"${"[".repeat(200)}\\""}`;
  const post = (text: string) => server.send("POST", "/v1/completions", text, { "content-type": "application/json" });
  for (const depth of [64, 1000, 20_000]) {
    const start = performance.now();
    const response = await post(nested(depth));
    expect(response.status).toBe(400);
    expect((await json<ErrorJson>(response)).error.code).toBe("invalid_json");
    expect(performance.now() - start).toBeLessThan(2000);
  }
  // Brackets inside a text are no nesting.
  const shallow = await post(nested(1));
  expect((await json<ErrorJson>(shallow)).error.code).not.toBe("invalid_json");
});
