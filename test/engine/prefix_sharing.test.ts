// What prefix reuse must and must not do, over the toy backend: when it hits, what it computes once, what it forgets.
import { describe, expect, test } from "bun:test";
import type { GenerateResult } from "../../src/engine/types.ts";
import { expectedToken, type Toy, type ToyLimits, toyEngine, toyPool } from "./toy_backend.ts";

const limits: ToyLimits = {
  pageSize: 4,
  numPages: 200,
  numStateFloats: 4000,
  maxBatchTokens: 64,
  maxSequences: 8,
  maxWaiting: 16,
  maxContext: 64,
  pageBytes: 32,
  cacheBytes: 100_000,
  snapshotTokens: 8,
};
const MIXED = ["full_attention", "gdn"] as const;
const prompt = (length: number, salt = 0) => Array.from({ length }, (_, i) => (7 * i + salt) % 97);

function open(kinds: Parameters<typeof toyEngine>[0] = MIXED, changed: Partial<ToyLimits> = {}): Toy {
  const toy = toyEngine(kinds, { ...limits, ...changed });
  for (const variant of ["gla", "gdn"] as const) toy.engine.addPool(toyPool(variant, kinds.length, 10));
  return toy;
}

/** Generates, checks every token, and answers how many prompt tokens were cached. */
function run({ engine, registry }: Toy, promptIds: number[], maxTokens = 3, hybrid = "base"): GenerateResult {
  const [result] = engine.generate([{ hybrid, promptIds, maxTokens }]);
  const history = [...promptIds];
  for (const token of result!.tokenIds) {
    expect(token).toBe(expectedToken(registry.get(hybrid), history, 0, 0));
    history.push(token);
  }
  return result!;
}

describe("prefix cache", () => {
  test("the next turn of a conversation begins where the last one ended", () => {
    const toy = open();
    const first = prompt(20);
    const answer = run(toy, first);
    expect(answer.usage.cachedTokens).toBe(0);
    // The last generated token was never fed.
    const second = [...first, ...answer.tokenIds, 5, 6, 7];
    expect(run(toy, second).usage).toEqual({ promptTokens: 26, completionTokens: 3, cachedTokens: 22 });
    const { prefixHits, prefixMisses, prefixQueryTokens, prefixHitTokens } = toy.engine.stats();
    expect([prefixHits, prefixMisses, prefixQueryTokens, prefixHitTokens]).toEqual([1, 1, 46, 22]);
  });

  test("the same prompt again computes its last token only", () => {
    const toy = open();
    run(toy, prompt(20));
    expect(run(toy, prompt(20)).usage.cachedTokens).toBe(19);
  });

  test("a prompt that parts from an earlier one resumes at the last state kept before", () => {
    const toy = open();
    run(toy, prompt(30));
    const parted = [...prompt(21), ...prompt(9, 51)];
    expect(run(toy, parted).usage.cachedTokens).toBe(16);
  });

  test("without recurrent states every common token counts, up to the last full page and into a tail", () => {
    const toy = open(["full_attention", "full_attention"]);
    run(toy, prompt(30));
    expect(run(toy, [...prompt(21), ...prompt(9, 51)]).usage.cachedTokens).toBe(20);
    expect(run(toy, [...prompt(29), ...prompt(9, 51)]).usage.cachedTokens).toBe(29);
  });

  test("hybrids without any KV cache restore their states alone", () => {
    const toy = open(["gla", "gdn"]);
    run(toy, prompt(20));
    expect(run(toy, prompt(25)).usage.cachedTokens).toBe(19);
    expect(toy.engine.stats().kvBytesUsed).toBe(0);
  });

  test("a prefix serves the mask that computed it by any name, and no other mask", () => {
    const toy = open();
    const { engine } = toy;
    engine.registerHybrid({ name: "task", layers: ["gla", null] });
    run(toy, prompt(20), 3, "task");
    expect(run(toy, prompt(20)).usage.cachedTokens).toBe(0);
    engine.registerHybrid({ name: "twin", layers: ["gla", null] });
    expect(run(toy, prompt(20), 3, "twin").usage.cachedTokens).toBe(19);
    engine.registerHybrid({ name: "task", layers: ["gdn", null] });
    expect(run(toy, prompt(20), 3, "task").usage.cachedTokens).toBe(0);
    engine.removeHybrid("twin");
    engine.registerHybrid({ name: "task", layers: ["gla", null] });
    expect(run(toy, prompt(20), 3, "task").usage.cachedTokens).toBe(19);
    // The same variant from a pool loaded later is another mixer.
    engine.addPool(toyPool("gla", 2, 10));
    engine.registerHybrid({ name: "task", layers: ["gla", null] });
    expect(run(toy, prompt(20), 3, "task").usage.cachedTokens).toBe(0);
  });

  test("what a cancelled sequence computed serves the next one", () => {
    const toy = open(MIXED, { maxBatchTokens: 6 });
    const id = toy.engine.add({ promptIds: prompt(30), maxTokens: 1 });
    for (let i = 0; i < 3; i++) toy.engine.step();
    toy.engine.cancel(id);
    expect(run(toy, prompt(30)).usage.cachedTokens).toBe(14);
  });

  test("after a fault of the backend nothing kept before is trusted", () => {
    const toy = open();
    run(toy, prompt(20));
    const { backend, engine } = toy;
    backend.failNext = true;
    const id = engine.add({ promptIds: prompt(24), maxTokens: 1 });
    expect(engine.step().failed.map((failed) => failed.id)).toEqual([id]);
    expect(engine.stats().prefixBytes).toBe(0);
    expect(run(toy, prompt(24)).usage.cachedTokens).toBe(0);
    expect(run(toy, prompt(24)).usage.cachedTokens).toBe(23);
  });

  test("the least recently used prefix goes first, and the bytes stay within the limit", () => {
    const toy = open(["full_attention", "full_attention"], { cacheBytes: 2 * 12 * 32 });
    for (const salt of [1, 2]) run(toy, prompt(20, salt));
    run(toy, prompt(20, 1));
    run(toy, prompt(20, 3));
    expect(toy.engine.stats().prefixBytes).toBeLessThanOrEqual(2 * 12 * 32);
    expect(toy.engine.stats().prefixEvictions).toBeGreaterThan(0);
    expect(run(toy, prompt(20, 1)).usage.cachedTokens).toBe(19);
    expect(run(toy, prompt(20, 2)).usage.cachedTokens).toBe(0);
  });

  test("running sequences take back the room of kept prefixes rather than being preempted or refused", () => {
    const toy = open(MIXED, { numPages: 12, numStateFloats: 200 });
    for (let salt = 0; salt < 5; salt++) run(toy, prompt(40, salt), 8);
    const { preemptions, prefixEvictions } = toy.engine.stats();
    expect(preemptions).toBe(0);
    expect(prefixEvictions).toBeGreaterThan(0);
  });

  test("of size 0 it keeps nothing and counts nothing", () => {
    const toy = open(MIXED, { cacheBytes: 0 });
    for (let i = 0; i < 2; i++) expect(run(toy, prompt(20)).usage.cachedTokens).toBe(0);
    const { prefixHits, prefixMisses, prefixBytes } = toy.engine.stats();
    expect([prefixHits, prefixMisses, prefixBytes]).toEqual([0, 0, 0]);
  });

  test("the choices of one prompt wait for the first of them to compute it", () => {
    const toy = open();
    const request = { promptIds: prompt(40), maxTokens: 1 };
    for (let choice = 0; choice < 4; choice++) toy.engine.add({ ...request, choice });
    expect(rowsToTheEnd(toy)).toBe(39 + 4);
  });
});

describe("scorings of one context", () => {
  for (const kinds of [MIXED, ["full_attention", "full_attention"], ["gdn", "gla"]] as const) {
    test(`compute it once: ${kinds}`, () => {
      const toy = open(kinds, { cacheBytes: 0 });
      for (let choice = 0; choice < 4; choice++) {
        toy.engine.addScore({ contextIds: prompt(30), continuationIds: [choice, 9, 9] });
      }
      expect(rowsToTheEnd(toy)).toBe(29 + 4 * 3);
      const { prefixBytes, prefixSnapshots, prefixEvictions } = toy.engine.stats();
      expect([prefixBytes, prefixSnapshots, prefixEvictions]).toEqual([0, 0, 0]);
    });
  }

  test("share nothing with another hybrid, and leave nothing behind when cancelled", () => {
    const toy = open();
    const { engine, scheduler } = toy;
    engine.registerHybrid({ name: "task", layers: ["gla", null] });
    const ids = ["base", "base", "task", "base"].map((hybrid) => {
      return engine.addScore({ hybrid, contextIds: prompt(30), continuationIds: [1, 2] });
    });
    engine.step();
    for (const id of ids) engine.cancel(id);
    expect([scheduler.pages.numUsed, scheduler.pages.numKept, scheduler.states.floatsUsed]).toEqual([0, 0, 0]);
  });
});

function rowsToTheEnd({ engine }: Toy): number {
  let rows = 0;
  while (engine.hasWork) {
    const { numPrefillTokens, numDecodeTokens, failed } = engine.step();
    expect(failed).toEqual([]);
    rows += numPrefillTokens + numDecodeTokens;
  }
  return rows;
}
