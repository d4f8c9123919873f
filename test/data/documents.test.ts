import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readDocuments } from "../../src/data/documents.ts";

let folder = "";
const put = (name: string, content: string | Uint8Array) => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "graft-data-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("readDocuments()", () => {
  test("a text file is one document, or several with <|endoftext|> lines between", () => {
    expect(readDocuments([put("one.txt", "a\n\nb\n")])).toEqual([{ text: "a\n\nb" }]);
    expect(readDocuments([put("two.txt", "a\n<|endoftext|>\n\n<|endoftext|>\nb\nc")])).toEqual([
      { text: "a" },
      { text: "b\nc" },
    ]);
  });

  test("json and jsonl hold strings or objects; entries without text are passed over", () => {
    expect(readDocuments([put("a.json", '["x", {"text": "y", "id": 1}, "", {"ids": [1, 2]}]')])).toEqual([
      { text: "x" },
      { text: "y" },
      { ids: [1, 2] },
    ]);
    expect(readDocuments([put("a.jsonl", '{"text":"p"}\r\n\n"q"\n{"ids":[3]}\n')])).toEqual([
      { text: "p" },
      { text: "q" },
      { ids: [3] },
    ]);
  });

  test("slices, folders and globs", () => {
    const path = put("many.json", JSON.stringify(["0", "1", "2", "3"]));
    expect(readDocuments([`${path}[1:3]`])).toEqual([{ text: "1" }, { text: "2" }]);
    expect(readDocuments([`${path}[:1]`, `${path}[3:]`])).toEqual([{ text: "0" }, { text: "3" }]);
    expect(() => readDocuments([`${path}[4:]`])).toThrow("it selects none of 4 documents");
    mkdirSync(join(folder, "sub/deep"), { recursive: true });
    put("sub/b.txt", "B");
    put("sub/deep/a.txt", "A");
    put("sub/notes.md", "not text");
    expect(readDocuments([join(folder, "sub")])).toEqual([{ text: "B" }, { text: "A" }]);
    expect(readDocuments([join(folder, "sub/**/*.txt")])).toEqual([{ text: "B" }, { text: "A" }]);
    expect(() => readDocuments([join(folder, "sub/*.jsonl")])).toThrow("no file matches");
  });

  test("names file and place of what it cannot read", () => {
    expect(() => readDocuments([put("bad.jsonl", '"ok"\n{')])).toThrow(
      /Cannot read ".*bad.jsonl" line 2: it is not JSON/,
    );
    expect(() => readDocuments([put("field.jsonl", '{"txt":"a"}')])).toThrow('line 1: it has neither "text" nor "ids"');
    expect(() => readDocuments([put("ids.jsonl", '{"ids":[1,-2]}')])).toThrow('line 1: "ids" holds something');
    expect(() => readDocuments([put("bad.json", '["a", 5]')])).toThrow("entry 1: expected a string or an object");
    expect(() => readDocuments([put("object.json", "{}")])).toThrow("expected an array of documents");
    expect(() => readDocuments([put("bytes.txt", Uint8Array.of(255, 254))])).toThrow("it is not UTF-8 text");
    expect(() => readDocuments([put("empty.txt", "\n")])).toThrow("it holds no text");
    expect(() => readDocuments([put("a.csv", "x")])).toThrow("unknown kind of file");
    expect(() => readDocuments([join(folder, "absent.txt")])).toThrow("no such file or folder");
  });
});
