// Priorities and deadlines: who goes first, who gives way, what ends in time, and where a request's time is counted.
import { describe, expect, test } from "bun:test";
import { RequestError } from "../../src/errors.ts";
import { expectedToken, type Toy, type ToyLimits, toyEngine } from "./toy_backend.ts";

const limits: ToyLimits = {
  pageSize: 4,
  numPages: 40,
  numStateFloats: 1000,
  maxBatchTokens: 16,
  maxSequences: 2,
  maxWaiting: 8,
  maxContext: 64,
  pageBytes: 32,
  cacheBytes: 0,
  snapshotTokens: 8,
};
const KINDS = ["full_attention", "gdn"] as const;
const prompt = (length: number, salt = 0) => Array.from({ length }, (_, i) => (7 * i + salt) % 97);

type Histories = Map<number, number[]>;

/** One step; every token checked and put to its history. The ids that ended. */
function step({ engine, registry }: Toy, histories: Histories): number[] {
  return engine.step().events.flatMap(({ id, event }) => {
    const history = histories.get(id)!;
    for (const token of event.tokenIds) {
      expect(token).toBe(expectedToken(registry.get("base"), history, 0, 0));
      history.push(token);
    }
    return event.finishReason === null ? [] : [id];
  });
}

/** The ids in the order of their ends. */
function finish(toy: Toy, histories: Histories): number[] {
  const ended: number[] = [];
  while (toy.engine.hasWork) ended.push(...step(toy, histories));
  return ended;
}

function add({ engine }: Toy, histories: Histories, priority: number, length: number, maxTokens: number): number {
  const id = engine.add({ promptIds: prompt(length), maxTokens, priority });
  histories.set(id, prompt(length));
  return id;
}

describe("priority", () => {
  test("the lower number begins first, the earlier among equals", () => {
    const toy = toyEngine(KINDS, { ...limits, maxSequences: 1 });
    const histories: Histories = new Map();
    for (const priority of [0, 5, -3, 0, 5, -3]) add(toy, histories, priority, 3, 2);
    expect(finish(toy, histories)).toEqual([3, 6, 1, 4, 2, 5]);
    expect(toy.engine.stats().preemptions).toBe(0);
  });

  test("one that waits takes the place of the worst and youngest that runs, which resumes with the same tokens", () => {
    const toy = toyEngine(KINDS, limits);
    const histories: Histories = new Map();
    for (let i = 0; i < 2; i++) add(toy, histories, 1, 6, 8);
    for (let i = 0; i < 2; i++) step(toy, histories);
    add(toy, histories, 0, 6, 8);
    step(toy, histories);
    expect(toy.engine.stats().preemptions).toBe(1);
    expect(toy.scheduler.sequences.map(({ id, status }) => [id, status])).toEqual([
      [3, "running"],
      [1, "running"],
      [2, "waiting"],
    ]);
    expect(finish(toy, histories)).toEqual([1, 3, 2]);
    expect([...histories.values()].map((history) => history.length)).toEqual([14, 14, 14]);
  });

  for (const [what, changed] of Object.entries({ pages: { numPages: 6 }, "state slots": { numStateFloats: 64 } })) {
    test(`it preempts for ${what}, and nobody of its own priority`, () => {
      const toy = toyEngine(KINDS, { ...limits, ...changed, maxSequences: 4 });
      const histories: Histories = new Map();
      for (let i = 0; i < 2; i++) add(toy, histories, 1, 8, 3);
      step(toy, histories);
      add(toy, histories, 1, 12, 3);
      step(toy, histories);
      expect(toy.engine.stats().preemptions).toBe(0);
      add(toy, histories, 0, 16, 3);
      step(toy, histories);
      expect(toy.engine.stats().preemptions).toBeGreaterThan(0);
      expect(toy.scheduler.sequences[0]).toMatchObject({ id: 4, status: "running" });
      finish(toy, histories);
      expect([...histories.values()].map((history) => history.length)).toEqual([11, 11, 15, 19]);
    });
  }

  test("nobody is preempted where that would not make enough room", () => {
    const toy = toyEngine(KINDS, { ...limits, numPages: 8, maxSequences: 4 });
    toy.engine.add({ promptIds: prompt(20), maxTokens: 9, priority: 0 });
    toy.engine.add({ promptIds: prompt(4), maxTokens: 9, priority: 1 });
    for (let i = 0; i < 3; i++) toy.engine.step();
    toy.engine.add({ promptIds: prompt(20), maxTokens: 1, priority: 0 });
    toy.engine.step();
    expect([toy.engine.stats().preemptions, toy.scheduler.numRunning]).toEqual([0, 2]);
  });

  test("prompt rows go to the better priority first, also before a prompt that is half computed", () => {
    const toy = toyEngine(KINDS, limits);
    toy.engine.add({ promptIds: prompt(40), maxTokens: 1, priority: 1 });
    toy.engine.step();
    toy.engine.add({ promptIds: prompt(20), maxTokens: 1, priority: 0 });
    toy.engine.step();
    const computed = toy.scheduler.sequences.map(({ id, numComputed }) => [id, numComputed]);
    expect(computed).toEqual([
      [2, 16],
      [1, 16],
    ]);
  });

  test("what a preempted sequence computed is taken from the prefix cache when it resumes", () => {
    const toy = toyEngine(KINDS, { ...limits, cacheBytes: 100_000, maxSequences: 1 });
    toy.engine.add({ promptIds: prompt(30), maxTokens: 4, priority: 1 });
    while (toy.scheduler.sequences[0]!.tokens.length < 32) toy.engine.step();
    toy.engine.add({ promptIds: prompt(4, 3), maxTokens: 1 });
    expect(toy.engine.step()).toMatchObject({ numPrefillTokens: 4, numDecodeTokens: 0 });
    expect(toy.engine.step()).toMatchObject({ numPrefillTokens: 0, numDecodeTokens: 1 });
    expect(toy.engine.stats().preemptions).toBe(1);
  });
});

describe("deadlines", () => {
  function open(changed: Partial<ToyLimits> = {}) {
    const time = { ms: 1000 };
    return { time, toy: toyEngine(KINDS, { ...limits, ...changed }, () => time.ms) };
  }

  test("a running sequence past it ends within one step with what it has, and frees everything", () => {
    const { time, toy } = open();
    const id = toy.engine.add({ promptIds: prompt(5), maxTokens: 20, deadlineMs: 50 });
    for (let i = 0; i < 3; i++, time.ms += 10) expect(toy.engine.step().events[0]!.event.finishReason).toBeNull();
    time.ms = 1049;
    expect(toy.engine.step().events[0]!.event.finishReason).toBeNull();
    time.ms = 1050;
    const { events, numDecodeTokens } = toy.engine.step();
    expect(events.map((e) => [e.id, e.event.tokenIds, e.event.finishReason])).toEqual([[id, [], "deadline"]]);
    expect(events[0]!.event.usage.completionTokens).toBe(4);
    expect(events[0]!.event.timings).toEqual({ queueSeconds: 0, prefillSeconds: 0, decodeSeconds: 0.05 });
    expect([numDecodeTokens, toy.engine.hasWork, toy.scheduler.pages.numUsed]).toEqual([0, false, 0]);
    expect(toy.scheduler.states.floatsUsed).toBe(0);
    expect(toy.engine.stats().finished.deadline).toBe(1);
  });

  test("one that expires while it waits never starts, and those beside it go on", () => {
    const { time, toy } = open({ maxSequences: 1 });
    const stream = toy.engine.add({ promptIds: prompt(3), maxTokens: 6 });
    const late = toy.engine.add({ promptIds: prompt(4), maxTokens: 6, deadlineMs: 20 });
    toy.engine.step();
    time.ms += 25;
    const { events } = toy.engine.step();
    expect(events.map((e) => [e.id, e.event.finishReason])).toEqual([
      [late, "deadline"],
      [stream, null],
    ]);
    expect(events[0]!.event.timings).toEqual({ queueSeconds: 0.025, prefillSeconds: 0, decodeSeconds: 0 });
    expect(toy.scheduler.numWaiting).toBe(0);
    expect(toy.engine.cancel(late)).toBeNull();
  });

  test("a scoring past it fails with a RequestError", () => {
    const { time, toy } = open();
    const id = toy.engine.addScore({ contextIds: prompt(30), continuationIds: [1, 2], deadlineMs: 5 });
    toy.engine.step();
    time.ms += 6;
    const { failed, scores } = toy.engine.step();
    expect(scores).toEqual([]);
    expect(failed.map(({ id, error }) => [id, error instanceof RequestError && error.code])).toEqual([
      [id, "deadline_exceeded"],
    ]);
    expect(toy.engine.hasWork).toBe(false);
  });

  test("a sequence that ends in time is forgotten by its deadline", () => {
    const { time, toy } = open();
    toy.engine.add({ promptIds: prompt(3), maxTokens: 1, deadlineMs: 5 });
    expect(toy.engine.step().events[0]!.event.finishReason).toBe("length");
    time.ms += 100;
    expect(toy.engine.step().events).toEqual([]);
    expect(toy.engine.stats().finished).toMatchObject({ length: 1, deadline: 0 });
  });
});

test("timings tell waiting, prompt and tokens apart and add up to the whole", () => {
  const time = { ms: 0 };
  const { engine, backend } = toyEngine(KINDS, { ...limits, maxSequences: 1 }, () => time.ms);
  const run = backend.run.bind(backend);
  backend.run = (batch) => {
    time.ms += 10;
    return run(batch);
  };
  engine.add({ promptIds: prompt(3), maxTokens: 2 });
  engine.add({ promptIds: prompt(30), maxTokens: 3 });
  const all = [];
  while (engine.hasWork) for (const { event } of engine.step().events) all.push(event.timings);
  expect(all).toEqual([
    { queueSeconds: 0, prefillSeconds: 0.01, decodeSeconds: 0 },
    { queueSeconds: 0, prefillSeconds: 0.01, decodeSeconds: 0.01 },
    { queueSeconds: 0.02, prefillSeconds: 0.02, decodeSeconds: 0 },
    undefined,
    { queueSeconds: 0.02, prefillSeconds: 0.02, decodeSeconds: 0.02 },
  ]);
});

const bad = {
  "a priority that is no integer": { priority: 0.5 },
  "a priority beyond 2^31": { priority: 2 ** 31 + 1 },
  "a priority that is no number": { priority: "1" as never },
  "a deadline of 0": { deadlineMs: 0 },
  "a deadline that is no number": { deadlineMs: Number.NaN },
  "a deadline beyond 2^31": { deadlineMs: 1e12 },
};
for (const [name, fields] of Object.entries(bad)) {
  test(`${name}: RequestError, nothing queued`, () => {
    const { engine } = toyEngine(KINDS, limits);
    expect(() => engine.add({ promptIds: [1], maxTokens: 1, ...fields })).toThrow(RequestError);
    expect(() => engine.addScore({ contextIds: [1], continuationIds: [1], ...fields })).toThrow(RequestError);
    expect(engine.hasWork).toBe(false);
  });
}
