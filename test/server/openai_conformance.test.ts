// The official openai package against a running server with the bundled model: every parameter, streaming and not,
// cancellation, error classes, responses, tools and JSON schemas.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { resolve } from "node:path";
import OpenAI, {
  APIConnectionError,
  APIError,
  APIUserAbortError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
} from "openai";
import { type ServeProcess, ServeSandbox } from "./serve_process.ts";
import { json } from "./support.ts";

const model = resolve(import.meta.dir, "../../models/tiny");
const LONG_MS = 60_000;
const KEY = "sk-conformance-user-key-0123456789";

interface Stats {
  active_requests: number;
  engine: { running: number; waiting: number };
}

const sandbox = new ServeSandbox();
let server: ServeProcess;
let client: OpenAI;

beforeAll(async () => {
  server = await sandbox.serve(model, ["--api-key", KEY]);
  client = connect({});
}, LONG_MS);
afterAll(() => sandbox.dispose());

function connect(options: { apiKey?: string; headers?: Record<string, string> }): OpenAI {
  const { apiKey = KEY, headers = {} } = options;
  return new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0, defaultHeaders: headers });
}

async function stats(): Promise<Stats> {
  return json<Stats>(await fetch(`${server.url}/v1/stats`, { headers: { authorization: `Bearer ${KEY}` } }));
}

/** Waits until nothing runs: what was cancelled has been freed. */
async function idle(): Promise<void> {
  for (const end = performance.now() + 5000; performance.now() < end; await Bun.sleep(5)) {
    const { active_requests, engine } = await stats();
    if (active_requests === 0 && engine.running === 0 && engine.waiting === 0) return;
  }
  throw new Error("The server still runs what was cancelled");
}

/** What a promise fails with. */
async function failure(promise: PromiseLike<unknown>): Promise<APIError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof APIError) return error;
    throw error;
  }
  throw new Error("This should have failed");
}

const base = { model: "tiny", prompt: "the cat", max_tokens: 8, seed: 1 } as const;
const messages = [{ role: "user" as const, content: "hello" }];
const chatBase = { model: "tiny", messages, max_completion_tokens: 8, seed: 1 } as const;

describe("completions", () => {
  test("every parameter is taken, alone and all at once, whole and streamed", async () => {
    const fields = {
      best_of: 2,
      echo: true,
      frequency_penalty: 0.5,
      presence_penalty: -0.5,
      logit_bias: { "5": -100 },
      logprobs: 2,
      n: 2,
      stop: ["zz", "qq"],
      temperature: 0.7,
      top_p: 0.9,
      user: "someone",
    };
    const extensions = { min_p: 0.01, top_k: 50, repetition_penalty: 1.1, priority: 1, timeout_ms: 30_000 };
    for (const [name, value] of Object.entries({ ...fields, ...extensions })) {
      const one = name === "n" || name === "best_of" ? { [name]: value } : { [name]: value, n: 1 };
      expect((await client.completions.create({ ...base, ...one })).choices.length).toBe(name === "n" ? 2 : 1);
    }
    const all = await client.completions.create({ ...base, ...fields, ...extensions });
    expect(all.choices.map(({ index }) => index)).toEqual([0, 1]);
    const { best_of: _, ...streamable } = fields;
    const stream = await client.completions.create({
      ...base,
      ...streamable,
      ...extensions,
      stream: true,
      stream_options: { include_usage: true },
    });
    const texts = ["", ""];
    let usage: OpenAI.CompletionUsage | undefined;
    for await (const chunk of stream) {
      for (const choice of chunk.choices) texts[choice.index] += choice.text;
      usage = chunk.usage ?? usage;
    }
    const whole = await client.completions.create({ ...base, ...streamable, ...extensions });
    expect(whole.choices.map(({ text }) => text)).toEqual(texts);
    expect(usage).toEqual(whole.usage!);
  });

  test("echo with logprobs scores the prompt as /v1/score does", async () => {
    const text = "the cat sat";
    const { choices } = await client.completions.create({
      model: "tiny",
      prompt: text,
      max_tokens: 0,
      echo: true,
      logprobs: 3,
    });
    const { tokens, token_logprobs, top_logprobs, text_offset } = choices[0]!.logprobs!;
    expect(choices[0]?.text).toBe(text);
    expect(token_logprobs?.[0] as number | null).toBe(null);
    expect(top_logprobs?.[0] as object | null).toBe(null);
    expect(text_offset?.at(-1)).toBe(text.length - tokens!.at(-1)!.length);
    const scored = await client.post<{ data: { token_logprobs: number[]; greedy: boolean }[] }>("/score", {
      body: { context: "", continuations: [text] },
    });
    expect(scored.data[0]?.token_logprobs).toEqual(token_logprobs!.slice(1) as number[]);
    for (const [i, top] of top_logprobs!.entries()) {
      if (i > 0) expect(Math.max(...Object.values(top))).toBeGreaterThanOrEqual(token_logprobs![i]!);
    }
  });

  test("a token that greedy decoding writes has, to the bit, the best log-probability of its place", async () => {
    const written = await client.completions.create({
      model: "tiny",
      prompt: "the cat",
      max_tokens: 6,
      temperature: 0,
    });
    const prompt = `the cat${written.choices[0]!.text}`;
    const scored = await client.completions.create({ model: "tiny", prompt, max_tokens: 0, echo: true, logprobs: 1 });
    const { token_logprobs, top_logprobs } = scored.choices[0]!.logprobs!;
    const best = top_logprobs!.slice(-6).map((top) => Math.max(...Object.values(top)));
    expect(token_logprobs!.slice(-6)).toEqual(best);
  });

  test("logit_bias bans and forces tokens", async () => {
    const { choices } = await client.completions.create({ ...base, temperature: 0, logit_bias: { "40": 100 } });
    const forced = await client.post<{ tokens: number[] }>(`${server.url}/tokenize`, {
      body: { prompt: choices[0]!.text, add_special_tokens: false },
    });
    expect(new Set(forced.tokens).size).toBe(1);
    const free = await client.completions.create({ ...base, temperature: 0, logprobs: 0 });
    const first = await client.post<{ tokens: number[] }>(`${server.url}/tokenize`, {
      body: { prompt: free.choices[0]!.text, add_special_tokens: false },
    });
    const banned = await client.completions.create({
      ...base,
      temperature: 0,
      logit_bias: { [first.tokens[0]!]: -100 },
    });
    expect(banned.choices[0]!.text).not.toStartWith(free.choices[0]!.logprobs!.tokens![0]!);
  });
});

describe("chat completions", () => {
  test("every parameter is taken, streamed as whole", async () => {
    const fields = {
      frequency_penalty: 0.5,
      presence_penalty: 0.5,
      logit_bias: { "5": -1 },
      logprobs: true,
      top_logprobs: 2,
      n: 2,
      stop: "zz",
      temperature: 0.8,
      top_p: 0.95,
      metadata: { a: "b" },
      store: false,
      user: "someone",
      service_tier: "auto" as const,
      response_format: { type: "text" as const },
      tool_choice: "none" as const,
      modalities: ["text" as const],
    };
    const whole = await client.chat.completions.create({ ...chatBase, ...fields });
    expect(whole.choices).toHaveLength(2);
    expect(whole.choices[0]?.logprobs?.content?.[0]?.top_logprobs).toHaveLength(2);
    const stream = client.chat.completions.stream({ ...chatBase, ...fields, stream_options: { include_usage: true } });
    const streamed = await stream.finalChatCompletion();
    expect(streamed.choices.map(({ message }) => message.content)).toEqual(
      whole.choices.map(({ message }) => message.content),
    );
    expect(streamed.usage?.total_tokens).toBe(whole.usage!.total_tokens);
  });
});

describe("tools", () => {
  const parameters = {
    type: "object",
    properties: { city: { enum: ["Rome", "Ulm"] }, days: { type: "integer", minimum: 1, maximum: 9 } },
    required: ["city", "days"],
    additionalProperties: false,
  };
  const weather = {
    type: "function" as const,
    function: { name: "weather", description: "Of a city", parameters, strict: true },
  };
  const asked = { model: "tiny", messages, seed: 3, max_completion_tokens: 120 } as const;
  const check = (call: { name: string; arguments: string }) => {
    expect(call.name).toBe("weather");
    const args = JSON.parse(call.arguments) as { city: string; days: number };
    expect(["Rome", "Ulm"]).toContain(args.city);
    expect(args.days).toBeWithin(1, 10);
  };

  test("a named tool is called with arguments that fit, streamed as whole", async () => {
    // Short, as the bundled model's context is.
    const short = {
      type: "function" as const,
      function: { name: "f", parameters: { properties: { a: { enum: [1, 2] } }, required: ["a"], type: "object" } },
    };
    const body = {
      ...asked,
      tools: [short],
      tool_choice: { type: "function" as const, function: { name: "f" } },
    };
    const whole = await client.chat.completions.create(body);
    expect(whole.choices[0]?.finish_reason).toBe("tool_calls");
    const call = whole.choices[0]!.message.tool_calls![0]!;
    if (call.type !== "function") throw new Error("This should be a function call");
    expect([1, 2]).toContain((JSON.parse(call.function.arguments) as { a: number }).a);
    const streamed = await client.chat.completions.stream(body).finalChatCompletion();
    expect(streamed.choices[0]?.message.tool_calls?.[0]).toMatchObject({ function: call.function });
    // The call goes back in with its result.
    const result = { role: "tool" as const, tool_call_id: call.id, content: "ok" };
    const next = { model: "tiny", messages: [...messages, whole.choices[0]!.message, result], tools: [short] };
    const { usage } = await client.chat.completions.create({ ...next, max_completion_tokens: 1 });
    expect(usage!.prompt_tokens).toBeGreaterThan(whole.usage!.prompt_tokens);
  });

  test("required with one call at most", async () => {
    const body = {
      ...asked,
      tools: [weather],
      tool_choice: "required" as const,
      parallel_tool_calls: false,
    };
    const { choices } = await client.chat.completions.create(body);
    expect(choices[0]?.message.tool_calls).toHaveLength(1);
    expect(choices[0]?.message.content).toBe(null);
  });

  test("auto and none are taken; wrong tools have their error class", async () => {
    for (const tool_choice of ["auto", "none"] as const) {
      const { choices } = await client.chat.completions.create({ ...asked, tools: [weather], tool_choice });
      expect(choices).toHaveLength(1);
    }
    expect(await failure(client.chat.completions.create({ ...asked, tool_choice: "required" }))).toBeInstanceOf(
      BadRequestError,
    );
  });

  test("the client's runTools() finds its function", async () => {
    const seen: unknown[] = [];
    const run = (args: string) => {
      seen.push(JSON.parse(args));
      return "sunny";
    };
    const runner = client.chat.completions.runTools(
      {
        ...asked,
        tools: [{ ...weather, function: { ...weather.function, function: run } }],
        tool_choice: "required",
        parallel_tool_calls: false,
      },
      { maxChatCompletions: 1 },
    );
    await runner.done();
    expect(seen.length).toBeGreaterThan(0);
  });

  test("a response calls its tool, streamed as whole", async () => {
    const tool = { type: "function" as const, name: "weather", parameters, strict: true };
    const body = {
      model: "tiny",
      input: "hello",
      tools: [tool],
      tool_choice: "required" as const,
      max_output_tokens: 120,
      ...{ seed: 3 },
    };
    const whole = await client.responses.create(body);
    const call = whole.output.find((item) => item.type === "function_call");
    check(call!);
    const streamed = await client.responses.stream(body).finalResponse();
    expect(streamed.output.find((item) => item.type === "function_call")?.arguments).toBe(call!.arguments);
  });
});

describe("JSON schemas", () => {
  const schema = {
    type: "object",
    properties: { name: { type: "string", maxLength: 8 }, count: { type: "integer", minimum: 0, maximum: 99 } },
    required: ["name", "count"],
    additionalProperties: false,
  };

  test("chat.completions.parse() gets an object that fits", async () => {
    const completion = await client.chat.completions.parse({
      model: "tiny",
      messages,
      seed: 5,
      max_completion_tokens: 200,
      response_format: { type: "json_schema", json_schema: { name: "thing", schema, strict: true } },
    });
    const thing = JSON.parse(completion.choices[0]!.message.content!) as { name: string; count: number };
    expect(Object.keys(thing).sort()).toEqual(["count", "name"]);
    expect(thing.count).toBeWithin(0, 100);
  });

  test("any JSON object, and the text format of responses", async () => {
    const free = await client.chat.completions.create({
      ...chatBase,
      max_completion_tokens: 300,
      temperature: 0,
      response_format: { type: "json_object" },
    });
    const { content } = free.choices[0]!.message;
    if (free.choices[0]!.finish_reason === "stop") expect(JSON.parse(content!)).toBeObject();
    else expect(content).toStartWith("{");
    const response = await client.responses.create({
      model: "tiny",
      input: "hello",
      max_output_tokens: 200,
      text: { format: { type: "json_schema", name: "thing", schema, strict: true } },
    });
    expect(Object.keys(JSON.parse(response.output_text) as object).sort()).toEqual(["count", "name"]);
  });
});

describe("cancellation", () => {
  const long = { model: "tiny", max_tokens: 400, ignore_eos: true } as const;

  test("an aborted stream frees its sequences", async () => {
    const stream = await client.completions.create({ ...long, prompt: "the", n: 3, stream: true });
    for await (const _ of stream) break;
    stream.controller.abort();
    await idle();
  });

  test("an aborted whole request frees its sequences", async () => {
    const leave = new AbortController();
    const pending = client.chat.completions.create(
      { model: "tiny", messages, n: 8, max_completion_tokens: 300, logit_bias: { "1": -100 } },
      { signal: leave.signal },
    );
    const failed = failure(pending);
    while ((await stats()).engine.running === 0) await Bun.sleep(1);
    leave.abort();
    expect(await failed).toBeInstanceOf(APIUserAbortError);
    await idle();
  });

  test("a deadline ends a request with 408 and frees it", async () => {
    const error = await failure(client.completions.create({ ...long, prompt: "the", n: 8, ...{ timeout_ms: 1 } }));
    expect(error).toMatchObject({ status: 408, code: "deadline_exceeded", type: "timeout_error" });
    await idle();
  });
});

describe("errors", () => {
  test("each has its class, code and field", async () => {
    const bad = await failure(client.completions.create({ ...base, temperature: 9 }));
    expect(bad).toBeInstanceOf(BadRequestError);
    expect(bad).toMatchObject({ param: "temperature", code: "invalid_value", type: "invalid_request_error" });
    expect(await failure(client.completions.create({ ...base, suffix: "x" }))).toMatchObject({ param: "suffix" });
    expect(await failure(client.completions.create({ ...base, model: "other" }))).toBeInstanceOf(NotFoundError);
    expect(await failure(client.models.retrieve("other"))).toBeInstanceOf(NotFoundError);
    expect(await failure(connect({ apiKey: "sk-wrong" }).models.list())).toBeInstanceOf(AuthenticationError);
    const evil = connect({ headers: { origin: "https://evil.example" } });
    expect(await failure(evil.models.list())).toBeInstanceOf(PermissionDeniedError);
    const embeddings = await failure(client.embeddings.create({ model: "tiny", input: "x" }));
    expect(embeddings).toBeInstanceOf(InternalServerError);
    expect(embeddings).toMatchObject({ status: 501, type: "not_supported_error" });
    const nowhere = new OpenAI({ baseURL: "http://127.0.0.1:9/v1", apiKey: "x", maxRetries: 0 });
    expect(await failure(nowhere.models.list())).toBeInstanceOf(APIConnectionError);
  });

  test(
    "a full queue is a RateLimitError with Retry-After",
    async () => {
      const other = new ServeSandbox();
      try {
        const small = await other.serve(model, ["--max-sequences", "1", "--max-waiting", "1"]);
        const busy = new OpenAI({ baseURL: `${small.url}/v1`, apiKey: "none", maxRetries: 0 });
        const error = await failure(
          busy.completions.create({ ...base, n: 8, max_tokens: 400, ...{ ignore_eos: true } }),
        );
        expect(error).toBeInstanceOf(RateLimitError);
        expect(error.headers?.get("retry-after")).toBe("1");
      } finally {
        await other.dispose();
      }
    },
    LONG_MS,
  );
});

describe("responses", () => {
  test("whole and streamed say the same", async () => {
    const body = { model: "tiny", instructions: "be kind", input: "hello", max_output_tokens: 12, temperature: 0 };
    const whole = await client.responses.create(body);
    expect(whole.object).toBe("response");
    expect(["completed", "incomplete"]).toContain(whole.status!);
    const stream = client.responses.stream(body);
    const seen = new Set<string>();
    for await (const event of stream) seen.add(event.type);
    const final = await stream.finalResponse();
    expect(final.output_text).toBe(whole.output_text);
    expect(final.usage).toMatchObject({ output_tokens: whole.usage!.output_tokens });
    expect(seen).toContain("response.output_text.delta");
  });

  test("what needs a memory is refused", async () => {
    const error = await failure(client.responses.create({ model: "tiny", input: "x", previous_response_id: "resp_1" }));
    expect(error).toBeInstanceOf(BadRequestError);
    expect(error).toMatchObject({ param: "previous_response_id", code: "unsupported_parameter" });
    expect(await failure(client.responses.retrieve("resp_1"))).toBeInstanceOf(NotFoundError);
  });
});
