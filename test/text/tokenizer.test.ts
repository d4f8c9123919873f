import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CheckpointError } from "../../src/errors.ts";
import { Detokenizer } from "../../src/text/detokenizer.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { dataDir, skipReason } from "./support.ts";

interface Case {
  text: string;
  ids: number[];
  decoded: string;
}

for (const name of ["gpt2", "qwen2"]) {
  const directory = join(dataDir, "tokenizers", name);
  const skip = skipReason(directory);
  describe.skipIf(skip)(`Tokenizer from vocab.json and merges.txt: ${name}`, () => {
    const cases = skip ? [] : (JSON.parse(readFileSync(join(directory, "reference.json"), "utf8")).cases as Case[]);
    const tokenizer = skip ? null : Tokenizer.load(directory)!;

    test("encode() and decode() equal the reference on all texts", () => {
      expect(cases.length).toBe(20);
      for (const { text, ids, decoded } of cases) {
        expect(tokenizer!.encode(text, "never")).toEqual(ids);
        expect(tokenizer!.decode(ids, { skipSpecial: false })).toBe(decoded);
      }
    });

    test("Detokenizer gives the same text id by id", () => {
      for (const { ids, decoded } of cases) {
        const stream = new Detokenizer(tokenizer!, { skipSpecial: false });
        expect(ids.map((id) => stream.push([id])).join("") + stream.flush()).toBe(decoded);
      }
    });
  });
}

for (const name of ["tiny1m", "stories260k", "babyllama105"]) {
  const directory = join(dataDir, name);
  const skip = skipReason(directory);
  describe.skipIf(skip)(`Tokenizer from tokenizer.json: ${name}`, () => {
    const reference = skip ? null : JSON.parse(readFileSync(join(directory, "reference.json"), "utf8"));
    const tokenizer = skip ? null : Tokenizer.load(directory)!;

    test("encode() gives the reference's prompt ids, bos first", () => {
      for (const { prompt, prompt_ids } of reference.greedy) expect(tokenizer!.encode(prompt)).toEqual(prompt_ids);
      expect(tokenizer!.bosId).toBe(1);
    });

    test("decode() of prompt and continuation is the reference's text", () => {
      for (const { prompt_ids, new_ids, text } of reference.greedy) {
        expect(tokenizer!.decode([...prompt_ids, ...new_ids])).toBe(text);
      }
    });

    test("Detokenizer continues a prompt with its leading space", () => {
      for (const { prompt, new_ids, text } of reference.greedy) {
        const stream = new Detokenizer(tokenizer!);
        const parts = new_ids.map((id: number) => stream.push([id]));
        expect(prompt + parts.join("") + stream.flush()).toBe(text);
      }
    });

    test("the fixed text gives its ids", () => {
      const { text, ids } = reference.fixed_text;
      expect(tokenizer!.encode(text).slice(0, ids.length)).toEqual(ids);
    });

    test("a megabyte of one character is tokenised within ten seconds, so that no request can stall for long", () => {
      const started = performance.now();
      expect(tokenizer!.encode("a".repeat(1e6), "never").length).toBeGreaterThan(1000);
      expect(performance.now() - started).toBeLessThan(10_000);
    });
  });
}

describe("Tokenizer policies", () => {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, use_regex: true };
  const bytes: Record<string, number> = {};
  for (let i = 0; i < 256; i++) {
    const printable = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
    bytes[printable ? String.fromCharCode(i) : ""] ??= i;
  }
  delete bytes[""];
  let next = 256;
  for (let i = 0; i < 256; i++) {
    const printable = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
    if (!printable) bytes[String.fromCharCode(next++)] = i;
  }
  const definition = (post: unknown) => ({
    added_tokens: [{ id: 256, content: "<bos>", special: true, normalized: false }],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: post,
    decoder: byteLevel,
    model: { type: "BPE", vocab: bytes, merges: [], unk_token: null },
  });
  const template = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<bos>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { "<bos>": { id: "<bos>", ids: [256], tokens: ["<bos>"] } },
  };
  const make = (post: unknown, config: Record<string, unknown>) =>
    new Tokenizer({ definition: definition(post), config });

  test("without add_bos_token the post-processor decides, also for an empty text", () => {
    const tokenizer = make(template, { bos_token: "<bos>" });
    expect(tokenizer.encode("A")).toEqual([256, 65]);
    expect(tokenizer.encode("")).toEqual([256]);
    expect(tokenizer.encode("A", "never")).toEqual([65]);
    expect(make(null, { bos_token: "<bos>" }).encode("A")).toEqual([65]);
  });

  test("add_bos_token overrides the post-processor, either way", () => {
    expect(make(template, { bos_token: "<bos>", add_bos_token: false }).encode("A")).toEqual([65]);
    expect(make(null, { bos_token: { content: "<bos>" }, add_bos_token: true }).encode("A")).toEqual([256, 65]);
  });

  test('"always" puts bos in front where there is one', () => {
    expect(make(null, { bos_token: "<bos>" }).encode("A", "always")).toEqual([256, 65]);
    expect(make(null, {}).encode("A", "always")).toEqual([65]);
  });

  test("special-token strings in a text are parsed, and left out of decoded text", () => {
    const tokenizer = make(null, { bos_token: "<bos>" });
    expect(tokenizer.encode("x<bos>y", "never")).toEqual([120, 256, 121]);
    expect(tokenizer.decode([120, 256, 121])).toBe("xy");
    expect(tokenizer.decode([120, 256, 121], { skipSpecial: false })).toBe("x<bos>y");
  });

  test("ids outside the vocabulary stand for nothing", () => {
    const tokenizer = make(null, {});
    expect(tokenizer.vocabSize).toBe(257);
    expect(tokenizer.decode([72, 300, 105, 100000])).toBe("Hi");
  });

  test("every split of UTF-8 text into bytes streams to the same text, invalid bytes included", () => {
    const tokenizer = make(null, {});
    const all = [...Buffer.from("aé漢🙂\u200d🙂 z"), 0xf0, 0x9f, 0x41, 0xff, 0xe6, 0xbc];
    const stream = new Detokenizer(tokenizer);
    const pieces = all.map((byte) => stream.push([byte]));
    expect(pieces[1]).toBe("");
    expect(pieces[2]).toBe("é");
    expect(pieces.join("") + stream.flush()).toBe(tokenizer.decode(all));
    expect(tokenizer.decode(all)).toBe("aé漢🙂\u200d🙂 z\ufffdA\ufffd\ufffd");
  });

  test("a decoder that joins no bytes still streams to the whole text", () => {
    const tokenizer = new Tokenizer({
      definition: {
        added_tokens: [],
        normalizer: null,
        pre_tokenizer: { type: "Whitespace" },
        post_processor: null,
        decoder: { type: "WordPiece", prefix: "##", cleanup: false },
        model: {
          type: "WordPiece",
          vocab: { "[UNK]": 0, hello: 1, wor: 2, "##ld": 3 },
          unk_token: "[UNK]",
          continuing_subword_prefix: "##",
        },
      },
      config: {},
    });
    expect(tokenizer.encode("hello world")).toEqual([1, 2, 3]);
    const stream = new Detokenizer(tokenizer);
    expect([1, 2, 3].map((id) => stream.push([id])).join("") + stream.flush()).toBe("hello world");
  });

  test("a broken definition is a CheckpointError", () => {
    expect(() => new Tokenizer({ definition: { model: {} }, config: {} }, "dir")).toThrow(CheckpointError);
  });
});

test("Tokenizer.load() of a directory without tokenizer is null", () => {
  expect(existsSync(import.meta.dir)).toBe(true);
  expect(Tokenizer.load(import.meta.dir)).toBeNull();
});
