import { describe, expect, test } from "bun:test";
import {
  encodeDocuments,
  measuringRows,
  numRows,
  type RowEncoder,
  RowOrder,
  rowIds,
  splitHeldout,
  trainingRows,
} from "../../src/data/rows.ts";

const BOS = 1;
const encoder: RowEncoder = {
  encode: (text) => [BOS, ...text.split("").map(Number)],
  prefixId: BOS,
  separatorId: 2,
};
const lists = (rows: Parameters<typeof rowIds>[0]) =>
  Array.from({ length: numRows(rows) }, (_, r) => [...rowIds(rows, r)]);

describe("trainingRows()", () => {
  test("every row begins with the prefix: heads of documents, filled; then the joined remainders", () => {
    const documents = encodeDocuments([{ text: "345678934" }, { text: "56" }, { text: "7788990" }], encoder, 10);
    expect(lists(trainingRows(documents, 4, encoder))).toEqual([
      [BOS, 3, 4, 5],
      [BOS, 5, 6, BOS],
      [BOS, 7, 7, 8],
      [BOS, 6, 7, 8],
      [BOS, 9, 3, 4],
      [BOS, 8, 9, 9],
    ]);
  });

  test("without a prefix token short texts are filled with the separator between", () => {
    const plain: RowEncoder = { ...encoder, encode: (text) => text.split("").map(Number), prefixId: null };
    const documents = encodeDocuments([{ text: "34" }, { text: "56789" }], plain, 10);
    expect(lists(trainingRows(documents, 4, plain))).toEqual([
      [3, 4, 2, 5],
      [5, 6, 7, 8],
    ]);
  });

  test("id documents stay apart, short ones as short rows", () => {
    const documents = encodeDocuments([{ ids: [0, 1] }, { ids: [2, 0, 1, 2, 0] }], null, 3);
    expect(lists(trainingRows(documents, 3, null))).toEqual([
      [0, 1],
      [2, 0, 1],
      [2, 0],
    ]);
  });

  test("refuses text without a tokenizer and ids outside the vocabulary", () => {
    expect(() => encodeDocuments([{ text: "a" }], null, 3)).toThrow("the model has no tokenizer");
    expect(() => encodeDocuments([{ ids: [0] }, { ids: [3] }], null, 3)).toThrow("document 1: token id 3 is outside");
  });
});

test("measuringRows() cuts documents and leaves out those without a prediction", () => {
  expect(lists(measuringRows([Int32Array.of(1, 2, 3), Int32Array.of(1)], 2))).toEqual([[1, 2]]);
});

describe("RowOrder", () => {
  test("visits every row once an epoch in an order of its own, and can start anywhere", () => {
    const order = new RowOrder(50, 7);
    const epochs = [0, 1].map((epoch) => Array.from({ length: 50 }, (_, i) => order.at(epoch * 50 + i)));
    for (const epoch of epochs)
      expect([...epoch].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(epochs[0]).not.toEqual(epochs[1]);
    expect(new RowOrder(50, 7).at(73)).toBe(epochs[1]![23]!);
    expect(Array.from({ length: 50 }, (_, i) => new RowOrder(50, 8).at(i))).not.toEqual(epochs[0]);
  });
});

test("splitHeldout() spreads the held-out documents evenly", () => {
  const { training, heldout } = splitHeldout([...Array(20).keys()], 0.1);
  expect(heldout).toEqual([9, 19]);
  expect(training.length).toBe(18);
});
