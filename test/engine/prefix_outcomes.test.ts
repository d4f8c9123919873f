// Why a prompt began with nothing cached: each reason by a history that leads to it.
import { expect, test } from "bun:test";
import { DroppedPrefixes } from "../../src/engine/prefix_outcome.ts";
import { type Toy, type ToyLimits, toyEngine, toyPool } from "./toy_backend.ts";

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
  snapshotTokens: 64,
};
const prompt = (length: number, salt = 0) => Array.from({ length }, (_, i) => (7 * i + salt) % 97);

function open(changed: Partial<ToyLimits> = {}, kinds: Parameters<typeof toyEngine>[0] = ["full_attention", "gdn"]) {
  const toy = toyEngine(kinds, { ...limits, ...changed });
  toy.engine.addPool(toyPool("gla", 2, 10));
  return toy;
}

/** Generates and names what was counted. */
function outcome({ engine }: Toy, promptIds: number[], hybrid = "base"): string {
  const before = engine.stats().prefixOutcomes;
  engine.generate([{ promptIds, maxTokens: 1, hybrid }]);
  const counted = Object.entries(engine.stats().prefixOutcomes).filter(([name, count]) => {
    return count > before[name as keyof typeof before];
  });
  expect(counted.length).toBe(1);
  return counted[0]![0];
}

test("cold, hit and too short", () => {
  const toy = open();
  expect(outcome(toy, prompt(20))).toBe("cold");
  expect(outcome(toy, prompt(20))).toBe("hit");
  expect(outcome(toy, prompt(20, 1))).toBe("cold");
  expect(outcome(toy, prompt(4))).toBe("too_short");
});

test("another hybrid's", () => {
  const toy = open();
  toy.engine.registerHybrid({ name: "task", layers: ["gla", null] });
  expect(outcome(toy, prompt(20))).toBe("cold");
  expect(outcome(toy, prompt(20), "task")).toBe("other_hybrid");
  expect(outcome(toy, prompt(20), "task")).toBe("hit");
});

test("pages without a state", () => {
  const toy = open();
  expect(outcome(toy, prompt(20))).toBe("cold");
  expect(outcome(toy, [...prompt(10), ...prompt(10, 3)])).toBe("no_state");
});

for (const kinds of [
  ["full_attention", "gdn"],
  ["full_attention", "full_attention"],
] as const) {
  test(`evicted, until it is kept again: ${kinds}`, () => {
    const toy = open({ cacheBytes: 1000 }, kinds);
    expect(outcome(toy, prompt(20))).toBe("cold");
    for (let salt = 1; salt < 9; salt++) outcome(toy, prompt(20, salt));
    expect(toy.engine.stats().prefixEvictions).toBeGreaterThan(0);
    expect(outcome(toy, [...prompt(18), 1, 2, 3, 4])).toBe("evicted");
    expect(outcome(toy, [...prompt(18), 1, 2, 3, 4])).toBe("hit");
  });
}

test("disabled, which is neither a hit nor a miss", () => {
  const toy = open({ cacheBytes: 0 });
  for (let i = 0; i < 2; i++) expect(outcome(toy, prompt(20))).toBe("disabled");
  expect(toy.engine.stats()).toMatchObject({ prefixHits: 0, prefixMisses: 0 });
});

test("what is remembered of dropped prefixes is bounded, oldest out first", () => {
  const dropped = new DroppedPrefixes();
  for (let hash = 0; hash < 10_000; hash++) dropped.add(hash);
  const known = Array.from({ length: 10_000 }, (_, hash) => hash).filter((hash) => dropped.has(hash));
  expect([known.length, known[0]]).toEqual([8192, 10_000 - 8192]);
});
