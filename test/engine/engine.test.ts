// Rules of the engine that need no kernels, over the toy backend.
import { describe, expect, test } from "bun:test";
import { CapacityError, KernelError, RequestError } from "../../src/errors.ts";
import { expectedToken, type ToyLimits, toyEngine, toyPool } from "./toy_backend.ts";

const limits: ToyLimits = {
  pageSize: 4,
  numPages: 40,
  numStateFloats: 1000,
  maxBatchTokens: 16,
  maxSequences: 3,
  maxWaiting: 4,
  maxContext: 32,
  pageBytes: 32,
  cacheBytes: 0,
  snapshotTokens: 8,
};

const KINDS = ["full_attention", "full_attention"] as const;

describe("Engine", () => {
  test("a long prompt is cut into chunks and never delays a running stream's next token", () => {
    const { engine } = toyEngine(KINDS, limits);
    const stream = engine.add({ promptIds: [1], maxTokens: 20 });
    engine.step();
    const long = engine.add({ promptIds: Array.from({ length: 32 }, (_, i) => i), maxTokens: 1 });
    const firstTokens: number[] = [];
    for (let i = 1; i <= 3; i++) {
      const { events, numPrefillTokens, numDecodeTokens } = engine.step();
      expect(events.some(({ id }) => id === stream)).toBe(true);
      expect(numDecodeTokens).toBe(1);
      expect(numPrefillTokens).toBe(i < 3 ? 15 : 2);
      firstTokens.push(...events.filter(({ id }) => id === long).map(() => i));
    }
    expect(firstTokens).toEqual([3]);
  });

  test("requests are admitted in order of arrival, at most maxSequences at once", () => {
    const { engine, scheduler } = toyEngine(KINDS, limits);
    const ids = [1, 2, 3, 4].map((token) => engine.add({ promptIds: [token], maxTokens: 2 }));
    const steps: number[][] = [];
    while (engine.hasWork) {
      steps.push(engine.step().events.map(({ id }) => id));
      expect(scheduler.numRunning).toBeLessThanOrEqual(3);
    }
    expect(steps).toEqual([ids.slice(0, 3), ids.slice(0, 3), [ids[3]!], [ids[3]!]]);
  });

  test("a full queue is a CapacityError and leaves the queue as it was", () => {
    const { engine, scheduler } = toyEngine(KINDS, limits);
    for (let i = 0; i < 4; i++) engine.add({ promptIds: [1], maxTokens: 1 });
    expect(engine.hasRoom).toBe(false);
    expect(() => engine.add({ promptIds: [1], maxTokens: 1 })).toThrow(CapacityError);
    expect(scheduler.numWaiting).toBe(4);
  });

  test("cancel() frees at once what a sequence holds, and is silent for one that ended", () => {
    const { engine, scheduler } = toyEngine(["full_attention", "gdn"], limits);
    const id = engine.add({ promptIds: [1, 2, 3], maxTokens: 9 });
    engine.step();
    expect(scheduler.pages.numUsed).toBe(1);
    expect(scheduler.states.floatsUsed).toBeGreaterThan(0);
    expect(engine.cancel(id)!.finishReason).toBe("cancelled");
    expect([scheduler.pages.numUsed, scheduler.states.floatsUsed, engine.hasWork]).toEqual([0, 0, false]);
    expect(engine.cancel(id)).toBeNull();
    expect(engine.stats().finished).toEqual({ stop: 0, length: 0, deadline: 0, cancelled: 1, score: 0 });
  });

  test("a fault of the backend ends the sequences of that batch and no others", () => {
    const { engine, scheduler, backend } = toyEngine(KINDS, { ...limits, maxSequences: 1 });
    const first = engine.add({ promptIds: [1], maxTokens: 5 });
    const second = engine.add({ promptIds: [2], maxTokens: 2 });
    backend.failAt = 2;
    engine.step();
    const { failed } = engine.step();
    expect(failed.map(({ id, error }) => [id, error.message])).toEqual([[first, "The toy backend fails here"]]);
    const events = [...engine.step().events, ...engine.step().events];
    expect(events.map(({ id }) => id)).toEqual([second, second]);
    expect([engine.hasWork, scheduler.pages.numUsed]).toEqual([false, 0]);
  });

  test("broken logits end their own sequence, and nothing computed before is trusted", () => {
    const { engine, scheduler, backend } = toyEngine(KINDS, { ...limits, cacheBytes: 10_000 });
    engine.generate([{ promptIds: [9, 8, 7, 6, 5, 4], maxTokens: 2 }]);
    expect(scheduler.sharing.cache.size).toBeGreaterThan(0);
    const [broken, other] = [1, 2].map((token) => engine.add({ promptIds: [token], maxTokens: 3 }));
    backend.breakSequence = broken!;
    const { events, failed } = engine.step();
    expect(failed).toEqual([{ id: broken!, error: new KernelError("The toy logits of this sequence are broken") }]);
    expect(events.map(({ id }) => id)).toEqual([other!]);
    expect([scheduler.sharing.cache.size, scheduler.pages.numUsed]).toEqual([0, 2]);
    expect(engine.cancel(broken!)).toBeNull();
    engine.step();
    expect(engine.step().events[0]!.event.finishReason).toBe("length");
    const score = engine.addScore({ contextIds: [1], continuationIds: [2] });
    backend.breakSequence = score;
    expect(engine.step().failed.map(({ id }) => id)).toEqual([score]);
    expect([engine.hasWork, scheduler.pages.numUsed]).toEqual([false, 0]);
  });

  test("a stream keeps the hybrid it began with when its name is redirected or removed", () => {
    const { engine, registry } = toyEngine(KINDS, limits);
    for (const variant of ["gla", "gdn"] as const) engine.addPool(toyPool(variant, 2, 10));
    engine.registerHybrid({ name: "task", layers: ["gla", null] });
    const before = registry.get("task");
    const id = engine.add({ hybrid: "task", promptIds: [5], maxTokens: 6 });
    const tokens = [5];
    for (let i = 0; engine.hasWork; i++) {
      if (i === 1) engine.registerHybrid({ name: "task", layers: [null, "gdn"] });
      if (i === 3) engine.removeHybrid("task");
      for (const { event } of engine.step().events) {
        expect(event.tokenIds).toEqual([expectedToken(before, tokens, 0, 0)]);
        tokens.push(...event.tokenIds);
      }
    }
    expect(tokens.length).toBe(7);
    expect(engine.cancel(id)).toBeNull();
    expect(() => engine.add({ hybrid: "task", promptIds: [5], maxTokens: 1 })).toThrow(RequestError);
  });

  test("a hybrid's memory shrinks with its full layers", () => {
    const { engine } = toyEngine(KINDS, limits);
    engine.addPool(toyPool("gla", 2, 10));
    const [base] = engine.hybrids();
    const half = engine.registerHybrid({ name: "half", layers: [null, "gla"] });
    const none = engine.registerHybrid({ name: "none", layers: ["gla", "gla"] });
    expect([base!, half, none].map((h) => h.kvBytesPerToken)).toEqual([16, 8, 0]);
    expect([base!, half, none].map((h) => h.stateBytes)).toEqual([0, 64, 128]);
    engine.add({ hybrid: "none", promptIds: [1, 2, 3, 4, 5], maxTokens: 3 });
    engine.step();
    const { kvBytesUsed, stateBytesUsed } = engine.stats();
    expect([kvBytesUsed, stateBytesUsed]).toEqual([0, 128]);
    engine.addPool(toyPool("gdn", 2, 10));
    engine.registerHybrid({ name: "conv", layers: ["gdn", null] });
    engine.add({ hybrid: "conv", promptIds: [1], maxTokens: 3 });
    engine.step();
    const { recurrentBytesUsed, convBytesUsed } = engine.stats();
    expect([recurrentBytesUsed, convBytesUsed]).toEqual([128 + 64, 64]);
  });

  test("generate() and score() take lists longer than the queue and refuse an engine in use", () => {
    const { engine } = toyEngine(KINDS, limits);
    const results = engine.generate(Array.from({ length: 20 }, (_, i) => ({ promptIds: [i], maxTokens: 2 })));
    expect(results.map((result) => result.tokenIds.length)).toEqual(Array(20).fill(2));
    const scores = engine.score(Array.from({ length: 20 }, (_, i) => ({ contextIds: [i], continuationIds: [1, 2] })));
    expect(scores.map((score) => score.logprobs.length)).toEqual(Array(20).fill(2));
    engine.add({ promptIds: [1], maxTokens: 1 });
    expect(() => engine.generate([])).toThrow("in use");
  });

  const bad = {
    "an empty prompt": { promptIds: [] },
    "an id beyond the vocabulary": { promptIds: [97] },
    "a negative id": { promptIds: [-1] },
    "an id that is no integer": { promptIds: [0.5] },
    "a prompt longer than the context": { promptIds: new Int32Array(33) },
    "no tokens wanted": { maxTokens: 0 },
    "too many log-probabilities": { logprobs: 21 },
    "a negative choice": { choice: -1 },
    "a temperature below 0": { sampling: { temperature: -0.1 } },
    "a temperature that is no number": { sampling: { temperature: Number.NaN } },
    "topP of 0": { sampling: { topP: 0 } },
    "topP above 1": { sampling: { topP: 1.1 } },
    "topK of 1.5": { sampling: { topK: 1.5 } },
    "minP above 1": { sampling: { minP: 2 } },
    "a seed beyond 2^53": { sampling: { seed: 2 ** 54 } },
    "a presence penalty above 2": { sampling: { presencePenalty: 2.1 } },
    "a frequency penalty below -2": { sampling: { frequencyPenalty: -2.1 } },
    "a repetition penalty of 0": { sampling: { repetitionPenalty: 0 } },
    "a repetition penalty above 2": { sampling: { repetitionPenalty: 2.5 } },
    "a bias above 100": { sampling: { logitBias: [[1, 101]] as const } },
    "a bias that is no number": { sampling: { logitBias: [[1, Number.NaN]] as const } },
    "a bias of an id beyond the vocabulary": { sampling: { logitBias: [[97, 1]] as const } },
    "two biases of one id": {
      sampling: {
        logitBias: [
          [1, 1],
          [1, 2],
        ] as const,
      },
    },
    "too many biases": { sampling: { logitBias: Array.from({ length: 1025 }, (_, i) => [i, 1] as const) } },
    "a constraint, where no factory is set": { constraint: {} },
    "an unknown hybrid": { hybrid: "nobody" },
  };
  for (const [name, fields] of Object.entries(bad)) {
    test(`${name}: RequestError, nothing queued`, () => {
      const { engine } = toyEngine(KINDS, limits);
      expect(() => engine.add({ promptIds: [1], maxTokens: 1, ...fields })).toThrow(RequestError);
      expect(engine.hasWork).toBe(false);
    });
  }

  test("a small KV pool shortens the context, but not that of a hybrid without full layers", () => {
    const { engine } = toyEngine(KINDS, { ...limits, numPages: 4 });
    expect(() => engine.add({ promptIds: new Int32Array(9), maxTokens: 1 })).toThrow("the context holds 8");
    const [cut] = engine.generate([{ promptIds: [1, 2, 3], maxTokens: 20 }]);
    expect([cut!.tokenIds.length, cut!.finishReason]).toEqual([6, "length"]);
    engine.addPool(toyPool("gla", 2, 10));
    engine.registerHybrid({ name: "linear", layers: ["gla", "gla"] });
    expect(engine.generate([{ hybrid: "linear", promptIds: [1, 2, 3], maxTokens: 20 }])[0]!.tokenIds.length).toBe(20);
  });

  test("pools of another backbone or depth are refused", () => {
    const { engine } = toyEngine(KINDS, limits);
    expect(() => engine.addPool({ ...toyPool("gla", 2, 10), backbone: "other" })).toThrow("another backbone");
    expect(() => engine.addPool(toyPool("gla", 3, 10))).toThrow("3 layers, expected 2");
    expect(() => engine.registerHybrid({ name: "x", layers: ["gla", null] })).toThrow('no pool of variant "gla"');
    const huge = toyPool("gla", 2, 5000);
    engine.addPool(huge);
    expect(() => engine.registerHybrid({ name: "x", layers: ["gla", null] })).toThrow("bytes of state");
  });

  test("two pools of one variant can be told apart", () => {
    const { engine } = toyEngine(KINDS, limits);
    const small = engine.addPool(toyPool("gla", 2, 10));
    const large = engine.addPool(toyPool("gla", 2, 100));
    const bytes = (pools?: { gla: string }) =>
      engine.registerHybrid({ name: "x", layers: ["gla", null], ...(pools ? { pools } : {}) }).stateBytes;
    expect([bytes(), bytes({ gla: small.id }), bytes({ gla: large.id })]).toEqual([448, 64, 448]);
    expect(() => bytes({ gla: "gla-9" })).toThrow('no pool "gla-9"');
  });
});
