// The whole engine but the kernels under seeded simulation: every token right, nothing leaked, whatever happens in between.
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Variant } from "../../models/attention/mixer.ts";
import type { Hybrid } from "../../src/engine/hybrid.ts";
import type { TokenEvent } from "../../src/engine/types.ts";
import { CapacityError, RequestError } from "../../src/errors.ts";
import { Random } from "./random.ts";
import { expectedToken, TOY_VOCAB, type Toy, type ToyLimits, toyEngine, toyPool } from "./toy_backend.ts";

const VARIANTS: Variant[] = ["gla", "gdn", "jet"];

interface Expectation {
  hybrid: Hybrid;
  prompt: number[];
  maxTokens: number;
  seed: number;
  choice: number;
  stopIds: number[];
  got: number[];
  end: TokenEvent["finishReason"] | "cancelled by test";
}

interface Counts {
  generated: number;
  scored: number;
  cancelled: number;
  preempted: number;
  refused: number;
  cached: number;
  evicted: number;
  ahead: number;
  late: number;
}

const NOTHING: Counts = {
  generated: 0,
  scored: 0,
  cancelled: 0,
  preempted: 0,
  refused: 0,
  cached: 0,
  evicted: 0,
  ahead: 0,
  late: 0,
};

class Simulation {
  readonly random: Random;
  readonly toy: Toy;
  readonly limits: ToyLimits;
  readonly counts: Counts = { ...NOTHING };
  readonly generations = new Map<number, Expectation>();
  readonly scorings = new Map<number, { hybrid: Hybrid; tokens: number[]; from: number }>();
  readonly names = ["base"];
  /** Milliseconds: one per step. */
  #now = 0;
  /** Token lists that prompts begin with, so that prefixes meet again; ended histories join them. */
  readonly texts: number[][];

  constructor(seed: number, limits: ToyLimits) {
    this.random = new Random(seed);
    this.limits = limits;
    const numLayers = this.random.between(1, 4);
    const kind = () => (this.random.chance(0.8) ? "full_attention" : "gdn");
    this.toy = toyEngine(Array.from({ length: numLayers }, kind), limits, () => this.#now);
    this.texts = Array.from({ length: 3 }, () => this.#fresh(limits.maxContext));
    for (const variant of VARIANTS) {
      this.toy.engine.addPool(toyPool(variant, numLayers, this.random.between(3, 40)));
    }
  }

  run(numActions: number): void {
    for (let i = 0; i < numActions; i++) this.#act();
    for (let i = 0; this.toy.engine.hasWork; i++) {
      if (i > 100_000) throw new Error("The engine does not come to an end");
      this.#step();
    }
    this.#checkEmpty();
    const { prefixEvictions, stepsAhead } = this.toy.engine.stats();
    this.counts.ahead += stepsAhead;
    this.counts.evicted += prefixEvictions;
    this.counts.preempted += this.toy.scheduler.numPreemptions;
  }

  #act(): void {
    const { random } = this;
    const what = random.between(0, 99);
    if (what < 25) this.#add();
    else if (what < 32) this.#addScore();
    else if (what < 36) this.#cancel();
    else if (what < 42) this.#register();
    else if (what < 44) this.#remove();
    else this.#step();
  }

  /** A part of a known text, and mostly something new after it. */
  #tokens(max: number): number[] {
    const { random } = this;
    const known = random.pick(this.texts).slice(0, random.between(0, max));
    const rest = max - known.length;
    return known.length > 0 && (rest === 0 || random.chance(0.3)) ? known : [...known, ...this.#fresh(rest)];
  }

  #fresh(max: number): number[] {
    return Array.from({ length: this.random.between(1, max) }, () => this.random.between(0, TOY_VOCAB - 1));
  }

  #add(): void {
    const { random } = this;
    const hybrid = this.toy.registry.get(random.pick(this.names));
    const prompt = this.#tokens(this.limits.maxContext);
    const request = {
      hybrid: hybrid.name,
      promptIds: prompt,
      maxTokens: random.between(1, 25),
      sampling: { seed: random.between(0, 3) },
      choice: random.between(0, 2),
      priority: random.pick([0, 0, 0, -1, 1]),
      ...(random.chance(0.1) ? { deadlineMs: random.between(1, 40) } : {}),
      stopIds: random.chance(0.3) ? [random.between(0, TOY_VOCAB - 1), random.between(0, TOY_VOCAB - 1)] : [],
    };
    this.#refusable(() => {
      const id = this.toy.engine.add(request);
      const { maxTokens, choice, stopIds } = request;
      this.generations.set(id, {
        hybrid,
        prompt,
        maxTokens,
        seed: request.sampling.seed,
        choice,
        stopIds,
        got: [],
        end: null,
      });
    });
  }

  #addScore(): void {
    const hybrid = this.toy.registry.get(this.random.pick(this.names));
    const contextIds = this.#tokens(Math.max(1, this.limits.maxContext - 8));
    for (let choices = this.random.between(1, 4); choices > 0; choices--) {
      const continuationIds = this.#fresh(8);
      this.#refusable(() => {
        const id = this.toy.engine.addScore({ hybrid: hybrid.name, contextIds, continuationIds });
        this.scorings.set(id, { hybrid, tokens: [...contextIds, ...continuationIds], from: contextIds.length });
      });
    }
  }

  #refusable(body: () => void): void {
    try {
      body();
    } catch (error) {
      if (!(error instanceof CapacityError) && !(error instanceof RequestError)) throw error;
      this.counts.refused++;
    }
  }

  #cancel(): void {
    const open = [...this.generations].filter(([, g]) => g.end === null);
    if (open.length === 0) return;
    const [id, generation] = this.random.pick(open);
    const event = this.toy.engine.cancel(id)!;
    expect(event.finishReason).toBe("cancelled");
    expect(event.usage.completionTokens).toBe(generation.got.length);
    generation.end = "cancelled by test";
    this.#checkTokens(generation);
    this.counts.cancelled++;
  }

  /** Adds a hybrid or redirects a name that sequences may be running under. */
  #register(): void {
    const name = `h${this.random.between(0, 5)}`;
    const numLayers = this.toy.engine.info.numLayers;
    const layers = Array.from({ length: numLayers }, () =>
      this.random.chance(0.5) ? this.random.pick(VARIANTS) : null,
    );
    this.#refusable(() => {
      this.toy.engine.registerHybrid({ name, layers });
      if (!this.names.includes(name)) this.names.push(name);
    });
  }

  #remove(): void {
    const name = this.random.pick(this.names);
    if (name === "base") return;
    expect(this.toy.engine.removeHybrid(name)).toBe(true);
    this.names.splice(this.names.indexOf(name), 1);
  }

  #step(): void {
    this.#now++;
    const { events, scores, failed, numPrefillTokens, numDecodeTokens } = this.toy.engine.step();
    expect(failed).toEqual([]);
    expect(numPrefillTokens + numDecodeTokens).toBeLessThanOrEqual(this.limits.maxBatchTokens);
    for (const { id, event } of events) {
      const generation = this.generations.get(id)!;
      expect(generation.end).toBeNull();
      generation.got.push(...event.tokenIds);
      const { promptTokens, cachedTokens } = event.usage;
      expect(promptTokens).toBe(generation.prompt.length);
      expect(cachedTokens).toBeLessThan(promptTokens);
      if (cachedTokens > 0) this.counts.cached++;
      if (event.finishReason === null) continue;
      generation.end = event.finishReason;
      this.#checkTokens(generation);
      this.counts[event.finishReason === "deadline" ? "late" : "generated"]++;
    }
    for (const { id, result } of scores) this.#checkScore(id, result);
    this.#checkPools();
  }

  #checkTokens({ hybrid, prompt, maxTokens, seed, choice, stopIds, got, end }: Expectation): void {
    const history = [...prompt];
    for (const token of got) {
      expect(token).toBe(expectedToken(hybrid, history, seed, choice));
      history.push(token);
    }
    this.texts[this.random.between(0, 2)] = history;
    if (end === "cancelled by test" || end === "deadline") return;
    const { numPages, pageSize, maxContext } = this.limits;
    const room = hybrid.numFull === 0 ? maxContext : Math.floor(numPages / hybrid.numFull) * pageSize;
    const full = Math.min(maxTokens, Math.min(maxContext, room) + 1 - prompt.length);
    expect(end).toBe(stopIds.includes(got.at(-1)!) ? "stop" : "length");
    if (end === "length") expect(got.length).toBe(full);
    expect(got.slice(0, -1).some((id) => stopIds.includes(id))).toBe(false);
  }

  #checkScore(id: number, result: { logprobs: Float32Array; argmax: Int32Array; greedy: boolean }): void {
    const { hybrid, tokens, from } = this.scorings.get(id)!;
    const next = tokens.slice(from).map((_, i) => expectedToken(hybrid, tokens.slice(0, from + i), 0, 0));
    expect([...result.argmax]).toEqual(next);
    expect([...result.logprobs]).toEqual(next.map((id) => -id));
    expect(result.greedy).toBe(tokens.slice(from).every((id, i) => id === next[i]));
    this.scorings.delete(id);
    this.counts.scored++;
  }

  /** Pages are shared but what sequences hold, what the cache keeps and what is free add up, and slots have one owner. */
  #checkPools(): void {
    const { scheduler } = this.toy;
    const { pages, states, sharing } = scheduler;
    const held = new Set(scheduler.sequences.flatMap((sequence) => sequence.pages));
    expect(pages.numUsed).toBe(held.size);
    expect(pages.numAvailable).toBe(this.limits.numPages - held.size);
    const floats = scheduler.sequences.flatMap((s) => s.stateSlots.map((_, i) => s.hybrid.slots[i]!.floats));
    expect(states.floatsUsed - sharing.cache.stateFloats).toBe(floats.reduce((a, b) => a + b, 0));
    const { sequences, numRunning } = scheduler;
    for (const part of [sequences.slice(0, numRunning), sequences.slice(numRunning)]) {
      expect(part).toEqual(part.toSorted((a, b) => a.priority - b.priority || a.id - b.id));
    }
    expect(scheduler.numRunning).toBeLessThanOrEqual(this.limits.maxSequences);
  }

  #checkEmpty(): void {
    expect([...this.generations.values()].filter((g) => g.end === null)).toEqual([]);
    expect(this.scorings.size).toBe(0);
    const { scheduler } = this.toy;
    expect(scheduler.sequences).toEqual([]);
    const { pages, states, sharing } = scheduler;
    expect(pages.numUsed).toBe(0);
    expect(states.floatsUsed).toBe(sharing.cache.stateFloats);
    expect(sharing.cache.bytes).toBeLessThanOrEqual(this.limits.cacheBytes);
    expect(pages.numFree).toBe(this.limits.numPages - pages.numKept);
    sharing.forget();
    expect([pages.numFree, states.floatsUsed, sharing.cache.bytes]).toEqual([this.limits.numPages, 0, 0]);
  }
}

const limits: fc.Arbitrary<ToyLimits> = fc
  .record({
    pageSize: fc.integer({ min: 1, max: 8 }),
    numPages: fc.integer({ min: 4, max: 60 }),
    numStateFloats: fc.integer({ min: 400, max: 1500 }),
    maxBatchTokens: fc.integer({ min: 1, max: 40 }),
    maxSequences: fc.integer({ min: 1, max: 8 }),
    maxWaiting: fc.integer({ min: 1, max: 12 }),
    maxContext: fc.integer({ min: 4, max: 40 }),
    pageBytes: fc.constant(64),
    cacheBytes: fc.constantFrom(0, 300, 3000, 1_000_000),
    snapshotTokens: fc.integer({ min: 1, max: 4 }),
    runAhead: fc.boolean(),
  })
  .map((drawn) => ({ ...drawn, snapshotTokens: drawn.snapshotTokens * drawn.pageSize }));

test("seeded simulation: every token and score is right, no page or slot leaks", () => {
  const numRuns = Number(process.env.GRAFT_SIMULATIONS ?? 400);
  const total = { ...NOTHING };
  fc.assert(
    fc.property(fc.integer(), limits, (seed, drawn) => {
      const simulation = new Simulation(seed, drawn);
      simulation.run(300);
      for (const key of Object.keys(total) as (keyof Counts)[]) total[key] += simulation.counts[key];
    }),
    { seed: Number(process.env.GRAFT_SEED ?? 20260720), numRuns, includeErrorInReport: true },
  );
  console.error(`simulated ${JSON.stringify(total)}`);
  for (const count of Object.values(total)) expect(count).toBeGreaterThan(numRuns / 4);
}, 120_000);
