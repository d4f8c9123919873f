// The two OpenAI routes over a fake engine: shapes, streaming, stops, logprobs, cancel.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { EOS, type ErrorJson, json, sseData, type TestServer, testServer } from "./support.ts";

let server: TestServer;
beforeEach(async () => {
  server = await testServer();
});
afterEach(() => server.dispose());

interface Completion {
  id: string;
  object: string;
  model: string;
  choices: { index: number; text: string; finish_reason: string; logprobs: unknown; token_ids?: number[] }[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
}

interface Chunk {
  object: string;
  choices: { index: number; delta: { role?: string; content?: string }; finish_reason: string | null }[];
  usage?: { completion_tokens: number } | null;
}

test("a completion has text, finish reason and usage", async () => {
  const response = await server.send("POST", "/v1/completions", { model: "tiny", prompt: "abc" });
  expect(response.status).toBe(200);
  const body = await json<Completion>(response);
  expect(body.id).toStartWith("cmpl-");
  expect(body.object).toBe("text_completion");
  expect(body.choices).toEqual([{ index: 0, text: "cba", logprobs: null, finish_reason: "stop" }]);
  // The end token is generated, though not shown.
  expect(body.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 });
});

test("max_tokens ends with length; 16 without it", async () => {
  server.engine.reply = () => Array.from({ length: 40 }, () => 97);
  const two = await json<Completion>(await server.send("POST", "/v1/completions", { prompt: "x", max_tokens: 2 }));
  expect(two.choices[0]).toMatchObject({ text: "aa", finish_reason: "length" });
  const rest = await json<Completion>(await server.send("POST", "/v1/completions", { prompt: "x" }));
  expect(rest.choices[0]?.text).toBe("a".repeat(16));
});

test("a list of prompts and n give choices in order, prompts count once", async () => {
  const body = { prompt: ["ab", "cde"], n: 2, seed: 5 };
  const result = await json<Completion>(await server.send("POST", "/v1/completions", body));
  expect(result.choices.map(({ index, text }) => [index, text])).toEqual([
    [0, "ba"],
    [1, "ba"],
    [2, "edc"],
    [3, "edc"],
  ]);
  expect(result.usage.prompt_tokens).toBe(5);
  expect(server.engine.requests.map((request) => [request.choice, request.sampling?.seed])).toEqual([
    [0, 5],
    [1, 5],
    [0, 5],
    [1, 5],
  ]);
});

test("token ids are taken as they are, alone and in lists", async () => {
  await server.send("POST", "/v1/completions", { prompt: [104, 105] });
  await server.send("POST", "/v1/completions", { prompt: [[1, 2], [3]] });
  expect(server.engine.requests.map((request) => [...request.promptIds])).toEqual([[104, 105], [1, 2], [3]]);
  const wrong = await server.send("POST", "/v1/completions", { prompt: [257] });
  expect(wrong.status).toBe(400);
  expect((await json<ErrorJson>(wrong)).error).toMatchObject({
    param: "prompt",
    message: "Token id 257 is not in [0, 256]",
  });
});

test("a stop string cuts the text before it and cancels the sequence", async () => {
  server.engine.reply = () => [...Buffer.from("one END two")];
  const body = { prompt: "x", stop: ["END", "zzz"], max_tokens: 40 };
  const result = await json<Completion>(await server.send("POST", "/v1/completions", body));
  expect(result.choices[0]).toMatchObject({ text: "one ", finish_reason: "stop" });
  expect(server.engine).toMatchObject({ active: 0, cancelled: 1 });
});

test("a character of several bytes comes whole", async () => {
  server.engine.reply = () => [...Buffer.from("aé€😀")];
  const response = await server.send("POST", "/v1/completions", { prompt: "x", max_tokens: 40, stream: true });
  const texts = (await sseData(response)).slice(0, -1).map((data) => (JSON.parse(data) as Completion).choices[0]?.text);
  expect(texts.filter((text) => text !== "")).toEqual(["a", "é", "€", "😀"]);
});

test("echo puts the prompt in front, streamed or not", async () => {
  const whole = await json<Completion>(await server.send("POST", "/v1/completions", { prompt: "abc", echo: true }));
  expect(whole.choices[0]?.text).toBe("abccba");
  const response = await server.send("POST", "/v1/completions", { prompt: [97, 98], echo: true, stream: true });
  const texts = (await sseData(response)).slice(0, -1).map((data) => (JSON.parse(data) as Completion).choices[0]?.text);
  expect(texts.join("")).toBe("abba");
});

test("logprobs of a completion are parallel lists", async () => {
  const result = await json<Completion>(await server.send("POST", "/v1/completions", { prompt: "ab", logprobs: 2 }));
  expect(result.choices[0]?.logprobs).toEqual({
    tokens: ["b", "a", "<eos>"],
    token_logprobs: [-0.5, -0.5, -0.5],
    top_logprobs: [
      { b: -0.5, c: -1.5 },
      { a: -0.5, b: -1.5 },
      { "<eos>": -0.5, "\u0000": -0.5, "\u0001": -1.5 },
    ],
    text_offset: [0, 1, 2],
  });
});

test("logprobs of a chat answer carry bytes and alternatives", async () => {
  server.engine.reply = () => [65];
  const body = { messages: [{ role: "user", content: "hi" }], logprobs: true, top_logprobs: 1 };
  const result = await json<{ choices: { logprobs: unknown }[] }>(
    await server.send("POST", "/v1/chat/completions", body),
  );
  const entry = { token: "A", logprob: -0.5, bytes: [65] };
  expect(result.choices[0]?.logprobs).toEqual({ content: [{ ...entry, top_logprobs: [entry] }], refusal: null });
});

test("sampling fields reach the engine; the defaults are OpenAI's", async () => {
  const fields = { temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.1, seed: 9, stop_token_ids: [3] };
  await server.send("POST", "/v1/completions", { prompt: "a", ...fields });
  await server.send("POST", "/v1/completions", { prompt: "a", seed: 1, ignore_eos: true, top_k: -1 });
  const adjusted = { presence_penalty: 1, frequency_penalty: -2, repetition_penalty: 1.5, logit_bias: { "5": -100 } };
  await server.send("POST", "/v1/completions", { prompt: "a", ...adjusted });
  expect(server.engine.requests[0]).toMatchObject({
    hybrid: "base",
    sampling: { temperature: 0.5, topP: 0.9, topK: 40, minP: 0.1, seed: 9 },
    stopIds: [EOS, 3],
  });
  expect(server.engine.requests[1]).toMatchObject({
    sampling: { temperature: 1, topP: 1, topK: 0, minP: 0, seed: 1 },
    stopIds: [],
  });
  expect(server.engine.requests[2]?.sampling).toMatchObject({
    presencePenalty: 1,
    frequencyPenalty: -2,
    repetitionPenalty: 1.5,
    logitBias: [[5, -100]],
  });
});

test("a logit_bias is an object of ids of the vocabulary", async () => {
  const wrong = [
    { "257": 1 },
    { "-1": 1 },
    { "1.5": 1 },
    { "01": 1 },
    { a: 1 },
    { "": 1 },
    { 1: 101 },
    { 1: "1" },
    [],
    5,
  ];
  const many = Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [i, 0]));
  for (const logit_bias of [...wrong, many]) {
    const response = await server.send("POST", "/v1/completions", { prompt: "a", logit_bias });
    expect(response.status).toBe(400);
    expect((await json<ErrorJson>(response)).error.param).toStartWith("logit_bias");
  }
  expect((await server.send("POST", "/v1/completions", { prompt: "a", logit_bias: {} })).status).toBe(200);
});

test("a chat answer comes from the template's text", async () => {
  server.engine.reply = () => [...Buffer.from("ok")];
  const messages = [
    { role: "system", content: "s" },
    { role: "user", content: [{ type: "text", text: "h" }] },
  ];
  const response = await server.send("POST", "/v1/chat/completions", { model: "tiny:base", messages });
  expect(await json(response)).toMatchObject({
    object: "chat.completion",
    model: "tiny:base",
    choices: [{ index: 0, message: { role: "assistant", content: "ok" }, finish_reason: "stop" }],
  });
  const prompt = Buffer.from(server.engine.requests[0]!.promptIds as number[]).toString();
  expect(prompt).toBe("system: s\n\nuser: h\n\nassistant:");
});

test("a streamed chat answer opens with the role, ends with usage and [DONE]", async () => {
  server.engine.reply = () => [...Buffer.from("hey")];
  const body = { messages: [{ role: "user", content: "x" }], stream: true, stream_options: { include_usage: true } };
  const response = await server.send("POST", "/v1/chat/completions", body);
  expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
  const data = await sseData(response);
  expect(data.at(-1)).toBe("[DONE]");
  const chunks = data.slice(0, -1).map((line) => JSON.parse(line) as Chunk);
  expect(new Set(chunks.map((chunk) => chunk.object))).toEqual(new Set(["chat.completion.chunk"]));
  expect(chunks[0]?.choices[0]?.delta).toEqual({ role: "assistant", content: "" });
  expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe("hey");
  expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe("stop");
  expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 4 } });
  expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true);
});

test("a reader that leaves a stream cancels its sequence", async () => {
  server.engine.reply = () => Array.from({ length: 30 }, () => 97);
  server.engine.holdAfter = 2;
  const response = await server.send("POST", "/v1/completions", { prompt: "x", max_tokens: 30, stream: true });
  const reader = response.body!.getReader();
  await reader.read();
  expect(server.engine.active).toBe(1);
  await reader.cancel();
  expect(server.engine).toMatchObject({ active: 0, cancelled: 1 });
  expect(server.context.lifecycle.active).toBe(0);
});

test("a reader that leaves before its first token cancels every choice", async () => {
  server.engine.holdAfter = 0;
  const leave = new AbortController();
  const pending = server.handle(
    new Request("http://localhost/v1/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "x", n: 3 }),
      signal: leave.signal,
    }),
  );
  while (server.engine.active < 3) await Bun.sleep(1);
  leave.abort();
  await pending;
  expect(server.engine).toMatchObject({ active: 0, cancelled: 3 });
  expect(server.context.lifecycle.active).toBe(0);
});

test("a full engine is 429 with Retry-After, streamed or not", async () => {
  server.engine.full = true;
  for (const stream of [false, true]) {
    const response = await server.send("POST", "/v1/completions", { prompt: "x", stream });
    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe("1");
    expect((await json<ErrorJson>(response)).error).toMatchObject({
      type: "rate_limit_error",
      code: "rate_limit_exceeded",
    });
  }
  expect(server.context.lifecycle.active).toBe(0);
});

test("a failure after the first byte is an event, then the stream ends", async () => {
  server.engine.generate = async function* () {
    yield { tokenIds: [97], finishReason: null, usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 } };
    throw new Error("secret detail 0xdeadbeef");
  };
  const response = await server.send("POST", "/v1/completions", { prompt: "x", stream: true });
  expect(response.status).toBe(200);
  const data = await sseData(response);
  expect(data.at(-1)).toBe("[DONE]");
  expect((JSON.parse(data.at(-2)!) as ErrorJson).error).toMatchObject({ type: "server_error", code: "internal_error" });
  expect(data.join("\n")).not.toContain("deadbeef");
  expect(server.logged.join("\n")).toContain("deadbeef");
});

test("a prompt that fills the context is refused before the engine", async () => {
  const response = await server.send("POST", "/v1/completions", { prompt: "x".repeat(64) });
  expect(response.status).toBe(400);
  expect((await json<ErrorJson>(response)).error.code).toBe("context_length_exceeded");
  const absurd = await server.send("POST", "/v1/completions", { prompt: "x".repeat(100_000) });
  expect((await json<ErrorJson>(absurd)).error.code).toBe("context_length_exceeded");
  expect(server.engine.requests).toEqual([]);
});

test("unsupported fields are refused by name, neutral and harmless ones are taken", async () => {
  const chat = { messages: [{ role: "user", content: "x" }] };
  const refused: [string, Record<string, unknown>][] = [
    ["/v1/completions", { prompt: "x", suffix: "y" }],
    ["/v1/chat/completions", { ...chat, audio: {} }],
  ];
  for (const [path, body] of refused) {
    const response = await server.send("POST", path, body);
    expect(response.status).toBe(400);
    const { error } = await json<ErrorJson>(response);
    expect(error.code).toBe("unsupported_parameter");
    expect(Object.keys(body)).toContain(error.param!);
  }
  const harmless = {
    ...chat,
    user: "u",
    metadata: { a: "b" },
    store: false,
    tools: [],
    tool_choice: "auto",
    response_format: { type: "text" },
    presence_penalty: 0,
    frequency_penalty: null,
  };
  expect((await server.send("POST", "/v1/chat/completions", harmless)).status).toBe(200);
});

test("an unknown field and an unknown model are named", async () => {
  const field = await server.send("POST", "/v1/completions", { prompt: "x", temprature: 1 });
  expect((await json<ErrorJson>(field)).error).toMatchObject({ code: "unknown_parameter", param: "temprature" });
  const model = await server.send("POST", "/v1/completions", { prompt: "x", model: "gpt-9" });
  expect(model.status).toBe(404);
  expect((await json<ErrorJson>(model)).error).toEqual({
    message: 'The model "gpt-9" is not served here; served: tiny, tiny:base',
    type: "not_found_error",
    param: "model",
    code: "model_not_found",
  });
});

test("a model without a tokenizer speaks ids", async () => {
  const ids = await testServer({ withoutTokenizer: true });
  try {
    const text = await ids.send("POST", "/v1/completions", { prompt: "x" });
    expect((await json<ErrorJson>(text)).error.code).toBe("no_tokenizer");
    const result = await json<Completion>(await ids.send("POST", "/v1/completions", { prompt: [1, 2, 3] }));
    expect(result.choices[0]).toMatchObject({ text: "", token_ids: [3, 2, 1], finish_reason: "stop" });
    const chat = await ids.send("POST", "/v1/chat/completions", { messages: [{ role: "user", content: "x" }] });
    expect(chat.status).toBe(400);
  } finally {
    await ids.dispose();
  }
});
