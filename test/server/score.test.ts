// POST /v1/score over a fake engine, and the route that is refused as a whole.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

let server: TestServer;
beforeEach(async () => {
  server = await testServer();
});
afterEach(() => server.dispose());

interface Scores {
  object: string;
  model: string;
  data: { index: number; logprob: number; greedy: boolean; tokens: string[]; token_logprobs: number[] }[];
  usage: { prompt_tokens: number; total_tokens: number };
}

const post = (body: object) => server.send("POST", "/v1/score", body);
const refusal = async (body: object) => (await json<ErrorJson>(await post(body))).error;

test("continuations get their log-likelihood, their tokens' and whether greedy decoding writes them", async () => {
  const body = await json<Scores>(await post({ context: "ab ", continuations: ["c", "  "] }));
  // The context's last space goes in front of each continuation.
  expect(server.engine.scored.map(({ contextIds, continuationIds }) => [contextIds, continuationIds])).toEqual([
    [
      [97, 98],
      [32, 99],
    ],
    [
      [97, 98],
      [32, 32, 32],
    ],
  ]);
  expect(body).toMatchObject({ object: "list", model: "tiny", usage: { prompt_tokens: 7, total_tokens: 7 } });
  expect(body.data[0]).toEqual({
    index: 0,
    object: "score",
    logprob: -131 / 256,
    greedy: false,
    tokens: [" ", "c"],
    token_ids: [32, 99],
    token_logprobs: [-32 / 256, -99 / 256],
  } as never);
});

test("ids are taken as they are", async () => {
  const body = await json<Scores>(await post({ prompt: [7], continuations: [[7, 7], [9]] }));
  expect(body.data.map(({ greedy }) => greedy)).toEqual([true, false]);
});

test("an empty context begins with the token that begins a text", async () => {
  await post({ context: "", continuations: ["a"] });
  expect(server.engine.scored[0]).toMatchObject({ contextIds: [256], continuationIds: [97] });
});

test("what cannot be scored is refused by name", async () => {
  const cases: [object, string][] = [
    [{ continuations: ["a"] }, "context"],
    [{ context: "a", prompt: "b", continuations: ["a"] }, "prompt"],
    [{ context: "a" }, "continuations"],
    [{ context: "a", continuations: [] }, "continuations"],
    [{ context: "a", continuations: [""] }, "continuations"],
    [{ context: "a", continuations: Array(257).fill("x") }, "continuations"],
    [{ context: "a", continuations: [[1]] }, "continuations"],
    [{ context: [1], continuations: ["a"] }, "continuations"],
    [{ context: [257], continuations: [[1]] }, "context"],
    [{ context: [1], continuations: [[1], [300]] }, "continuations[1]"],
    [{ context: "a", continuations: ["b", "x".repeat(64)] }, "continuations[1]"],
  ];
  for (const [body, param] of cases) expect(await refusal(body)).toMatchObject({ param });
  expect((await post({ model: "other", context: "a", continuations: ["b"] })).status).toBe(404);
});

test("embeddings are refused with 501 in OpenAI's form", async () => {
  const response = await server.send("POST", "/v1/embeddings", { model: "tiny", input: "x" });
  expect(response.status).toBe(501);
  expect((await json<ErrorJson>(response)).error).toMatchObject({ type: "not_supported_error", code: "not_supported" });
});
