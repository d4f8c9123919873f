// Constraints in the engine: the logits are masked before each draw, choices and preemptions keep their own place in the
// text, and a text that cannot go on fails alone.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { loadModel } from "../../models/load.ts";
import type { LoadedModel } from "../../models/model.ts";
import type { ConstraintSpec, TokenConstraint } from "../../src/engine/constraint.ts";
import { createEngine } from "../../src/engine/create.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { EngineOptions, GenerateRequest } from "../../src/engine/types.ts";
import { RequestError } from "../../src/errors.ts";
import { goldenDir } from "../support/golden.ts";
import { bestOps } from "../support/kernels.ts";

const modelDir = join(goldenDir, "models", "tiny_llama");
const skip = !existsSync(modelDir);
if (skip) console.error(`skipped: no golden models in ${goldenDir} (set GRAFT_GOLDEN)`);

/** Ids that may stand at each place; what follows the last place: nothing, or only end-of-text. */
interface Pattern {
  readonly places: readonly (readonly number[])[];
  readonly end: "done" | "end of text";
  /** Throws at this place. */
  readonly breaksAt?: number;
}

class PatternConstraint implements TokenConstraint {
  readonly accepted: number[] = [];
  readonly #pattern: Pattern;
  readonly #stopIds: ReadonlySet<number>;

  constructor(spec: ConstraintSpec, stopIds: ReadonlySet<number>) {
    this.#pattern = spec as Pattern;
    this.#stopIds = stopIds;
  }

  allow(mask: Uint32Array): boolean {
    if (mask.some((word) => word !== 0)) throw new Error("The mask is not empty");
    const at = this.accepted.length;
    if (at === this.#pattern.breaksAt) throw new Error("The pattern breaks here");
    const ids = this.#pattern.places[at] ?? [...this.#stopIds];
    for (const id of ids) mask[id >> 5]! |= 1 << (id & 31);
    return ids.length > 0;
  }

  accept(id: number): void {
    this.accepted.push(id);
  }

  get done(): boolean {
    const { places, end } = this.#pattern;
    return end === "done" && this.accepted.length === places.length;
  }
}

const literal = (ids: readonly number[], end: Pattern["end"] = "done"): Pattern => {
  return { places: ids.map((id) => [id]), end };
};

describe.skipIf(skip)("constraints", () => {
  let model: LoadedModel;
  let engines: Engine[] = [];

  beforeAll(async () => {
    model = loadModel(await bestOps(), modelDir);
  });
  afterAll(() => {
    for (const engine of engines) engine.close();
    model.free();
  });

  async function open(options: EngineOptions = {}): Promise<Engine> {
    const constraints = (spec: ConstraintSpec, stopIds: ReadonlySet<number>) => new PatternConstraint(spec, stopIds);
    const engine = createEngine(await bestOps(), model, { maxContext: 150, ...options }, { constraints });
    engines = [...engines, engine];
    return engine;
  }

  test("the text is the literal, at any temperature, and ends with stop where it is done", async () => {
    const engine = await open();
    const ids = [7, 33, 64, 90, 2];
    for (const temperature of [0, 1, 5]) {
      const request = { promptIds: [1, 2, 3], maxTokens: 20, constraint: literal(ids), sampling: { temperature } };
      const [result] = engine.generate([request]);
      expect([result!.tokenIds, result!.finishReason]).toEqual([ids, "stop"]);
    }
    const [cut] = engine.generate([{ promptIds: [1], maxTokens: 3, constraint: literal(ids) }]);
    expect([cut!.tokenIds, cut!.finishReason]).toEqual([ids.slice(0, 3), "length"]);
  });

  test("a stop id is drawn where the constraint allows it, and is not accepted", async () => {
    const engine = await open();
    const request = { promptIds: [1, 2, 3], maxTokens: 20, stopIds: [55], constraint: literal([9, 8], "end of text") };
    const [result] = engine.generate([request]);
    expect([result!.tokenIds, result!.finishReason]).toEqual([[9, 8, 55], "stop"]);
  });

  test("of the allowed ids the most likely is taken, and its log-probability is the model's own", async () => {
    const engine = await open();
    const allowed = [4, 35, 70, 71, 99];
    const request = { promptIds: [5, 6, 7], maxTokens: 1, logprobs: 20 };
    const constraint: Pattern = { places: [allowed], end: "done" };
    const [free, bound] = engine.generate([request, { ...request, constraint }]);
    const scores = engine.score(allowed.map((id) => ({ contextIds: [5, 6, 7], continuationIds: [id] })));
    const best = scores.reduce((best, score, i) => (score.logprobs[0]! > scores[best]!.logprobs[0]! ? i : best), 0);
    expect(bound!.tokenIds).toEqual([allowed[best]!]);
    expect(bound!.logprobs).toEqual([scores[best]!.logprobs[0]!]);
    expect(bound!.topLogprobs).toEqual(free!.topLogprobs!);
  });

  test("choices and preempted sequences keep their own place", async () => {
    // Pages for one whole context and a little: eight texts of up to 100 tokens push one another out.
    const engine = await open({ pageSize: 4, kvBytes: 45 * 4 * 2 * 4 * 2 * 16 * 2, maxSequences: 8 });
    const texts = Array.from({ length: 8 }, (_, i) => Array.from({ length: 60 }, (_, j) => (i * 37 + j * 11) % 100));
    const requests: GenerateRequest[] = texts.map((ids, choice) => {
      return { promptIds: [1, 2, 3, 4, 5], maxTokens: 100, choice, constraint: literal(ids) };
    });
    expect(engine.generate(requests).map((result) => result.tokenIds)).toEqual(texts);
    expect(engine.stats().preemptions).toBeGreaterThan(0);
  });

  test("a text that cannot go on fails alone, whether nothing is allowed or the constraint breaks", async () => {
    const engine = await open();
    const good = { promptIds: [1, 2], maxTokens: 8, sampling: { temperature: 1, seed: 3 } };
    const [alone] = engine.generate([good]);
    const dead: Pattern = { places: [[5], []], end: "done" };
    const broken: Pattern = { ...literal([5, 6, 7]), breaksAt: 2 };
    const ids = [good, { ...good, constraint: dead }, { ...good, constraint: broken }].map((r) => engine.add(r));
    const tokens: number[] = [];
    const failures = new Map<number, Error>();
    while (engine.hasWork) {
      const { events, failed } = engine.step();
      for (const { id, event } of events) if (id === ids[0]) tokens.push(...event.tokenIds);
      for (const { id, error } of failed) failures.set(id, error);
    }
    expect(tokens).toEqual(alone!.tokenIds);
    expect([...failures.keys()].sort()).toEqual([ids[1]!, ids[2]!]);
    expect(failures.get(ids[1]!)).toBeInstanceOf(RequestError);
    expect(failures.get(ids[1]!)!.message).toContain("allows no token here");
    expect(failures.get(ids[2]!)!.message).toBe("The pattern breaks here");
    const { kvBytesUsed, running } = engine.stats();
    expect([kvBytesUsed, running]).toEqual([0, 0]);
  });

  test("is refused where it allows no text at all, or where no factory is set", async () => {
    const engine = await open();
    const request = { promptIds: [1], maxTokens: 1 };
    expect(() => engine.add({ ...request, constraint: literal([]) })).toThrow("allows no text");
    const plain = createEngine(await bestOps(), model, { maxContext: 50 });
    engines.push(plain);
    expect(() => plain.add({ ...request, constraint: literal([1]) })).toThrow(RequestError);
    expect(plain.hasWork).toBe(false);
  });
});
