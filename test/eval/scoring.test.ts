import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { encodeText, prepareTask, type TaskEncoder, trimmedEnd } from "../../src/eval/requests.ts";
import { argmaxFirst, comparePaired, mcNemar, scoreChoices, summarise } from "../../src/eval/scoring.ts";
import { parseTask } from "../../src/eval/task.ts";

/** One id per code point, "ab" merged into 3, bos 1 ("<s>") in front on demand. */
const toy: TaskEncoder = {
  encode(text, special) {
    const pieces = text.match(/<s>|ab|[\s\S]/gu) ?? [];
    const ids = pieces.map((piece) => (piece === "<s>" ? 1 : piece === "ab" ? 3 : (piece.codePointAt(0) ?? 0) + 10));
    return special ? [1, ...ids] : ids;
  },
  decode: (ids) => ids.map((id) => (id === 1 ? "<s>" : "?")).join(""),
  prefixId: 1,
  addsSpecialTokens: true,
};
const code = (text: string) => [...text].map((letter) => (letter.codePointAt(0) ?? 0) + 10);

describe("encodeText()", () => {
  test("moves trailing white space of the context to the continuation", () => {
    expect(encodeText("x \n", " y", toy, false)).toEqual({ contextIds: code("x"), continuationIds: code(" \n y") });
    expect(encodeText("x", " y", toy, true)).toEqual({ contextIds: [1, ...code("x")], continuationIds: code(" y") });
  });

  test("slices by count where a token straddles the boundary", () => {
    expect(encodeText("xa", "by", toy, false)).toEqual({ contextIds: code("xa"), continuationIds: code("y") });
  });

  test("an empty context is the prefix token, whatever the policy", () => {
    expect(encodeText("", " y", toy, false)).toEqual({ contextIds: [1], continuationIds: code(" y") });
    expect(encodeText("", "<s>y", toy, true)).toEqual({ contextIds: [1], continuationIds: code("y") });
    expect(() => encodeText("", " y", { ...toy, prefixId: null }, false)).toThrow("neither bos nor eos");
  });

  test("a white-space context needs bos", () => {
    expect(encodeText("  ", " y", toy, true)).toEqual({ contextIds: [1], continuationIds: code("   y") });
    expect(() => encodeText("  ", " y", toy, false)).toThrow("white space only");
  });

  test("does not double a prefix token that the text begins with", () => {
    expect(encodeText("<s>x", " y", toy, true).contextIds).toEqual([1, ...code("x")]);
  });
});

test("trimmedEnd() knows Python's white space, which is not JavaScript's", () => {
  const python = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000";
  expect(trimmedEnd(`a${python}`)).toBe(1);
  expect(trimmedEnd("a\ufeff")).toBe(2);
  expect(trimmedEnd("a\u200b")).toBe(2);
  expect(trimmedEnd(" \n")).toBe(0);
});

describe("prepareTask()", () => {
  const options = { encoder: toy, vocabSize: 1000, maxLength: 6 };
  const line = '{"id":"d","context":"abcdefg","choices":["x","yz"],"gold":1}';

  test("cuts contexts from the left to maxLength + 1 ids and records what was lost", () => {
    const prepared = prepareTask(parseTask(line, "t", "t"), options);
    expect(prepared).toMatchObject({ kind: "choice", bos: "always", maxLength: 6 });
    expect(prepared.documents[0]).toEqual({
      id: "d",
      gold: 1,
      lengths: [1, 2],
      requests: [
        { contextIds: code("cdefg"), continuationIds: code(" x"), dropped: 2 },
        { contextIds: code("defg"), continuationIds: code(" yz"), dropped: 3 },
      ],
    });
    expect(prepareTask(parseTask(line, "t", "t"), { ...options, bos: "never" }).bos).toBe("never");
  });

  test("names the document that cannot be scored", () => {
    const long = '{"id":"long","context":"a","choices":["x","abcdefghijk"],"gold":1}';
    expect(() => prepareTask(parseTask(`${line}\n${long}`, "t", "t"), options)).toThrow(
      'Cannot score task "t": document "long" (line 2): a continuation has 11 ids, expected at most the context of 6',
    );
    expect(() => prepareTask(parseTask(line, "t", "t"), { ...options, encoder: null })).toThrow("no tokenizer");
    const ids = parseTask('{"context_ids":[1,2],"completion_ids":[7]}', "t", "t");
    expect(() => prepareTask(ids, { ...options, vocabSize: 7 })).toThrow("token id 7 is outside the vocabulary of 7");
  });

  test("takes token ids as they are", () => {
    const ids = parseTask('{"context_ids":[5,6],"choices_ids":[[1,2,3],[4]],"gold":0}', "t", "t");
    const prepared = prepareTask(ids, { ...options, encoder: null });
    expect(prepared.bos).toBe("ids");
    expect(prepared.documents[0]?.requests[0]).toEqual({ contextIds: [5, 6], continuationIds: [1, 2, 3], dropped: 0 });
    expect(prepared.documents[0]?.lengths).toEqual([3, 1]);
  });
});

describe("metrics", () => {
  test("the first of equal choices wins, NaN fails the document", () => {
    expect(argmaxFirst([-2, -1, -1])).toBe(1);
    expect(argmaxFirst([-1, Number.NaN])).toBe(-1);
    expect(scoreChoices("d", 0, [Number.NaN, -1], [1, 1])).toMatchObject({ predicted: -1, acc: 0, accNorm: 0 });
  });

  test("acc_norm divides by the length and never picks an empty choice", () => {
    expect(scoreChoices("d", 1, [-3, -4], [1, 2])).toMatchObject({
      predicted: 0,
      predictedNorm: 1,
      acc: 0,
      accNorm: 1,
    });
    expect(scoreChoices("d", 1, [-0.1, -9], [0, 1])).toMatchObject({ predicted: 0, predictedNorm: 1 });
  });

  test("summarise() gives mean and standard error", () => {
    expect(summarise([1, 0, 1, 1])).toEqual({ mean: 0.75, standardError: 0.25 });
    expect(summarise([1])).toEqual({ mean: 1, standardError: null });
  });

  test("mcNemar() is the two-sided binomial test", () => {
    expect(mcNemar(0, 0)).toBe(1);
    expect(mcNemar(5, 5)).toBe(1);
    expect(mcNemar(1, 9)).toBeCloseTo(22 / 1024, 12);
    fc.assert(
      fc.property(fc.nat(300), fc.nat(300), (a, b) => {
        expect(mcNemar(a, b)).toBe(mcNemar(b, a));
        expect(mcNemar(a, b)).toBeLessThanOrEqual(1);
        expect(mcNemar(a, b)).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  test("comparePaired() counts what changed", () => {
    const result = comparePaired([1, 1, 0, 0], [1, 0, 1, 1]);
    expect(result).toMatchObject({ difference: 0.25, onlyA: 1, onlyB: 2, pValue: 1 });
    expect(() => comparePaired([1], [1, 0])).toThrow("1 documents against 2");
  });
});
