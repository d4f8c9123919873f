import { describe, expect, test } from "bun:test";
import type { ScoreRequest } from "../../src/engine/types.ts";
import { prepareTask } from "../../src/eval/requests.ts";
import { parseTask } from "../../src/eval/task.ts";
import { ReplacementSearch } from "../../src/search/algorithm1.ts";
import {
  maskOf,
  numEvaluations,
  type ScoreLog,
  SearchCancelled,
  type SearchEngine,
  type StopRule,
  search,
} from "../../src/search/search.ts";
import { proposerOf, type StrategyName, strategyNames } from "../../src/search/strategies.ts";

const NUM_LAYERS = 4;
const lines = Array.from(
  { length: 8 },
  (_, i) => `{"id":"${i}","context_ids":[${i}],"choices_ids":[[10],[11]],"gold":${i % 2}}`,
);
const task = prepareTask(parseTask(lines.join("\n"), "t", "t"), { encoder: null, vocabSize: 20, maxLength: 8 });

/** Answers document d rightly unless a linear layer l has bit l set in `breaks[d]`. */
class ToyEngine implements SearchEngine {
  scored = 0;
  readonly #masks = new Map<string, readonly (string | null)[]>([["base", []]]);
  constructor(readonly breaks: readonly number[]) {}
  registerHybrid(spec: { name: string; layers: readonly (string | null)[] }) {
    this.#masks.set(spec.name, spec.layers);
  }
  removeHybrid(name: string) {
    this.#masks.delete(name);
  }
  score(requests: readonly ScoreRequest[]) {
    this.scored += requests.length;
    return requests.map(({ hybrid, contextIds, continuationIds }) => {
      const document = contextIds[0]!;
      const mask = this.#masks.get(hybrid!)!;
      const broken = mask.some((variant, layer) => variant !== null && (this.breaks[document]! >> layer) & 1);
      const right = (continuationIds[0] === 10) === (document % 2 === 0);
      const value = right === broken ? -2 : -1;
      return { logprobs: Float32Array.of(value), argmax: Int32Array.of(0), greedy: false };
    });
  }
  generate(): never {
    throw new Error("not used");
  }
}

class MemoryLog implements ScoreLog {
  readonly scores = new Map<string, number>();
  lookUp(layers: readonly number[]) {
    return this.scores.get(layers.join());
  }
  record(proposal: { layers: readonly number[] }, score: number) {
    this.scores.set(proposal.layers.join(), score);
  }
}

const breaks = [0b0100, 0b0100, 0b1100, 0b0110, 0b0000, 0b1000, 0b0010, 0b0000];
const options = (log: ScoreLog, stop: StopRule, strategy: StrategyName = "greedy") => ({
  engine: new ToyEngine(breaks),
  task,
  metric: "acc" as const,
  variant: "gdn" as const,
  numLayers: NUM_LAYERS,
  strategy,
  stop,
  log,
});

describe("search()", () => {
  test("scores hybrids through the engine and returns the trajectory", async () => {
    const trajectory = await search(options(new MemoryLog(), { all: true }));
    expect(trajectory.base).toBe(1);
    expect(trajectory.order).toEqual([0, 1, 3, 2]);
    expect(trajectory.rounds.map(({ chosen }) => chosen.score)).toEqual([1, 0.75, 0.5, 0.25]);
    expect(trajectory.best.layers).toEqual([0]);
  });

  test("stops at the first round below the threshold, or after a number of rounds", async () => {
    const dropped = await search(options(new MemoryLog(), { maxDrop: 0.3 }));
    expect(dropped.optimal).toEqual({ layers: [0, 1], score: 0.75, round: 2 });
    expect(dropped.stopped).toBe("below_threshold");
    const fixed = await search(options(new MemoryLog(), { replace: 3 }));
    expect(fixed.optimal.layers).toEqual([0, 1, 3]);
  });

  test("stopped anywhere it goes on to the same trajectory without scoring anything twice", async () => {
    const whole = options(new MemoryLog(), { all: true });
    const expected = await search(whole);
    for (let stopAfter = 1; stopAfter < 11; stopAfter++) {
      const log = new MemoryLog();
      const first = options(log, { all: true });
      let asked = 0;
      const progress = { progress() {}, event() {}, cancelled: () => asked++ === stopAfter };
      await expect(search({ ...first, progress })).rejects.toThrow(SearchCancelled);
      const second = options(log, { all: true });
      expect(await search(second)).toEqual(expected);
      expect(first.engine.scored + second.engine.scored).toBe(whole.engine.scored);
    }
  });

  test("a candidate with a log-likelihood that is not a number never wins", async () => {
    const broken = options(new MemoryLog(), { all: true });
    const score = broken.engine.score.bind(broken.engine);
    broken.engine.score = (requests) => {
      const results = score(requests);
      const mask = broken.engine.breaks;
      if (broken.engine.scored === 2 * 2 * mask.length) results[0]!.logprobs[0] = Number.NaN;
      return results;
    };
    const trajectory = await search(broken);
    expect(trajectory.rounds[0]!.candidates[0]).toMatchObject({ layer: 0, score: Number.NEGATIVE_INFINITY });
    expect(trajectory.rounds[0]!.chosen.layer).toBe(1);
  });

  test("refuses a drop outside 0 to 1", () => {
    expect(search(options(new MemoryLog(), { maxDrop: 5 }))).rejects.toThrow("the largest drop is 5, expected 0 to 1");
  });
});

test("numEvaluations() is what a search without threshold asks for", () => {
  for (const strategy of strategyNames) {
    for (const stop of [{ all: true }, { replace: 1 }, { replace: 3 }] as StopRule[]) {
      const machine = new ReplacementSearch({
        strategy,
        numLayers: 5,
        propose: proposerOf(strategy, 5, 1),
        ...("replace" in stop ? { maxRounds: stop.replace } : {}),
      });
      let count = 0;
      for (; machine.next() !== null; count++) machine.record(1);
      expect([strategy, stop, count]).toEqual([strategy, stop, numEvaluations(strategy, 5, stop)]);
    }
  }
});

test("maskOf() names the variant in linear layers", () => {
  expect(maskOf([0, 2], 3, "jet")).toEqual(["jet", null, "jet"]);
});
