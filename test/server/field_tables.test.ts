// Every field of every route that takes a body, against values of every kind. The table is made from /openapi.json, so
// that a new field is in it by itself; an oracle of its own says which values fit.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { fits, type Schema } from "./schema_judge.ts";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

const VALUES: readonly unknown[] = [
  -1,
  0,
  1,
  0.5,
  2 ** 31,
  2 ** 53,
  1e308,
  "NaN",
  "",
  "x",
  "x".repeat(100_000),
  null,
  true,
  [],
  [null],
  {},
  { x: 1 },
];

/** The schema leaves these to the route: a value that fits is answered with this status all the same. */
type Further = (value: unknown) => number;

interface Route {
  /** A body that is right, with nested fields to be changed too. */
  readonly body: Readonly<Record<string, unknown>>;
  /** Values that fit are sent as well; else they would start work. */
  readonly runs: boolean;
  /** Fields that the schema leaves open and the route wants. */
  readonly needed?: readonly string[];
  /** By field: what is asked beyond the schema. */
  readonly further: Readonly<Record<string, Further>>;
}

const ok: Further = () => 200;
const only =
  (...neutral: readonly unknown[]): Further =>
  (value) =>
    neutral.some((one) => JSON.stringify(one) === JSON.stringify(value)) ? 200 : 400;
/** Longer than the context. */
const text: Further = (value) => (typeof value === "string" && value.length > 1000 ? 400 : 200);
/** Only messages with calls need none. */
const content: Further = (value) => (value === null ? 400 : text(value));
const model: Further = (value) => (value === "tiny" ? 200 : 404);
const positive: Further = (value) => (value === 0 ? 400 : 200);
const schema: Further = (value) => (typeof value === "boolean" || isObject(value) ? 200 : 400);
const regex: Further = (value) => (String(value).length > 20_000 ? 400 : 200);
const tokenKeys: Further = (value) => (JSON.stringify(value) === "{}" ? 200 : 400);
/** Arguments of a former call are JSON in a text. */
const jsonText: Further = (value) => (value === "" ? 200 : 400);

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const tool = { name: "f", description: "d", parameters: { type: "object" }, strict: true };
const call = { id: "c", type: "function", function: { name: "f", arguments: "{}" } };
const messages = [
  { role: "user", content: "hi", name: "n" },
  { role: "assistant", content: "x", tool_calls: [call] },
  { role: "tool", content: [{ type: "text", text: "r" }], tool_call_id: "c" },
];
const input = [
  { role: "user", content: [{ type: "input_text", text: "hi" }], type: "message" },
  { type: "function_call", call_id: "c", name: "f", arguments: "{}" },
  { type: "function_call_output", call_id: "c", output: "r" },
];

const ROUTES: Readonly<Record<string, Route>> = {
  "post /v1/completions": {
    body: { prompt: "x", stream_options: { include_usage: true } },
    runs: true,
    further: {
      model,
      prompt: (value) => (value === "" ? 400 : text(value)),
      max_tokens: positive,
      suffix: only(""),
      guided_json: schema,
      guided_regex: regex,
      logit_bias: tokenKeys,
    },
  },
  "post /v1/chat/completions": {
    body: {
      messages,
      logprobs: true,
      stream_options: { include_usage: true },
      tools: [{ type: "function", function: tool }],
    },
    runs: true,
    further: {
      model,
      "messages[0].content": content,
      "messages[1].content": text,
      "messages[2].content": content,
      "messages[2].content[0].text": text,
      "messages[1].tool_calls[0].function.arguments": jsonText,
      logprobs: ok,
      tool_choice: ok,
      tools: ok,
      "tools[0].function.description": text,
      // Not together with tools.
      guided_json: only(),
      guided_regex: only(),
      functions: only([]),
      function_call: only("none"),
      modalities: only(["text"]),
      audio: only(),
      prediction: only(),
      web_search_options: only(),
      logit_bias: tokenKeys,
    },
  },
  "post /v1/responses": {
    body: { input, instructions: "i", tools: [{ type: "function", ...tool }], text: { verbosity: "low" }, include: [] },
    runs: true,
    further: {
      model,
      input: text,
      instructions: text,
      "input[0].content": text,
      "input[0].content[0].text": text,
      "input[1].arguments": jsonText,
      "input[2].output": text,
      "tools[0].description": text,
      truncation: only("disabled"),
      background: only(false),
      previous_response_id: only(),
      conversation: only(),
      prompt: only(),
      logit_bias: tokenKeys,
    },
  },
  "post /v1/score": {
    needed: ["context"],
    body: { context: "x", continuations: ["y"] },
    runs: true,
    further: { model, context: text, prompt: only(), "continuations[0]": text },
  },
  "post /tokenize": {
    needed: ["prompt"],
    body: { prompt: "x" },
    runs: true,
    further: { model, prompt: text, content: only(), messages: only() },
  },
  "post /detokenize": {
    body: { tokens: [1] },
    runs: true,
    further: { model, "tokens[0]": (value) => (Number(value) > 256 ? 400 : 200) },
  },
  "post /v1/hybrids": { body: { name: "h", variant: "gla", replace: [0] }, runs: false, further: {} },
  "put /v1/hybrids/default": { body: { name: "h" }, runs: false, further: {} },
  "post /v1/hybrids/{name}/load": { body: {}, runs: false, further: {} },
  "post /v1/sessions": { body: { prompt: "x" }, runs: false, further: {} },
  "post /v1/tasks": { body: { name: "t", documents: [{ context: "a", completion: "b" }] }, runs: false, further: {} },
  "post /v1/searches": { body: { task: "t", variant: "gla" }, runs: false, further: {} },
  "post /v1/conversions": { body: { variant: "gla", data: ["package.json"] }, runs: false, further: {} },
};

/** The field that holds the prompt. */
const WHOLE: Readonly<Record<string, string>> = { "/v1/chat/completions": "messages", "/v1/responses": "input" };

let server: TestServer;
let schemas: Record<string, Schema>;
beforeAll(async () => {
  server = await testServer();
  (server.engine.info as { maxContext: number }).maxContext = 2000;
  server.engine.reply = () => [120];
  schemas = await bodySchemas();
});
afterAll(() => server.dispose());

async function bodySchemas(): Promise<Record<string, Schema>> {
  type Content = { requestBody?: { content: Record<string, { schema: Schema }> } };
  const document = await json<{ paths: Record<string, Record<string, Content>> }>(await server.get("/openapi.json"));
  const found: Record<string, Schema> = {};
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, { requestBody }] of Object.entries(methods)) {
      const schema = requestBody?.content["application/json"]?.schema;
      if (schema !== undefined) found[`${method} ${path}`] = schema;
    }
  }
  return found;
}

type Step = string | number;

/** Every field of the schema, and every field within those of the sample body. */
function fieldsOf(schema: Schema, body: object): Step[][] {
  const nested = (value: unknown, at: Step[]): Step[][] => {
    if (typeof value !== "object" || value === null || at.includes("parameters")) return [];
    const keys: Step[] = Array.isArray(value) ? [...value.keys()] : Object.keys(value);
    return keys.flatMap((key) => {
      const path = [...at, key];
      return [path, ...nested((value as Record<Step, unknown>)[key], path)];
    });
  };
  const alternatives = (schema.anyOf as Schema[] | undefined) ?? [schema];
  const own = alternatives.flatMap((one) => Object.keys((one.properties ?? {}) as object)).map((key) => [key]);
  return [...own, ...nested(body, []).filter((path) => path.length > 1)];
}

function changed(body: object, path: readonly Step[], value: unknown): Record<string, unknown> {
  const copy = structuredClone(body) as Record<string, unknown>;
  let at: Record<Step, unknown> = copy;
  for (const step of path.slice(0, -1)) at = at[step] as Record<Step, unknown>;
  at[path.at(-1)!] = value;
  return copy;
}

function nameOf(path: readonly Step[]): string {
  return path.map((step, i) => (typeof step === "number" ? `[${step}]` : i === 0 ? step : `.${step}`)).join("");
}

test("every route that takes a body is in the table", () => {
  expect(Object.keys(ROUTES).sort()).toEqual(Object.keys(schemas).sort());
});

describe("fields and values", () => {
  for (const [route, { body, runs, needed = [], further }] of Object.entries(ROUTES)) {
    test(route, async () => {
      const schema = schemas[route]!;
      const [method, path] = route.split(" ") as [string, string];
      const wrong: string[] = [];
      let cases = 0;
      for (const steps of fieldsOf(schema, body)) {
        const field = nameOf(steps);
        for (const value of VALUES) {
          const sent = changed(body, steps, value);
          const judged = { ...sent };
          // A field that is null was not given.
          for (const key of Object.keys(judged)) if (judged[key] === null) delete judged[key];
          const fitting = fits(schema, judged);
          if (fitting && !runs) continue;
          cases++;
          const absent = value === null && steps.length === 1;
          const rule = absent ? () => (needed.includes(field) ? 400 : 200) : (further[field] ?? ok);
          const expected = fitting ? rule(value) : 400;
          const response = await server.send(method.toUpperCase(), path, sent);
          const what = `${field} = ${JSON.stringify(value)?.slice(0, 40)}`;
          if (response.status !== expected) {
            wrong.push(`${what}: ${response.status}, expected ${expected}: ${(await response.text()).slice(0, 200)}`);
            continue;
          }
          if (expected === 200) {
            await response.text();
            continue;
          }
          const { error } = await json<ErrorJson>(response);
          // What is too long only together is named after the whole.
          const owner = error.code === "context_length_exceeded" ? WHOLE[path] : undefined;
          const named = error.param?.startsWith(owner ?? String(steps[0])) === true;
          if (!named) wrong.push(`${what}: param is ${error.param} (${error.message.slice(0, 120)})`);
          if (error.message.length > 1000) wrong.push(`${what}: a message of ${error.message.length} characters`);
        }
      }
      expect(wrong).toEqual([]);
      expect(cases).toBeGreaterThan(10);
    });
  }
});

test("the engine is left with nothing", () => {
  expect(server.engine.active).toBe(0);
  expect(server.context.lifecycle.active).toBe(0);
  expect(server.logged.filter((line) => !line.includes('"level":"info"'))).toEqual([]);
});
