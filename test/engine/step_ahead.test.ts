// Steps that begin before the tokens of the one before are known, over the toy backend: when they may, and what becomes of a
// row too many.
import { describe, expect, test } from "bun:test";
import type { GenerateRequest } from "../../src/engine/types.ts";
import { expectedToken, type Toy, type ToyLimits, toyEngine } from "./toy_backend.ts";

const limits: ToyLimits = {
  pageSize: 4,
  numPages: 200,
  numStateFloats: 4000,
  maxBatchTokens: 64,
  maxSequences: 4,
  maxWaiting: 16,
  maxContext: 64,
  pageBytes: 32,
  cacheBytes: 100_000,
  snapshotTokens: 64,
  runAhead: true,
};
const MIXED = ["full_attention", "gdn"] as const;
const prompt = (length: number, salt = 0) => Array.from({ length }, (_, i) => (7 * i + salt) % 97);

function open(changed: Partial<ToyLimits> = {}, kinds: Parameters<typeof toyEngine>[0] = MIXED): Toy {
  return toyEngine(kinds, { ...limits, ...changed });
}

/** The tokens that follow a prompt. */
function following({ registry }: Toy, promptIds: readonly number[], count: number): number[] {
  const tokens = [...promptIds];
  for (let i = 0; i < count; i++) tokens.push(expectedToken(registry.get("base"), tokens, 0, 0));
  return tokens.slice(promptIds.length);
}

/** Steps until nothing is left to do; what each sequence got. */
function drain({ engine }: Toy): Map<number, number[]> {
  const got = new Map<number, number[]>();
  while (engine.hasWork) {
    const { events, failed } = engine.step();
    expect(failed).toEqual([]);
    for (const { id, event } of events) got.set(id, [...(got.get(id) ?? []), ...event.tokenIds]);
  }
  return got;
}

describe("a step ahead", () => {
  test("a stream alone: all steps behind the one that brings its first token", () => {
    const toy = open();
    const id = toy.engine.add({ promptIds: prompt(5), maxTokens: 12 });
    expect(drain(toy).get(id)).toEqual(following(toy, prompt(5), 12));
    // The prompt takes two: its state is kept before its last token.
    expect([toy.engine.stats().steps, toy.engine.stats().stepsAhead]).toEqual([13, 11]);
  });

  test.each<[string, Partial<GenerateRequest>]>([
    ["log-probabilities", { logprobs: 0 }],
    ["a penalty", { sampling: { presencePenalty: 0.5 } }],
    ["a bias", { sampling: { logitBias: [[3, 1]] } }],
  ])("none with a stream that wants %s, also beside others", (_, wishes) => {
    const toy = open();
    toy.engine.add({ promptIds: prompt(5), maxTokens: 12, ...wishes });
    toy.engine.add({ promptIds: prompt(5, 1), maxTokens: 12 });
    drain(toy);
    expect(toy.engine.stats().stepsAhead).toBe(0);
  });

  test("who could be admitted is, a step later; who finds no room holds nobody up", () => {
    const toy = open({ maxSequences: 2 });
    toy.engine.add({ promptIds: prompt(5), maxTokens: 20 });
    for (let i = 0; i < 4; i++) toy.engine.step();
    const ahead = () => toy.engine.stats().stepsAhead;
    const before = ahead();
    const second = toy.engine.add({ promptIds: prompt(5, 1), maxTokens: 30 });
    // The step that had been begun, then the one that takes it in.
    expect(toy.engine.step().numPrefillTokens).toBe(0);
    expect(toy.engine.step().numPrefillTokens).toBe(4);
    expect(ahead()).toBe(before);
    toy.engine.add({ promptIds: prompt(5, 2), maxTokens: 5 });
    for (let i = 0; i < 2; i++) toy.engine.step();
    const full = ahead();
    for (let i = 0; i < 5; i++) toy.engine.step();
    expect(ahead()).toBe(full + 5);
    expect(drain(toy).get(second)!.length).toBeGreaterThan(20);
  });

  test("who found no room is admitted as soon as a restore beside the steps gives its room back", () => {
    const toy = open({ numPages: 16, cacheBytes: 0 }, ["full_attention"]);
    const { sharing } = toy.scheduler;
    const hybrid = toy.registry.get("base");
    toy.engine.add({ promptIds: prompt(4), maxTokens: 30 });
    for (let i = 0; i < 4; i++) toy.engine.step();
    const place = sharing.room(hybrid, 44)!;
    const second = toy.engine.add({ promptIds: prompt(24, 1), maxTokens: 2 });
    for (let i = 0; i < 4; i++) toy.engine.step();
    expect(toy.scheduler.numWaiting).toBe(1);
    sharing.discard(hybrid, place);
    const steps = Array.from({ length: 3 }, () => toy.engine.step());
    expect(steps.flatMap(({ events }) => events.map(({ id }) => id))).toContain(second);
    drain(toy);
  });

  test("one that ends at a stop id is kept as standing behind it", () => {
    const toy = open();
    const answer = following(toy, prompt(9), 6);
    const stop = answer[5]!;
    expect(answer.indexOf(stop)).toBe(5);
    const id = toy.engine.add({ promptIds: prompt(9), maxTokens: 30, stopIds: [stop] });
    expect(drain(toy).get(id)).toEqual(answer);
    const turn = [...prompt(9), ...answer, 5, 6];
    const [next] = toy.engine.generate([{ promptIds: turn, maxTokens: 4 }]);
    expect(next!.usage.cachedTokens).toBe(15);
    expect(next!.tokenIds).toEqual(following(toy, turn, 4));
  });

  test("cancelled or late between steps: the tokens so far are kept, the next text with them is right", () => {
    let now = 0;
    const toy = toyEngine(MIXED, limits, () => now);
    const expected = following(toy, prompt(9), 8);
    const cancelled = toy.engine.add({ promptIds: prompt(9), maxTokens: 30 });
    for (let i = 0; i < 9; i++) toy.engine.step();
    expect(toy.engine.cancel(cancelled)!.usage.completionTokens).toBe(8);
    const turn = [...prompt(9), ...expected, 1, 2];
    const late = toy.engine.add({ promptIds: turn, maxTokens: 30, deadlineMs: 5 });
    const got: number[] = [];
    while (toy.engine.hasWork) {
      now++;
      for (const { event } of toy.engine.step().events) got.push(...event.tokenIds);
    }
    expect(late).toBe(cancelled + 1);
    expect(got).toEqual(following(toy, turn, got.length));
    const last = [...turn, ...got, 7];
    const [result] = toy.engine.generate([{ promptIds: last, maxTokens: 3 }]);
    expect(result!.usage.cachedTokens).toBe(turn.length + got.length);
    expect(result!.tokenIds).toEqual(following(toy, last, 3));
    expect(toy.scheduler.pages.numUsed).toBe(0);
  });

  test("a fault of the step ahead ends both steps' sequences, and nothing of them is kept", () => {
    const toy = open();
    const id = toy.engine.add({ promptIds: prompt(9), maxTokens: 30 });
    for (let i = 0; i < 4; i++) toy.engine.step();
    toy.backend.failNext = true;
    const { failed, events } = toy.engine.step();
    expect(events).toEqual([]);
    expect(failed.map((one) => [one.id, one.error.message])).toEqual([[id, "The toy backend fails here"]]);
    expect([toy.engine.hasWork, toy.scheduler.pages.numFree]).toEqual([false, limits.numPages]);
    const [result] = toy.engine.generate([{ promptIds: prompt(9), maxTokens: 6 }]);
    expect(result!.usage.cachedTokens).toBe(0);
    expect(result!.tokenIds).toEqual(following(toy, prompt(9), 6));
  });

  test("broken logits end their sequence; the row under way for it spoils no other", () => {
    const toy = open();
    const broken = toy.engine.add({ promptIds: prompt(9), maxTokens: 30 });
    const sound = toy.engine.add({ promptIds: prompt(9, 1), maxTokens: 12 });
    const got: number[] = [];
    const take = ({ events, failed }: ReturnType<typeof toy.engine.step>) => {
      for (const { id, event } of events) if (id === sound) got.push(...event.tokenIds);
      return failed.map(({ id }) => id);
    };
    for (let i = 0; i < 4; i++) expect(take(toy.engine.step())).toEqual([]);
    toy.backend.breakSequence = broken;
    const failed: number[] = [];
    while (toy.engine.hasWork) failed.push(...take(toy.engine.step()));
    expect(failed).toEqual([broken]);
    expect(got).toEqual(following(toy, prompt(9, 1), 12));
  });
});
