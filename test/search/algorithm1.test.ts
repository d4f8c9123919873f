import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  greedyProposer,
  ReplacementSearch,
  relativeThreshold,
  selectOptimal,
  selectReplaced,
  type Trajectory,
} from "../../src/search/algorithm1.ts";
import { proposerOf, randomOrder, uniformLayers } from "../../src/search/strategies.ts";

type Score = (layers: readonly number[]) => number;

interface LiteralResult {
  best: number[];
  bestScore: number;
  optimal: number[];
  optimalScore: number;
  evaluations: number;
}

/** Algorithm 1 as the paper prints it: no state machine, no record. */
function literal(numLayers: number, score: Score, minScore: number): LiteralResult {
  let evaluations = 0;
  const p = (layers: Set<number>) => {
    evaluations++;
    const value = score([...layers].sort((a, b) => a - b));
    return Number.isFinite(value) ? value : -Infinity;
  };
  let cur = new Set<number>();
  let bestScore = p(cur);
  let best = cur;
  let optimal = cur;
  let optimalScore = bestScore;
  for (;;) {
    let candidate: Set<number> | undefined;
    let star = -Infinity;
    for (let l = 0; l < numLayers; l++) {
      if (cur.has(l)) continue;
      const m = new Set(cur).add(l);
      const value = p(m);
      if (value > star) {
        candidate = m;
        star = value;
      }
    }
    if (candidate === undefined) break;
    if (star >= bestScore) {
      best = candidate;
      bestScore = star;
    }
    if (star >= minScore) {
      cur = candidate;
      optimal = candidate;
      optimalScore = star;
    } else break;
  }
  const sorted = (set: Set<number>) => [...set].sort((a, b) => a - b);
  return { best: sorted(best), bestScore, optimal: sorted(optimal), optimalScore, evaluations };
}

function run(search: ReplacementSearch, score: Score): { trajectory: Trajectory; asked: string[] } {
  const asked: string[] = [];
  for (let proposal = search.next(); proposal !== null; proposal = search.next()) {
    asked.push(proposal.layers.join("+"));
    search.record(score(proposal.layers));
  }
  return { trajectory: search.trajectory(), asked };
}

/** A score for every subset; few distinct values, so that ties are frequent, and some that are not numbers. */
const scoreTable = (numLayers: number) =>
  fc
    .array(fc.constantFrom(0, 0.25, 0.5, 0.5, 0.75, 0.75, 1, Number.NaN, Number.POSITIVE_INFINITY), {
      minLength: 2 ** numLayers,
      maxLength: 2 ** numLayers,
    })
    .map((values): Score => {
      values[0] = Number.isFinite(values[0]) ? (values[0] as number) : 0.5;
      return (layers) => values[layers.reduce((mask, layer) => mask | (1 << layer), 0)] as number;
    });

const cases = fc
  .integer({ min: 1, max: 5 })
  .chain((numLayers) =>
    fc.tuple(fc.constant(numLayers), scoreTable(numLayers), fc.constantFrom(-Infinity, 0, 0.3, 0.5, 0.75, 1, 1.5)),
  );

describe("ReplacementSearch", () => {
  test("equals the literal Algorithm 1 on random score tables", () => {
    fc.assert(
      fc.property(cases, ([numLayers, score, minScore]) => {
        const search = new ReplacementSearch({
          strategy: "greedy",
          numLayers,
          propose: greedyProposer(numLayers),
          minScore: () => minScore,
        });
        const { trajectory, asked } = run(search, score);
        const expected = literal(numLayers, score, minScore);
        expect(trajectory.best).toMatchObject({ layers: expected.best, score: expected.bestScore });
        expect(trajectory.optimal).toMatchObject({ layers: expected.optimal, score: expected.optimalScore });
        expect(asked.length).toBe(expected.evaluations);
      }),
      { numRuns: 1500, seed: 11 },
    );
  });

  test("reads the same optimal model from a full trajectory as from a stopped search", () => {
    fc.assert(
      fc.property(cases, ([numLayers, score, minScore]) => {
        const rules = { strategy: "greedy", numLayers, propose: greedyProposer(numLayers) };
        const full = run(new ReplacementSearch(rules), score).trajectory;
        const stopped = run(new ReplacementSearch({ ...rules, minScore: () => minScore }), score).trajectory;
        expect(selectOptimal(full, minScore)).toEqual(stopped.optimal);
        for (let k = 1; k <= full.rounds.length; k++) {
          const fixed = run(new ReplacementSearch({ ...rules, maxRounds: k }), score).trajectory;
          expect(fixed.optimal).toEqual(selectReplaced(full, k) as typeof fixed.optimal);
        }
      }),
      { numRuns: 400, seed: 12 },
    );
  });

  test("a tie between candidates goes to the lowest layer, a tie with best to the more-replaced model", () => {
    const { trajectory } = run(
      new ReplacementSearch({ strategy: "greedy", numLayers: 3, propose: greedyProposer(3) }),
      () => 0.5,
    );
    expect(trajectory.order).toEqual([0, 1, 2]);
    expect(trajectory.best.layers).toEqual([0, 1, 2]);
    expect(trajectory.stopped).toBe("no_candidates");
  });

  test("the last, infeasible candidate may become best, unless that is ruled out", () => {
    const score: Score = (layers) => [0.5, 0.6, 0.7][layers.length] ?? 0;
    const rules = { strategy: "greedy", numLayers: 2, propose: greedyProposer(2), minScore: () => 0.65 };
    const paper = run(new ReplacementSearch(rules), score).trajectory;
    expect(paper.best).toEqual({ layers: [0], score: 0.6, round: 1 });
    expect(paper.optimal).toEqual({ layers: [], score: 0.5, round: 0 });
    expect(paper.stopped).toBe("below_threshold");
    const strict = run(new ReplacementSearch({ ...rules, bestMustBeFeasible: true }), score).trajectory;
    expect(strict.best).toEqual({ layers: [], score: 0.5, round: 0 });
  });

  test("accepts a score exactly at the relative limit", () => {
    for (let base = 1; base <= 500; base++) {
      for (const n of [20, 125, 500]) {
        const score = (base * 0.95) / n;
        if (base <= n && Number.isInteger(base * 0.95)) {
          expect(score).toBeGreaterThanOrEqual(relativeThreshold(base / n, 0.05));
        }
      }
    }
    expect(0.949).toBeLessThan(relativeThreshold(1, 0.05));
  });

  test("a candidate that is not a number never wins, and alone ends the search", () => {
    const score: Score = (layers) => (layers.length === 0 ? 0.5 : layers.includes(0) ? Number.NaN : 0.1);
    const { trajectory } = run(
      new ReplacementSearch({ strategy: "greedy", numLayers: 2, propose: greedyProposer(2) }),
      score,
    );
    expect(trajectory.order).toEqual([1]);
    expect(trajectory.stopped).toBe("no_candidates");
  });

  test("refuses a base score that is not finite and impossible sizes", () => {
    const rules = { strategy: "greedy", numLayers: 2, propose: greedyProposer(2) };
    expect(() => new ReplacementSearch(rules).record(Number.NaN)).toThrow("the base model scores NaN");
    expect(() => new ReplacementSearch({ ...rules, maxRounds: 3 })).toThrow("expected 1 to 2");
    expect(() => new ReplacementSearch({ ...rules, numLayers: 0 })).toThrow("expected at least 1");
    expect(() => new ReplacementSearch(rules).trajectory()).toThrow("no score yet");
  });
});

describe("strategies", () => {
  const score: Score = (layers) => 1 - layers.reduce((sum, layer) => sum + [0.1, 0.05, 0.3, 0.05][layer]!, 0);
  const search = (name: Parameters<typeof proposerOf>[0], seed = 0) =>
    run(new ReplacementSearch({ strategy: name, numLayers: 4, propose: proposerOf(name, 4, seed) }), score);

  test("local scores every layer once and then follows that order", () => {
    const { trajectory, asked } = search("local");
    expect(trajectory.order).toEqual([1, 3, 0, 2]);
    expect(asked).toEqual(["", "0", "1", "2", "3", "1+3", "0+1+3", "0+1+2+3"]);
  });

  test("uniform keeps layers at floor((i+1)L/K)-1", () => {
    const kept = (replaced: number, keep: "first" | "last") => {
      const linear = new Set(uniformLayers(28, replaced, keep));
      return Array.from({ length: 28 }, (_, layer) => layer).filter((layer) => !linear.has(layer));
    };
    expect(kept(24, "last")).toEqual([6, 13, 20, 27]);
    expect(kept(21, "last")).toEqual([3, 7, 11, 15, 19, 23, 27]);
    expect(kept(24, "first")).toEqual([0, 7, 14, 21]);
    expect(kept(28, "last")).toEqual([]);
    expect(search("uniform").asked).toEqual(["", "2", "0+2", "0+1+2", "0+1+2+3"]);
  });

  test("random is a permutation fixed by its seed", () => {
    expect(search("random", 3).trajectory.order).toEqual(randomOrder(4, 3));
    const orders = new Set<string>();
    for (let seed = 0; seed < 40; seed++) {
      expect([...randomOrder(4, seed)].sort()).toEqual([0, 1, 2, 3]);
      orders.add(randomOrder(4, seed).join());
    }
    expect(orders.size).toBeGreaterThan(12);
  });
});
