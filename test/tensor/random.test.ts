// Counter-based random numbers: the published test vectors of Philox4x32-10, and the statistics of what is drawn.
import { describe, expect, test } from "bun:test";
import { CounterRandom, streamOf } from "../../src/tensor/random.ts";

describe("CounterRandom", () => {
  test("words() gives the published vector for a zero counter and a zero key", () => {
    const words = [...new CounterRandom(0, 0).words(0)].map((w) => w.toString(16));
    expect(words).toEqual(["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]);
  });

  test("words() depends on seed, stream and index", () => {
    const first = (seed: number, stream: number, index: number) => new CounterRandom(seed, stream).words(index)[0]!;
    const drawn = [first(1, 2, 3), first(2, 2, 3), first(1, 3, 3), first(1, 2, 4), first(2 ** 40 + 1, 2, 3)];
    expect(new Set(drawn).size).toBe(drawn.length);
    expect(first(1, 2, 3)).toBe(drawn[0]!);
  });

  test("normals() has the mean and deviation asked for, and the same prefix at every length", () => {
    const random = new CounterRandom(5, streamOf("a"));
    const values = random.normals(200_000, 2);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const square = values.reduce((a, b) => a + b * b, 0) / values.length;
    expect(Math.abs(mean)).toBeLessThan(0.02);
    expect(Math.abs(Math.sqrt(square) - 2)).toBeLessThan(0.02);
    expect([...random.normals(7, 2)]).toEqual([...values.subarray(0, 7)]);
  });

  test("uniform() stays inside the open interval and covers it evenly", () => {
    const random = new CounterRandom(9, 1);
    const bins = new Array<number>(10).fill(0);
    for (let i = 0; i < 20_000; i++) {
      const u = random.uniform(i);
      expect(u > 0 && u < 1).toBe(true);
      bins[Math.floor(u * 10)]!++;
    }
    for (const count of bins) expect(Math.abs(count - 2000)).toBeLessThan(200);
  });

  test("refuses a seed that is no safe integer", () => {
    for (const seed of [-1, 1.5, 2 ** 54, Number.NaN]) expect(() => new CounterRandom(seed)).toThrow(RangeError);
  });
});
