// Documents laid out as training rows.
import { expect, test } from "bun:test";
import { encodeDocument, heldOutBatches, layOut, nextBatch } from "../../src/pretrain/batches.ts";
import { beginId, endId, tinyRecipe } from "../../src/pretrain/recipe.ts";

const encode = (text: string) => Array.from(text, (c) => 10 + c.charCodeAt(0));

test("encodeDocument() adds the marks and counts what is given", () => {
  const { ids, given } = encodeDocument(encode, { given: "ab", learned: "c" });
  expect(ids).toEqual([beginId, ...encode("ab c"), endId]);
  expect(given).toBe(3);
});

test("layOut() shifts labels inside each document and hides what is given", () => {
  const batch = layOut([
    { ids: [0, 5, 6, 1], given: 1 },
    { ids: [0, 7, 8, 9, 1], given: 3 },
  ]);
  expect([...batch.ids]).toEqual([0, 5, 6, 1, 0, 7, 8, 9, 1]);
  expect([...batch.labels]).toEqual([5, 6, 1, -100, -100, -100, 9, 1, -100]);
  expect([...batch.positions]).toEqual([0, 1, 2, 3, 0, 1, 2, 3, 4]);
  expect([...batch.seqStart]).toEqual([0, 4, 9]);
});

test("nextBatch() takes whole documents in order until the step is full", () => {
  const start = { nextDocument: 0, tokensSeen: 0 };
  const first = nextBatch(tinyRecipe, encode, start);
  const again = nextBatch(tinyRecipe, encode, start);
  const second = nextBatch(tinyRecipe, encode, first.after);
  expect(first.batch).toEqual(again.batch);
  expect(first.batch.ids.length).toBeGreaterThanOrEqual(tinyRecipe.tokensPerStep);
  expect(first.after).toEqual({ nextDocument: first.batch.seqStart.length - 1, tokensSeen: first.batch.ids.length });
  expect(second.batch.ids).not.toEqual(first.batch.ids);
});

test("heldOutBatches() predicts every word of the asked number of documents", () => {
  const batches = heldOutBatches(tinyRecipe, encode, 30);
  const sequences = batches.reduce((sum, batch) => sum + batch.seqStart.length - 1, 0);
  const hidden = batches.reduce((sum, batch) => sum + batch.labels.filter((label) => label < 0).length, 0);
  expect(sequences).toBe(30);
  expect(hidden).toBe(30);
});
