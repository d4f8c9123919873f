// What only the completions route has: echo with the prompt's log-probabilities, best_of, offsets, negative seeds.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { type ErrorJson, json, sseData, type TestServer, testServer } from "./support.ts";

let server: TestServer;
beforeEach(async () => {
  server = await testServer();
});
afterEach(() => server.dispose());

interface Logprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  text_offset: number[];
}

interface Completion {
  choices: { index: number; text: string; finish_reason: string | null; logprobs: Logprobs | null }[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
}

const post = (body: object) => server.send("POST", "/v1/completions", body);
const complete = async (body: object) => json<Completion>(await post(body));
const refusal = async (body: object) => (await json<ErrorJson>(await post(body))).error;

test("echo with logprobs scores the prompt; nothing stands before its first token", async () => {
  const result = await complete({ prompt: "ab", echo: true, logprobs: 0 });
  expect(result.choices[0]).toMatchObject({ text: "abba", finish_reason: "stop" });
  expect(result.choices[0]?.logprobs).toEqual({
    tokens: ["a", "b", "b", "a", "<eos>"],
    token_logprobs: [null, -98 / 256, -0.5, -0.5, -0.5],
    top_logprobs: [null, { b: -98 / 256 }, { b: -0.5 }, { a: -0.5 }, { "<eos>": -0.5 }],
    text_offset: [0, 1, 2, 3, 4],
  });
});

test("echo with several logprobs asks for the prompt's alternatives as well", async () => {
  const result = await complete({ prompt: "ab", echo: true, logprobs: 3, max_tokens: 0 });
  expect(server.engine.scored[0]).toMatchObject({ contextIds: [97], continuationIds: [98], topLogprobs: 3 });
  expect(result.choices[0]?.logprobs?.top_logprobs).toEqual([null, { a: -97 / 256, b: -98 / 256 }]);
});

test("max_tokens 0 with echo only scores: no sequence runs", async () => {
  const result = await complete({ prompt: ["ab", "c"], echo: true, logprobs: 0, max_tokens: 0 });
  expect(server.engine.requests).toEqual([]);
  expect(result.choices.map(({ text, finish_reason }) => [text, finish_reason])).toEqual([
    ["ab", "length"],
    ["c", "length"],
  ]);
  expect(result.choices[1]?.logprobs?.token_logprobs).toEqual([null]);
  expect(result.usage).toMatchObject({ prompt_tokens: 3, completion_tokens: 0, total_tokens: 3 });
  // Without a token to generate, the prompt may fill the context.
  expect((await post({ prompt: "x".repeat(64), echo: true, max_tokens: 0 })).status).toBe(200);
  expect(await refusal({ prompt: "x", max_tokens: 0 })).toMatchObject({ code: "invalid_value", param: "max_tokens" });
});

test("offsets count characters from the prompt's begin, streamed as whole", async () => {
  server.engine.reply = () => [...Buffer.from("é😀z")];
  const body = { prompt: "aé", echo: true, logprobs: 0, max_tokens: 20 };
  const whole = (await complete(body)).choices[0]!;
  // Bytes of one character begin where it begins.
  expect(whole.logprobs?.text_offset).toEqual([0, 1, 1, 2, 2, 3, 3, 3, 3, 4, 5]);
  const chunks = (await sseData(await post({ ...body, stream: true }))).slice(0, -1);
  const pieces = chunks.map((data) => (JSON.parse(data) as Completion).choices[0]!);
  expect(pieces.map((piece) => piece.text).join("")).toBe(whole.text);
  for (const list of ["tokens", "token_logprobs", "text_offset"] as const) {
    const joined: unknown[] = pieces.flatMap((piece): unknown[] => piece.logprobs?.[list] ?? []);
    expect(joined).toEqual(whole.logprobs![list] as unknown[]);
  }
});

test("best_of answers the choices with the best mean log-probability, best first", async () => {
  const means = [-3, -1, -2, -0.5];
  server.engine.generate = async function* (request) {
    const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 0 };
    const logprob = means[request.choice ?? 0]!;
    yield { tokenIds: [65 + (request.choice ?? 0)], logprobs: [logprob], finishReason: "length", usage };
  };
  const result = await complete({ prompt: ["x", "y"], n: 2, best_of: 4 });
  expect(result.choices.map(({ index, text, logprobs }) => [index, text, logprobs])).toEqual([
    [0, "D", null],
    [1, "B", null],
    [2, "D", null],
    [3, "B", null],
  ]);
  // Every token that was generated counts.
  expect(result.usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 8 });
});

test("best_of is at least n, and cannot be streamed", async () => {
  expect(await refusal({ prompt: "x", n: 3, best_of: 2 })).toMatchObject({ code: "invalid_value", param: "best_of" });
  expect(await refusal({ prompt: "x", best_of: 2, stream: true })).toMatchObject({ param: "best_of" });
  expect(await refusal({ prompt: Array(20).fill("x"), best_of: 10 })).toMatchObject({
    code: "too_many_choices",
    param: "best_of",
  });
  expect((await post({ prompt: "x", best_of: 1, stream: true })).status).toBe(200);
});

test("a negative seed is a seed of its own; one that JSON cannot carry exactly is refused", async () => {
  await post({ prompt: "x", seed: -1 });
  await post({ prompt: "x", seed: -Number.MAX_SAFE_INTEGER });
  expect(server.engine.requests.map((request) => request.sampling?.seed)).toEqual([Number.MAX_SAFE_INTEGER, 1]);
  expect(await refusal({ prompt: "x", seed: -(2 ** 63) })).toMatchObject({ param: "seed" });
});
