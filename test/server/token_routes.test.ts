// /tokenize and /detokenize over a tokenizer of single bytes: texts, conversations, what is refused.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { EOS, type ErrorJson, json, type TestServer, testServer } from "./support.ts";

let server: TestServer;
beforeAll(async () => {
  server = await testServer();
});
afterAll(() => server.dispose());

interface Tokens {
  tokens: number[];
  count: number;
  max_model_len: number;
  token_strs?: string[];
}

const tokenize = (body: object) => server.send("POST", "/tokenize", body);
const textOf = ({ tokens }: Tokens) => Buffer.from(tokens).toString();

test("a text, by either of its names", async () => {
  for (const field of ["prompt", "content"]) {
    expect(await json<Tokens>(await tokenize({ [field]: "ab" }))).toEqual({
      tokens: [97, 98],
      count: 2,
      max_model_len: 64,
    });
  }
  const named = await json<Tokens>(await tokenize({ prompt: "a<eos>", return_token_strs: true }));
  expect(named).toMatchObject({ tokens: [97, EOS], token_strs: ["a", "<eos>"] });
});

test("a conversation is what a chat would feed", async () => {
  const messages = [{ role: "user", content: "hi" }];
  expect(textOf(await json<Tokens>(await tokenize({ messages })))).toBe("user: hi\n\nassistant:");
  expect(textOf(await json<Tokens>(await tokenize({ messages, add_generation_prompt: false })))).toBe("user: hi\n\n");
  await server.send("POST", "/v1/chat/completions", { messages });
  expect((await json<Tokens>(await tokenize({ messages }))).tokens).toEqual([...server.engine.requests[0]!.promptIds]);
});

test("one of text and conversation, and one at all", async () => {
  const cases: [object, string][] = [
    [{}, "prompt"],
    [{ prompt: "a", content: "b" }, "content"],
    [{ prompt: "a", messages: [{ role: "user", content: "x" }] }, "messages"],
    [{ messages: [{ role: "user" }] }, "messages[0].content"],
  ];
  for (const [body, param] of cases) {
    const response = await tokenize(body);
    expect(response.status).toBe(400);
    expect((await json<ErrorJson>(response)).error.param).toBe(param);
  }
});

test("ids become text again", async () => {
  const post = (body: object) => server.send("POST", "/detokenize", body);
  expect(await json<object>(await post({ tokens: [97, EOS] }))).toEqual({ prompt: "a<eos>" });
  expect(await json<object>(await post({ tokens: [97, EOS], skip_special_tokens: true }))).toEqual({ prompt: "a" });
  expect((await json<ErrorJson>(await post({ tokens: [97, 257] }))).error.param).toBe("tokens[1]");
});
