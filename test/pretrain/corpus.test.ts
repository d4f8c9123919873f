// The generated text and tasks: the same for the same seed, answerable from what they say, and kept apart.
import { describe, expect, test } from "bun:test";
import { document } from "../../src/pretrain/corpus/corpus.ts";
import { expand } from "../../src/pretrain/corpus/grammar.ts";
import { taskDocuments } from "../../src/pretrain/corpus/tasks.ts";
import { numbers } from "../../src/pretrain/corpus/words.ts";
import { mixSeeds, Random } from "../../src/pretrain/random.ts";

const texts = (seed: number, count: number, progress?: number): string[] =>
  Array.from({ length: count }, (_, i) => {
    const { given, learned } = document(seed, i, progress);
    return `${given} ${learned}`;
  });

describe("Random", () => {
  test("same seed, same stream; other seed, another", () => {
    const draw = (seed: number) => {
      const random = new Random(seed);
      return Array.from({ length: 50 }, () => random.word());
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
    expect(new Set(Array.from({ length: 1000 }, (_, i) => mixSeeds(1, i))).size).toBe(1000);
  });

  test("sample() draws different items and refuses to draw too many", () => {
    const random = new Random(3);
    const items = Array.from({ length: 20 }, (_, i) => i);
    for (let i = 0; i < 100; i++) expect(new Set(random.sample(items, 12)).size).toBe(12);
    expect(() => random.sample(items, 21)).toThrow("Cannot draw 21 of 20 items");
  });

  test("normal() has mean 0 and deviation 1", () => {
    const random = new Random(5);
    const values = Array.from({ length: 20_000 }, () => random.normal());
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
    expect(Math.abs(mean)).toBeLessThan(0.03);
    expect(Math.abs(variance - 1)).toBeLessThan(0.05);
  });
});

describe("expand()", () => {
  test("fills slots, picks alternatives and writes an before a vowel", () => {
    expect(expand(new Random(1), "{n} has a {c} bell.", { n: "Tom", c: "orange" })).toBe("Tom has an orange bell.");
    const picked = new Set(Array.from({ length: 40 }, (_, i) => expand(new Random(i), "[One|On a] day", {})));
    expect([...picked].sort()).toEqual(["On a day", "One day"]);
  });

  test("names a slot that is not bound", () => {
    expect(() => expand(new Random(1), "{n} sleeps.", {})).toThrow('slot "n" is not bound');
  });
});

describe("document()", () => {
  test("is a function of seed, index and progress", () => {
    expect(texts(1, 200)).toEqual(texts(1, 200));
    expect(texts(1, 200)).not.toEqual(texts(2, 200));
  });

  test("starts with pieces of a row of words, and only the pieces are learned", () => {
    for (let i = 0; i < 100; i++) {
      const { given, learned } = document(1, i, 0);
      const row = /^Say after me: (.+)\.$/.exec(given)?.[1];
      expect(row).toBeDefined();
      for (const piece of learned.slice(0, -1).split(". ")) expect(` ${row} `).toContain(` ${piece} `);
    }
  });

  test("goes on with pairs of names and values, the same ones in other orders", () => {
    for (let i = 0; i < 100; i++) {
      const { given, learned } = document(1, i, 0.05);
      const pairs = (text: string) => text.slice(0, -1).split(". ").sort();
      expect(pairs(learned)).toEqual([...pairs(given), ...pairs(given)].sort());
    }
  });

  test("holds no pattern left unfilled and no doubled space", () => {
    for (const text of texts(4, 2000)) expect(text).not.toMatch(/[{}[\]]|\S {2,}\S/);
  });

  test("adds and subtracts correctly", () => {
    let sums = 0;
    for (const text of texts(5, 2000)) {
      for (const [, a, op, b, c] of text.matchAll(/(\w+) (plus|minus) (\w+) is (\w+)/g)) {
        const value = (word: string) => numbers.indexOf(word.toLowerCase());
        expect(value(c!)).toBe(op === "plus" ? value(a!) + value(b!) : value(a!) - value(b!));
        sums++;
      }
    }
    expect(sums).toBeGreaterThan(500);
  });
});

describe("taskDocuments()", () => {
  test("recall: the four choices are different and all of them stand in the context", () => {
    for (const { context, choices, gold } of taskDocuments("recall", 21, 150, new Set())) {
      expect(new Set(choices).size).toBe(4);
      expect(gold).toBeWithin(0, 4);
      for (const choice of choices) expect(context).toContain(choice);
    }
  });

  test("recall: the right choice is what the text says of the person asked about", () => {
    let checked = 0;
    for (const { context, choices, gold } of taskDocuments("recall", 22, 600, new Set())) {
      const person = /Where is (\w+)\?/.exec(context)?.[1];
      if (person === undefined) continue;
      expect(context).toMatch(new RegExp(`${person} (is|waits|went) (in|to) the ${choices[gold]}\\.`));
      checked++;
    }
    expect(checked).toBeGreaterThan(20);
  });

  test("local: one right choice among four different ones", () => {
    for (const { choices, gold } of taskDocuments("local", 23, 150, new Set())) {
      expect(new Set(choices).size).toBe(4);
      expect(gold).toBeWithin(0, 4);
    }
  });

  test("right choices are spread over all places", () => {
    for (const task of ["recall", "local"] as const) {
      const counts = [0, 0, 0, 0];
      for (const { gold } of taskDocuments(task, 24, 400, new Set())) counts[gold] = counts[gold]! + 1;
      for (const count of counts) expect(count).toBeWithin(60, 140);
    }
  });

  test("no context twice, within a file or between files", () => {
    const taken = new Set<string>();
    const all = [taskDocuments("local", 1, 150, taken), taskDocuments("local", 1, 150, taken)].flat();
    expect(new Set(all.map(({ context }) => context)).size).toBe(300);
  });
});
