// Priorities and deadlines at the HTTP edge, over a fake engine.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { RequestError } from "../../src/errors.ts";
import { type ErrorJson, json, sseData, type TestServer, testServer } from "./support.ts";

let server: TestServer;
beforeEach(async () => {
  server = await testServer({ requestTimeoutMs: 60_000 });
});
afterEach(() => server.dispose());

const post = (body: object) => server.send("POST", "/v1/completions", { prompt: "x", ...body });
const deadline = { code: "deadline_exceeded", type: "timeout_error", param: "timeout_ms" };

test("priority and the shorter of both time limits reach the engine", async () => {
  await post({ priority: -3, timeout_ms: 5000 });
  await post({ timeout_ms: 86_400_000 });
  const [first, second] = server.engine.requests;
  expect(first).toMatchObject({ priority: -3 });
  expect(first?.deadlineMs).toBeWithin(4000, 5000.001);
  expect(second?.priority).toBe(0);
  expect(second?.deadlineMs).toBeWithin(59_000, 60_000.001);
});

test("a deadline that passes is 408, which clients do not repeat; within a stream it is an event", async () => {
  const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 0 };
  server.engine.generate = async function* () {
    yield { tokenIds: [97], finishReason: null, usage };
    await Bun.sleep(1);
    yield { tokenIds: [], finishReason: "deadline", usage };
  };
  const whole = await post({ timeout_ms: 1 });
  expect(whole.status).toBe(408);
  expect(whole.headers.get("x-should-retry")).toBe("false");
  expect((await json<ErrorJson>(whole)).error).toMatchObject(deadline);
  const data = await sseData(await post({ timeout_ms: 1, stream: true }));
  expect(data.at(-1)).toBe("[DONE]");
  expect((JSON.parse(data.at(-2)!) as ErrorJson).error).toMatchObject(deadline);
  expect(server.context.lifecycle.active).toBe(0);
});

test("a deadline that passes while a prompt is scored is 408 too", async () => {
  server.engine.score = async () => {
    throw new RequestError("deadline_exceeded", "The deadline has passed");
  };
  expect((await post({ prompt: "ab", echo: true, logprobs: 1, timeout_ms: 1 })).status).toBe(408);
  const scored = await server.send("POST", "/v1/score", { context: "a", continuations: ["b"], timeout_ms: 1 });
  expect((await json<ErrorJson>(scored)).error).toMatchObject(deadline);
});
