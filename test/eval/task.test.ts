import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { codePoints, parseTask, readTaskFile, taskNameOf } from "../../src/eval/task.ts";

const choice = '{"id":"a","context":"One","choices":["x","y"],"gold":1}';
const parse = (text: string) => parseTask(text, "t.jsonl", "t");

describe("parseTask()", () => {
  test("reads multiple-choice documents; an id may be absent and gold may be the choice's text", () => {
    const task = parse(`${choice}\r\n\n{"context":"Two\\n","choices":["p",""," q"],"gold":" q","note":"kept out"}\n`);
    expect(task).toEqual({
      name: "t",
      kind: "choice",
      form: "text",
      documents: [
        { id: "a", line: 1, context: { text: "One" }, choices: [{ text: "x" }, { text: "y" }], gold: 1 },
        {
          id: "3",
          line: 3,
          context: { text: "Two\n" },
          choices: [{ text: "p" }, { text: "" }, { text: " q" }],
          gold: 2,
        },
      ],
    });
  });

  test("reads completions and token ids", () => {
    expect(parse('{"context":"ab","completion":"c"}').documents).toEqual([
      { id: "1", line: 1, context: { text: "ab" }, completion: { text: "c" } },
    ]);
    expect(parse('{"id":7,"context_ids":[0,1],"choices_ids":[[1],[2,0]],"gold":0}')).toMatchObject({
      kind: "choice",
      form: "ids",
      documents: [{ id: "7", context: { ids: [0, 1] }, choices: [{ ids: [1] }, { ids: [2, 0] }], gold: 0 }],
    });
    expect(parse('{"context_ids":[0],"completion_ids":[2]}')).toMatchObject({ kind: "completion", form: "ids" });
  });

  test("splits at line feeds alone", () => {
    const context = "a\u0085b\u2028c\u2029d\u000be";
    const task = parse(JSON.stringify({ context, completion: "x" }).replaceAll("\\u000b", "\\u000b"));
    expect(task.documents[0]?.context).toEqual({ text: context });
  });

  const broken: [string, string][] = [
    ["{", "it is not JSON"],
    ["[1]", "it is an array, expected an object"],
    ["null", "it is null, expected an object"],
    ['{"choices":["x","y"],"gold":0}', '"context" is missing'],
    ['{"context":"a","gold":0}', '"choices" (or "completion") is missing'],
    ['{"context":"a","context_ids":[1],"completion":"x"}', 'both "context" and "context_ids" are given'],
    ['{"context":"a","completion":"x","choices":["x","y"],"gold":0}', 'both "choices" and "completion" are given'],
    ['{"context":"a","completion_ids":[1]}', '"completion_ids" does not go with "context"'],
    ['{"context_ids":[1],"choices":["x","y"],"gold":0}', '"choices" does not go with "context_ids"'],
    ['{"context":3,"completion":"x"}', '"context" is a number, expected a string'],
    ['{"context":"a","completion":""}', '"completion" is empty'],
    ['{"context":"a","completion":"\\ud800"}', '"completion" holds half of a surrogate pair'],
    ['{"context":"a","completion":"x","gold":0}', '"gold" does not go with "completion"'],
    ['{"context":"a","choices":"xy","gold":0}', '"choices" is a string, expected an array'],
    ['{"context":"a","choices":["x"],"gold":0}', '"choices" has 1 entries, expected 2 to 256'],
    ['{"context":"a","choices":["x",2],"gold":0}', '"choices[1]" is a number, expected a string'],
    ['{"context":"a","choices":["x","y"]}', '"gold" is missing'],
    ['{"context":"a","choices":["x","y"],"gold":2}', '"gold" is 2, expected an index 0 to 1'],
    ['{"context":"a","choices":["x","y"],"gold":0.5}', '"gold" is 0.5, expected an index 0 to 1'],
    ['{"context":"a","choices":["x","y"],"gold":"z"}', '"gold" is "z", which is none of the choices'],
    ['{"context_ids":[],"completion_ids":[1]}', '"context_ids" is empty'],
    ['{"context_ids":[-1],"completion_ids":[1]}', '"context_ids[0]" is -1, expected a token id'],
    ['{"context_ids":[1],"completion_ids":["1"]}', '"completion_ids[0]" is "1", expected a token id'],
    ['{"id":true,"context":"a","completion":"x"}', '"id" is a boolean, expected a string or a number'],
    ['{"id":"","context":"a","completion":"x"}', '"id" has 0 characters'],
    [choice, '"id" is "a", already used on line 1'],
    [
      '{"context":"a","completion":"x"}',
      "it is a completion (text) document, expected multiple-choice (text) as on line 1",
    ],
  ];
  test.each(broken)("refuses %s", (line, message) => {
    const text = line.includes('"completion') && !message.includes("as on line 1") ? line : `${choice}\n${line}`;
    const at = text === line ? 1 : 2;
    expect(() => parse(text)).toThrow(`Cannot read task "t.jsonl" line ${at}: ${message}`);
  });

  test("refuses a file without documents", () => {
    expect(() => parse("\n \n")).toThrow("it holds no document");
  });
});

describe("readTaskFile()", () => {
  test("names the file in its errors and strips a byte-order mark", () => {
    const folder = mkdtempSync(join(tmpdir(), "graft-task-"));
    try {
      const path = join(folder, "mark.jsonl");
      writeFileSync(path, `\ufeff${choice}\n`);
      expect(readTaskFile(path)).toMatchObject({ name: "mark", kind: "choice" });
      writeFileSync(path, Buffer.from([0x7b, 0xff, 0x7d]));
      expect(() => readTaskFile(path)).toThrow(`Cannot read task "${path}": it is not UTF-8 text`);
      expect(() => readTaskFile(join(folder, "absent.jsonl"))).toThrow("no such file");
      expect(() => readTaskFile(folder)).toThrow(`Cannot read task "${folder}"`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

test("taskNameOf() takes the folder's name where the file only says which part it is", () => {
  expect(taskNameOf("/x/story_cloze/search.jsonl")).toBe("story_cloze");
  expect(taskNameOf("recall.jsonl")).toBe("recall");
  expect(taskNameOf("search.jsonl")).toBe("search");
});

test("codePoints() counts characters outside the basic plane once", () => {
  expect(codePoints("aé😀\u0301")).toBe(4);
});
