// The trained tokenizer, read back by the tokenizer that serves models.
import { expect, test } from "bun:test";
import { document } from "../../src/pretrain/corpus/corpus.ts";
import { tokenizerFiles } from "../../src/pretrain/model_files.ts";
import { specialTokens } from "../../src/pretrain/recipe.ts";
import { byteCharacters, trainTokenizer } from "../../src/pretrain/tokenizer_trainer.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";

const corpus = Array.from({ length: 1500 }, (_, i) => {
  const { given, learned } = document(1, i);
  return `${given} ${learned}`;
});
const trained = trainTokenizer(corpus, 2048, specialTokens);
const tokenizer = new Tokenizer(tokenizerFiles(trained));

test("trainTokenizer() gives special tokens the first ids, then the bytes, then the merges", () => {
  const ids = [...trained.vocab];
  expect(ids.slice(0, 5).map(([token]) => token)).toEqual([...specialTokens]);
  expect(ids.slice(5, 261).map(([token]) => token)).toEqual(byteCharacters());
  expect(trained.vocab.size).toBe(261 + trained.merges.length);
  expect(ids.map(([, id]) => id)).toEqual(ids.map((_, i) => i));
});

test("trainTokenizer() stops at the wanted size and depends on counts alone", () => {
  expect(trainTokenizer(corpus, 300, specialTokens).vocab.size).toBe(300);
  const backwards = trainTokenizer([...corpus].reverse(), 2048, specialTokens);
  expect([...backwards.vocab]).toEqual([...trained.vocab]);
});

test("the tokenizer reads every word of its text as one token and gives the text back", () => {
  const sentence = "Tom is in the garden. Mia likes berries.";
  expect(tokenizer.encode(sentence, "never")).toHaveLength(10);
  for (const text of corpus.slice(0, 200)) {
    expect(tokenizer.decode(tokenizer.encode(text, "never"), { skipSpecial: false })).toBe(text);
  }
});

test("the tokenizer falls back to bytes for text it never saw", () => {
  const strange = "Überraschung: 東京 🙂!";
  expect(tokenizer.decode(tokenizer.encode(strange, "never"))).toBe(strange);
});

test("the tokenizer puts the begin mark in front and knows the marks inside a text", () => {
  expect(tokenizer.encode("Tom", "auto")[0]).toBe(0);
  expect(tokenizer.encode("<|user|>Hi<|end|>", "never").filter((id) => id < 5)).toEqual([2, 1]);
});
