// response_format and its like at the HTTP edge: fields, refusals, bombs, and a served model whose answers all match.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import OpenAI from "openai";
import { validates } from "../grammar/validator.ts";
import { type ServeProcess, ServeSandbox } from "./serve_process.ts";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

const SCHEMA = {
  type: "object",
  properties: {
    city: { type: "string", maxLength: 20 },
    sunny: { type: "boolean" },
    degrees: { type: "integer", minimum: -40, maximum: 50 },
  },
  required: ["city", "sunny", "degrees"],
  additionalProperties: false,
};
const FORMAT = { type: "json_schema", json_schema: { name: "weather", schema: SCHEMA, strict: true } } as const;
const chat = { messages: [{ role: "user", content: "x" }] };

describe("fields", () => {
  let server: TestServer;
  beforeEach(async () => {
    server = await testServer();
  });
  afterEach(() => server.dispose());

  test("every spelling reaches the engine as a grammar", async () => {
    const spellings: [string, object][] = [
      ["/v1/chat/completions", { ...chat, response_format: FORMAT }],
      ["/v1/completions", { prompt: "x", response_format: FORMAT }],
      ["/v1/responses", { input: "x", text: { format: { type: "json_schema", name: "weather", schema: SCHEMA } } }],
      ["/v1/completions", { prompt: "x", structured_outputs: { json: SCHEMA } }],
      ["/v1/completions", { prompt: "x", guided_json: JSON.stringify(SCHEMA) }],
    ];
    for (const [path, body] of spellings) expect((await server.send("POST", path, body)).status).toBe(200);
    const keys = server.engine.requests.map(({ constraint }) => (constraint as { key: string }).key);
    expect(keys).toHaveLength(spellings.length);
    expect(new Set(keys).size).toBe(1);
    const others: object[] = [
      { structured_outputs: { regex: "[ab]+" } },
      { guided_regex: "[ab]+" },
      { structured_outputs: { choice: ["a", "b"] } },
      { guided_choice: ["a", "b"] },
      { structured_outputs: { json_object: true } },
      { response_format: { type: "json_object" } },
    ];
    for (const body of others) await server.send("POST", "/v1/completions", { prompt: "x", ...body });
    const more = server.engine.requests
      .slice(spellings.length)
      .map(({ constraint }) => (constraint as { key: string }).key);
    expect(more.map((key) => more.indexOf(key))).toEqual([0, 0, 2, 2, 4, 4]);
  });

  test("plain text needs no grammar", async () => {
    await server.send("POST", "/v1/chat/completions", { ...chat, response_format: { type: "text" } });
    expect(server.engine.requests[0]).not.toHaveProperty("constraint");
  });

  test("what is wrong is named, and the engine never hears of it", async () => {
    const wrong: [object, string, string][] = [
      [{ response_format: { type: "json" } }, "response_format", "invalid_value"],
      [{ response_format: { type: "json_schema" } }, "response_format", "invalid_value"],
      [
        { response_format: { type: "json_schema", json_schema: { name: "x", schema: { not: {} } } } },
        "response_format",
        "invalid_schema",
      ],
      [{ structured_outputs: { json: "{" } }, "structured_outputs.json", "invalid_value"],
      [{ structured_outputs: { grammar: "x" } }, "structured_outputs.grammar", "unknown_parameter"],
      [{ guided_regex: "(?=a)" }, "guided_regex", "invalid_schema"],
      [{ guided_regex: "a", guided_choice: ["b"] }, "guided_regex", "invalid_value"],
    ];
    for (const [body, param, code] of wrong) {
      const response = await server.send("POST", "/v1/completions", { prompt: "x", ...body });
      expect(response.status).toBe(400);
      expect((await json<ErrorJson>(response)).error).toMatchObject({ param, code });
    }
    expect(server.engine.requests).toEqual([]);
  });

  test("a model without tokenizer follows no grammar", async () => {
    const bare = await testServer({ withoutTokenizer: true });
    const response = await bare.send("POST", "/v1/completions", { prompt: [1], guided_choice: ["a"] });
    expect((await json<ErrorJson>(response)).error.code).toBe("no_tokenizer");
    await bare.dispose();
  });
});

/** Schemas and patterns made to break servers. */
const BOMBS: Readonly<Record<string, object>> = {
  "exponential automaton": { guided_regex: `(a|b)*a${"(a|b)".repeat(30)}` },
  "nested repetition": { guided_regex: "((((a{1,99}){1,99}){1,99}){1,99}){1,99}" },
  "huge repetition": { guided_regex: "(ab){100000}" },
  "a schema that is its own beginning": { guided_json: { $ref: "#" } },
  "endless recursion": { guided_json: { type: "object", properties: { a: { $ref: "#" } }, required: ["a"] } },
  combinations: {
    guided_json: {
      allOf: Array.from({ length: 12 }, (_, i) => ({ anyOf: [{ minimum: i }, { maximum: i }, { type: "string" }] })),
    },
  },
  "deep nesting": {
    guided_json: JSON.stringify(Array.from({ length: 5000 }).reduce((inner: object) => ({ items: inner }), {})),
  },
  "a long string": { guided_json: { type: "string", maxLength: 10 ** 9 } },
  "many optional properties": {
    guided_json: {
      properties: Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`p${i}`, { type: "string" }])),
    },
  },
};

describe("graft serve tiny", () => {
  const sandbox = new ServeSandbox();
  let server: ServeProcess;
  let client: OpenAI;
  beforeAll(async () => {
    server = await sandbox.serve(join(import.meta.dir, "..", "..", "models", "tiny"));
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
  }, 60_000);
  afterAll(() => sandbox.dispose());

  test("answers match the schema at temperature 1, whole and streamed", async () => {
    const request = {
      model: "tiny",
      messages: [{ role: "user" as const, content: "How is the weather?" }],
      response_format: FORMAT,
      temperature: 1,
    };
    const whole = await client.chat.completions.create({ ...request, n: 16, seed: 1 });
    expect(whole.choices.map((choice) => choice.finish_reason)).toEqual(Array(16).fill("stop"));
    for (const { message } of whole.choices) expect(validates(SCHEMA, JSON.parse(message.content!))).toBe(true);
    expect(new Set(whole.choices.map(({ message }) => message.content)).size).toBeGreaterThan(4);
    const stream = await client.chat.completions.create({ ...request, seed: 2, stream: true });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
    expect(validates(SCHEMA, JSON.parse(text))).toBe(true);
    const completion = await client.completions.create({
      model: "tiny",
      prompt: "Tom",
      max_tokens: 100,
      response_format: FORMAT,
    } as never);
    expect(validates(SCHEMA, JSON.parse((completion as OpenAI.Completion).choices[0]!.text))).toBe(true);
  }, 60_000);

  test("bombs are refused in time, and a stream beside them goes on", async () => {
    const stream = await client.completions.create({
      model: "tiny",
      prompt: "Once",
      max_tokens: 400,
      stream: true,
      ignore_eos: true,
    } as never);
    let events = 0;
    const reading = (async () => {
      for await (const _ of stream as unknown as AsyncIterable<unknown>) events++;
    })();
    for (const [name, bomb] of Object.entries(BOMBS)) {
      const started = performance.now();
      const response = await fetch(`${server.url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "tiny", prompt: "x", max_tokens: 4, ...bomb }),
      });
      const { error } = await json<ErrorJson>(response);
      expect([name, response.status, error.code]).toEqual([name, 400, "invalid_schema"]);
      expect([name, performance.now() - started < 2000]).toEqual([name, true]);
    }
    await reading;
    expect(events).toBeGreaterThan(350);
  }, 60_000);

  test("ten thousand constants work", async () => {
    const names = Array.from({ length: 10_000 }, (_, i) => `constant number ${i * 7919}`);
    const response = await client.completions.create({
      model: "tiny",
      prompt: "x",
      max_tokens: 60,
      guided_json: { enum: names },
    } as never);
    expect(names).toContain(JSON.parse((response as OpenAI.Completion).choices[0]!.text));
  }, 60_000);
});
