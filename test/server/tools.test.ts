// Tools over a fake engine: what goes into the prompt, what comes out of the text, streamed and whole, and refusals.
import { afterEach, beforeEach, expect, test } from "bun:test";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import { type ErrorJson, json, sseData, type TestServer, testServer } from "./support.ts";

let server: TestServer;
beforeEach(async () => {
  server = await testServer();
  (server.engine.info as { maxContext: number }).maxContext = 4096;
});
afterEach(() => server.dispose());

interface Call {
  index?: number;
  id?: string;
  type?: string;
  function: { name?: string; arguments: string };
}

interface Chat {
  choices: {
    message: { content: string | null; tool_calls?: Call[] };
    delta: { content?: string; tool_calls?: Call[] };
    finish_reason: string | null;
  }[];
}

const weather = {
  type: "function",
  function: { name: "weather", description: "Of a city", parameters: { type: "object", properties: {} } },
};
const clock = { type: "function", function: { name: "clock" } };
const user = { role: "user", content: "hi" };
const CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rom"}}\n</tool_call>';

const post = (body: object) => server.send("POST", "/v1/chat/completions", { messages: [user], ...body });
const chat = async (body: object) => (await json<Chat>(await post(body))).choices[0]!;
const says = (text: string) => {
  server.engine.reply = () => [...Buffer.from(text)];
};
const promptOf = (at: number) => Buffer.from(server.engine.requests[at]!.promptIds as number[]).toString();

test("a call in the text becomes tool_calls and their finish reason", async () => {
  says(`I look.\n${CALL}`);
  const choice = await chat({ tools: [weather, clock] });
  expect(choice.finish_reason).toBe("tool_calls");
  expect(choice.message.content).toBe("I look.");
  expect(choice.message.tool_calls).toEqual([
    {
      id: expect.stringMatching(/^call_\w{24}$/),
      type: "function",
      function: { name: "weather", arguments: '{"city": "Rom"}' },
    },
  ] as never);
  says(CALL);
  expect((await chat({ tools: [weather] })).message.content).toBe(null);
  says("just words");
  expect(await chat({ tools: [weather] })).toMatchObject({ message: { content: "just words" }, finish_reason: "stop" });
  // Cut short, the call stands as far as it went.
  says(CALL);
  const cut = await chat({ tools: [weather], max_tokens: CALL.indexOf("Rom") });
  expect(cut).toMatchObject({ finish_reason: "length", message: { tool_calls: [{ function: { name: "weather" } }] } });
});

test("a stream names a call once, then brings its arguments in pieces", async () => {
  says(`Ok ${CALL}${CALL.replace("Rom", "Ulm")}`);
  const chunks = (await sseData(await post({ tools: [weather], stream: true }))).slice(0, -1);
  const choices = chunks.map((data) => (JSON.parse(data) as Chat).choices[0]!);
  expect(choices.map(({ delta }) => delta.content ?? "").join("")).toBe("Ok");
  const parts = choices.flatMap(({ delta }) => delta.tool_calls ?? []);
  for (const [index, city] of ["Rom", "Ulm"].entries()) {
    const own = parts.filter((part) => part.index === index);
    expect(own[0]).toMatchObject({ id: expect.any(String), type: "function", function: { name: "weather" } });
    expect(own.slice(1).every((part) => part.id === undefined && part.function.name === undefined)).toBe(true);
    expect(own.length).toBeGreaterThan(3);
    expect(own.map((part) => part.function.arguments).join("")).toBe(`{"city": "${city}"}`);
  }
  expect(choices.at(-1)?.finish_reason).toBe("tool_calls");
});

test("parallel_tool_calls false ends after one call and frees the sequence", async () => {
  says(CALL + CALL);
  const choice = await chat({ tools: [weather], parallel_tool_calls: false });
  expect(choice.finish_reason).toBe("tool_calls");
  expect(choice.message.tool_calls).toHaveLength(1);
  expect(server.engine).toMatchObject({ active: 0, cancelled: 1 });
});

test("without tools, or with tool_choice none, the text is text", async () => {
  says(CALL);
  expect((await chat({})).message.content).toBe(CALL);
  expect((await chat({ tools: [weather], tool_choice: "none" })).message).toMatchObject({ content: CALL });
  expect(promptOf(1)).toBe(promptOf(0));
});

test("a template that knows no tools gets them in the system message, and results as a user's", async () => {
  const messages = [
    { role: "system", content: "Be brief." },
    user,
    {
      role: "assistant",
      content: null,
      tool_calls: [{ id: "call_1", type: "function", function: { name: "weather", arguments: '{"city":"Rom"}' } }],
    },
    { role: "tool", tool_call_id: "call_1", content: "sunny" },
    { role: "tool", tool_call_id: "call_2", content: "noon" },
  ];
  await post({ messages, tools: [weather] });
  const prompt = promptOf(0);
  expect(prompt).toStartWith("system: Be brief.\n\n# Tools\n");
  expect(prompt).toContain(`<tools>\n${JSON.stringify(weather)}\n</tools>`);
  expect(prompt).toContain('assistant: <tool_call>\n{"name": "weather", "arguments": {"city":"Rom"}}\n</tool_call>\n');
  expect(prompt).toEndWith(
    "user: <tool_response>\nsunny\n</tool_response>\n<tool_response>\nnoon\n</tool_response>\n\nassistant:",
  );
});

test("a template that knows tools gets them as they are, arguments as objects", async () => {
  const source =
    "{% for tool in tools %}<{{ tool.function.name }}>{% endfor %}{% for m in messages %}[{{ m.role }}]{{ m.content }}" +
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments.city }}</tool_call>{% endfor %}{% endfor %}";
  (server.context.text as { template: ChatTemplate }).template = new ChatTemplate({ default: source });
  const call = { id: "c", type: "function", function: { name: "weather", arguments: '{"city":"Rom"}' } };
  const messages = [user, { role: "assistant", tool_calls: [call] }, { role: "tool", content: "sunny" }];
  await post({ messages, tools: [weather, clock] });
  expect(promptOf(0)).toBe("<weather><clock>[user]hi[assistant]<tool_call>Rom</tool_call>[tool]sunny");
});

test("tools that are wrong are refused by name", async () => {
  const call = (args: string) => [{ id: "c", type: "function", function: { name: "f", arguments: args } }];
  const cases: [object, string][] = [
    [{ tools: [weather, weather] }, "tools[1]"],
    [{ tools: [{ type: "function", function: { name: "a b" } }] }, "tools[0].function.name"],
    [{ tools: [{ type: "web_search" }] }, "tools[0]"],
    [{ tools: [{ type: "function", function: { name: "a", parameters: [] } }] }, "tools[0].function.parameters"],
    [{ tools: Array(129).fill(clock) }, "tools"],
    [{ tool_choice: "required" }, "tool_choice"],
    [{ tools: [clock], tool_choice: "always" }, "tool_choice"],
    [{ tools: [clock], tool_choice: { type: "function", function: { name: "weather" } } }, "tool_choice"],
    [{ tools: [clock], parallel_tool_calls: 1 }, "parallel_tool_calls"],
    [{ messages: [{ role: "user", tool_calls: call("{}"), content: "" }] }, "messages[0].tool_calls"],
    [
      { messages: [user, { role: "assistant", tool_calls: call("[1]") }] },
      "messages[1].tool_calls[0].function.arguments",
    ],
    [
      { messages: [user, { role: "assistant", tool_calls: call("{") }] },
      "messages[1].tool_calls[0].function.arguments",
    ],
    [{ messages: [user, { role: "assistant", content: null }] }, "messages[1].content"],
  ];
  for (const [body, param] of cases) {
    const response = await post(body);
    expect(response.status).toBe(400);
    expect((await json<ErrorJson>(response)).error.param).toStartWith(param);
  }
  expect(server.engine.requests).toEqual([]);
});

test("calls are constrained: from the first token where one is required, else once one begins", async () => {
  const named = { type: "function", function: { name: "clock" } };
  for (const tool_choice of ["auto", "required", named]) {
    expect((await post({ tools: [weather, clock], tool_choice })).status).toBe(200);
  }
  const constraints = server.engine.requests.map((request) => request.constraint);
  expect(constraints.every((constraint) => constraint !== undefined)).toBe(true);
  // What was compiled is kept, so that equal wishes are one object and others are not.
  expect(new Set(constraints).size).toBe(3);
});

test("parameters that cannot be followed are refused by name", async () => {
  const odd = { type: "function", function: { name: "odd", parameters: { type: "object", properties: { a: 5 } } } };
  const response = await post({ tools: [weather, odd] });
  expect(response.status).toBe(400);
  const { error } = await json<ErrorJson>(response);
  expect(error).toMatchObject({ code: "invalid_schema", param: "tools[1].function.parameters" });
  expect(error.message).toContain('"tools[1].function.parameters#/properties/a"');
  const both = await post({ tools: [weather], response_format: { type: "json_object" } });
  expect((await json<ErrorJson>(both)).error.param).toBe("response_format");
});
