// Calls of tools read out of text: every way to cut the text into pieces says the same, and what is no call stays text.
import { describe, expect, test } from "bun:test";
import { ToolCallParser, type ToolCallPart } from "../../src/text/tool_call_parser.ts";
import { callText, type ToolFormat, toolFormatOf } from "../../src/text/tool_format.ts";

const HERMES = toolFormatOf("{{ tools }}<tool_call>");
const LLAMA3 = toolFormatOf('{{ tools }} ipython {"name": function name, "parameters": ...}');
const names = new Set(["weather", 'say "hi"']);

interface Read {
  text: string;
  calls: { name: string; arguments: string }[];
  completed: number;
}

function read(format: ToolFormat, pieces: readonly string[]): Read {
  const parser = new ToolCallParser(format, names);
  let text = "";
  const calls: { name: string; arguments: string }[] = [];
  const take = (parts: readonly ToolCallPart[]) => {
    for (const part of parts) {
      expect(part.index).toBe(part.name === undefined ? calls.length - 1 : calls.length);
      if (part.name === undefined) calls.at(-1)!.arguments += part.arguments;
      else calls.push({ name: part.name, arguments: part.arguments });
    }
  };
  for (const [i, piece] of pieces.entries()) {
    const found = parser.push(piece, i === pieces.length - 1);
    text += found.text;
    take(found.calls);
  }
  return { text, calls, completed: parser.completed };
}

/** The same whole, in two pieces cut anywhere, and letter by letter. */
function readEveryWay(format: ToolFormat, text: string): Read {
  const whole = read(format, [text]);
  for (let cut = 0; cut <= text.length; cut++) {
    expect(read(format, [text.slice(0, cut), text.slice(cut)])).toEqual(whole);
  }
  expect(read(format, [...text, ""])).toEqual(whole);
  return whole;
}

const call = (args: string, name = "weather") => callText(HERMES, name, args);

describe("Hermes calls", () => {
  test("a call, text before it, two calls", () => {
    expect(readEveryWay(HERMES, call('{"city": "Rom"}'))).toEqual({
      text: "",
      calls: [{ name: "weather", arguments: '{"city": "Rom"}' }],
      completed: 1,
    });
    const two = readEveryWay(HERMES, `I look.\n${call('{"a": {"b": [1, "}"]}}')}\n${call("{}", 'say "hi"')}\n`);
    expect(two).toEqual({
      text: "I look.",
      calls: [
        { name: "weather", arguments: '{"a": {"b": [1, "}"]}}' },
        { name: 'say "hi"', arguments: "{}" },
      ],
      completed: 2,
    });
  });

  test("tags and quotes inside of a text argument do not end it", () => {
    const args = String.raw`{"city": "a</tool_call> \" } \\"}`;
    expect(readEveryWay(HERMES, call(args)).calls).toEqual([{ name: "weather", arguments: args }]);
  });

  test("keys in another order, arguments as a text, none at all", () => {
    const wrap = (json: string) => `<tool_call>${json}</tool_call>`;
    const swapped = readEveryWay(HERMES, wrap('{"arguments": {"x": 1}, "name": "weather"}'));
    expect(swapped.calls).toEqual([{ name: "weather", arguments: '{"x":1}' }]);
    const text = readEveryWay(HERMES, wrap(String.raw`{"name": "weather", "arguments": "{\"x\": 1}"}`));
    expect(text.calls).toEqual([{ name: "weather", arguments: '{"x": 1}' }]);
    expect(readEveryWay(HERMES, wrap('{"name": "weather"}')).calls).toEqual([{ name: "weather", arguments: "{}" }]);
  });

  test("what is no call stays text, to the letter", () => {
    const texts = [
      " plain \n",
      "a < b <tool",
      "x <tool_call>no json</tool_call> y",
      '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
      '<tool_call>{"name": 5, "arguments": {}}</tool_call>!',
      '<tool_call>{"name": "weather" "arguments"}</tool_call>',
      "  <tool_call>",
      '<tool_call>{"na',
      "<tool_call><tool_call>",
    ];
    for (const text of texts) expect(readEveryWay(HERMES, text)).toEqual({ text, calls: [], completed: 0 });
  });

  test("a call that breaks off stands as far as it went; a missing end tag does not matter", () => {
    const cut = readEveryWay(HERMES, '<tool_call>\n{"name": "weather", "arguments": {"city": "R');
    expect(cut).toEqual({ text: "", calls: [{ name: "weather", arguments: '{"city": "R' }], completed: 0 });
    const open = readEveryWay(HERMES, '<tool_call>\n{"name": "weather", "arguments": {}} Good.');
    expect(open).toEqual({ text: "Good.", calls: [{ name: "weather", arguments: "{}" }], completed: 1 });
  });

  test("arguments are passed on as they come", () => {
    const parser = new ToolCallParser(HERMES, names);
    const parts = ['<tool_call>\n{"name": "weather", "argu', 'ments": {"ci', 'ty": "R', '"}', "}\n</tool_call>"];
    expect(parts.map((part) => parser.push(part).calls)).toEqual([
      [],
      [{ index: 0, name: "weather", arguments: '{"ci' }],
      [{ index: 0, arguments: 'ty": "R' }],
      [{ index: 0, arguments: '"}' }],
      [],
    ]);
  });
});

describe("Llama 3 calls", () => {
  test("bare JSON at the begin is a call, also several of them", () => {
    const one = callText(LLAMA3, "weather", '{"city": "Rom"}');
    expect(one).toBe('{"name": "weather", "parameters": {"city": "Rom"}}');
    expect(readEveryWay(LLAMA3, `\n${one}`).calls).toEqual([{ name: "weather", arguments: '{"city": "Rom"}' }]);
    expect(readEveryWay(LLAMA3, `${one}; ${one}`)).toMatchObject({ text: "", completed: 2 });
  });

  test("JSON after words, or of another shape, is text", () => {
    const texts = ['Here: {"name": "weather", "parameters": {}}', '{"temperature": 5}\nis it', "no", '{"name": "we'];
    for (const text of texts) expect(readEveryWay(LLAMA3, text)).toEqual({ text, calls: [], completed: 0 });
  });
});

test("a template that knows no tools, or another form, gets the form of our own", () => {
  expect(HERMES).toMatchObject({ name: "hermes", native: true });
  expect(LLAMA3).toMatchObject({ name: "llama3", native: true });
  for (const template of [null, "{{ messages }}", "{{ tools }}[TOOL_CALLS]", "{{ tools }}<tool_call><function=x>"]) {
    expect(toolFormatOf(template)).toMatchObject({ name: "hermes", native: false });
  }
});
