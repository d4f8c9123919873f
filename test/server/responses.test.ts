// POST /v1/responses over a fake engine: items in and out, the order of events, what needs a memory is refused.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { type ErrorJson, json, type TestServer, testServer } from "./support.ts";

let server: TestServer;
beforeEach(async () => {
  server = await testServer();
  (server.engine.info as { maxContext: number }).maxContext = 4096;
});
afterEach(() => server.dispose());

interface Item {
  id: string;
  type: string;
  status: string;
  content?: { type: string; text: string; logprobs: unknown[] }[];
  name?: string;
  arguments?: string;
  call_id?: string;
}

interface ResponseJson {
  id: string;
  status: string;
  error: { code: string } | null;
  incomplete_details: { reason: string } | null;
  output: Item[];
  usage: object | null;
}

interface Event {
  type: string;
  sequence_number: number;
  delta?: string;
  item?: Item;
  text?: string;
  arguments?: string;
  code?: string;
  response?: ResponseJson;
}

const weather = { type: "function", name: "weather", parameters: { type: "object" }, strict: null, description: null };
const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rom"}}\n</tool_call>';
const post = (body: object) => server.send("POST", "/v1/responses", { input: "hi", ...body });
const respond = async (body: object) => json<ResponseJson>(await post(body));
const says = (text: string) => {
  server.engine.reply = () => [...Buffer.from(text)];
};

/** The events; each one's name on the wire is its type, and they are numbered. */
async function eventsOf(response: Response): Promise<Event[]> {
  const blocks = (await response.text()).split("\n\n").filter((block) => block !== "");
  return blocks.map((block, i) => {
    const [name, data] = block.split("\n");
    const event = JSON.parse(data!.slice("data: ".length)) as Event;
    expect(name).toBe(`event: ${event.type}`);
    expect(event.sequence_number).toBe(i);
    return event;
  });
}

test("a response holds a message with its text, and what was asked", async () => {
  says("ok");
  const body = await respond({
    instructions: "Be brief.",
    metadata: { a: "b" },
    temperature: 0.5,
    max_output_tokens: 9,
  });
  expect(body).toMatchObject({
    object: "response",
    status: "completed",
    error: null,
    incomplete_details: null,
    instructions: "Be brief.",
    metadata: { a: "b" },
    temperature: 0.5,
    max_output_tokens: 9,
    store: false,
    previous_response_id: null,
    model: "tiny",
    usage: { output_tokens: 3, output_tokens_details: { reasoning_tokens: 0 } },
  });
  expect(body.id).toStartWith("resp_");
  expect(body.output).toEqual([
    {
      id: expect.stringMatching(/^msg_/),
      type: "message",
      status: "completed",
      role: "assistant",
      content: [{ type: "output_text", text: "ok", annotations: [], logprobs: [] }],
    },
  ] as never);
  const prompt = Buffer.from(server.engine.requests[0]!.promptIds as number[]).toString();
  expect(prompt).toBe("system: Be brief.\n\nuser: hi\n\nassistant:");
});

test("a text cut by max_output_tokens is incomplete", async () => {
  says("long text");
  const body = await respond({ max_output_tokens: 4 });
  expect(body).toMatchObject({ status: "incomplete", incomplete_details: { reason: "max_output_tokens" } });
  expect(body.output[0]).toMatchObject({ status: "incomplete", content: [{ text: "long" }] });
});

test("calls become items, and go back in with their results", async () => {
  says(`I look.${CALL}`);
  const first = await respond({ tools: [weather] });
  expect(first.output.map(({ type, status }) => [type, status])).toEqual([
    ["message", "completed"],
    ["function_call", "completed"],
  ]);
  expect(first.output[1]).toMatchObject({ name: "weather", arguments: '{"city": "Rom"}' });
  const result = { type: "function_call_output", call_id: first.output[1]!.call_id, output: "sunny" };
  const input = [{ role: "user", content: [{ type: "input_text", text: "hi" }] }, ...first.output, result];
  expect((await post({ input, tools: [weather] })).status).toBe(200);
  const prompt = Buffer.from(server.engine.requests[1]!.promptIds as number[]).toString();
  expect(prompt).toContain('assistant: I look.\n<tool_call>\n{"name": "weather", "arguments": {"city":"Rom"}}\n');
  expect(prompt).toEndWith("user: <tool_response>\nsunny\n</tool_response>\n\nassistant:");
});

test("a stream tells of every item from its begin to its end, in numbered events", async () => {
  says(`Ok${CALL}`);
  const events = await eventsOf(await post({ tools: [weather], stream: true }));
  const kinds = events.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1]);
  expect(kinds).toEqual([
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "response.completed",
  ]);
  const joined = (type: string) => events.map((event) => (event.type === type ? event.delta : "")).join("");
  expect(joined("response.output_text.delta")).toBe("Ok");
  expect(joined("response.function_call_arguments.delta")).toBe('{"city": "Rom"}');
  expect(events[0]?.response).toMatchObject({ status: "in_progress", output: [], usage: null });
  expect(events.find((event) => event.type === "response.output_item.added")?.item).toMatchObject({ content: [] });
  expect(events.at(-1)?.response).toMatchObject({
    status: "completed",
    output: [{ type: "message" }, { name: "weather" }],
  });
});

test("an empty answer is an empty message", async () => {
  says("");
  expect((await respond({})).output).toMatchObject([{ content: [{ text: "" }] }]);
});

test("log-probabilities come where they are asked for", async () => {
  says("A");
  const body = await respond({ include: ["message.output_text.logprobs"], top_logprobs: 1 });
  const entry = { token: "A", logprob: -0.5, bytes: [65] };
  expect(body.output[0]?.content?.[0]?.logprobs).toEqual([{ ...entry, top_logprobs: [entry] }]);
});

test("a failure within the stream is response.failed, then an error event", async () => {
  server.engine.generate = async function* () {
    yield { tokenIds: [97], finishReason: null, usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 } };
    throw new Error("secret");
  };
  const events = await eventsOf(await post({ stream: true }));
  expect(events.slice(-2)).toMatchObject([
    { type: "response.failed", response: { status: "failed", error: { code: "internal_error" } } },
    { type: "error", code: "internal_error" },
  ]);
});

test("what needs former responses, and what is unknown, is refused by name", async () => {
  const cases: [object, string][] = [
    [{ previous_response_id: "resp_1" }, "previous_response_id"],
    [{ conversation: "conv_1" }, "conversation"],
    [{ background: true }, "background"],
    [{ truncation: "auto" }, "truncation"],
    [{ tools: [{ type: "web_search" }] }, "tools[0]"],
    [{ tool_choice: { type: "function", name: "weather" } }, "tool_choice"],
    [{ input: [] }, "input"],
    [{ input: [{ type: "item_reference", id: "x" }] }, "input"],
    [{ input: [{ role: "user", content: [{ type: "input_image", image_url: "x" }] }] }, "input"],
    [{ n: 2 }, "n"],
    [{ include: ["file_search_call.results"] }, "include[0]"],
    [{ max_output_tokens: 0 }, "max_output_tokens"],
  ];
  for (const [body, param] of cases) {
    const response = await post(body);
    expect([param, response.status]).toEqual([param, 400]);
    expect((await json<ErrorJson>(response)).error.param).toStartWith(param);
  }
  const neutral = { truncation: "disabled", background: false, store: true, previous_response_id: null, reasoning: {} };
  expect((await post(neutral)).status).toBe(200);
});

test("a stream that the server itself ends early has failed, not completed", async () => {
  const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 0 };
  server.engine.generate = async function* () {
    yield { tokenIds: [97], finishReason: null, usage };
    yield { tokenIds: [], finishReason: "cancelled", usage };
  };
  const types = (await eventsOf(await post({ stream: true }))).map(({ type }) => type);
  expect(types).toContain("response.output_text.delta");
  expect(types.slice(-2)).toEqual(["response.failed", "error"]);
});
