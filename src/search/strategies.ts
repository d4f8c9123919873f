// What the replacement strategies propose in each round: greedy (Algorithm 1), local layer importance, uniform
// interleaving, random order. All run under the same outer loop (algorithm1.ts). Knows no model and no score source.
import { CounterRandom, streamOf } from "../tensor/random.ts";
import { greedyProposer, type Proposer, type Round, withLayer } from "./algorithm1.ts";

/** As --strategy spells them. */
export const strategyNames = ["greedy", "local", "uniform", "uniform_first", "random"] as const;
/** One of them. */
export type StrategyName = (typeof strategyNames)[number];

/** @param seed used by `random` alone */
export function proposerOf(strategy: StrategyName, numLayers: number, seed: number): Proposer {
  switch (strategy) {
    case "greedy":
      return greedyProposer(numLayers);
    case "local":
      return localProposer(numLayers);
    case "uniform":
      return uniformProposer(numLayers, "last");
    case "uniform_first":
      return uniformProposer(numLayers, "first");
    case "random":
      return fixedOrderProposer(randomOrder(numLayers, seed));
  }
}

/** Replaces in a fixed order, one candidate a round. */
export function fixedOrderProposer(order: readonly number[]): Proposer {
  return (round, current) => {
    const layer = order[round - 1];
    return layer === undefined ? [] : [{ round, layer, layers: withLayer(current, layer) }];
  };
}

/** Round 1 is the greedy one; its scores then fix the order: highest alone first, lowest index on a tie. */
export function localProposer(numLayers: number): Proposer {
  const greedy = greedyProposer(numLayers);
  return (round, current, rounds) => {
    if (round === 1) return greedy(1, current, rounds);
    return fixedOrderProposer(importanceOrder(rounds[0]))(round, current, rounds);
  };
}

function importanceOrder(first: Round | undefined): number[] {
  const candidates = [...(first?.candidates ?? [])];
  candidates.sort((a, b) => (a.score === b.score ? (a.layer ?? 0) - (b.layer ?? 0) : b.score - a.score));
  return candidates.map((candidate) => candidate.layer ?? 0);
}

/** Spreads the kept layers evenly. The sets of successive rounds are not nested. */
export function uniformProposer(numLayers: number, keep: "first" | "last"): Proposer {
  return (round) => (round > numLayers ? [] : [{ round, layer: null, layers: uniformLayers(numLayers, round, keep) }]);
}

/**
 * Linear layers when K = numLayers - numReplaced full-attention layers are kept at floor((i+1) L / K) - 1, which always
 * keeps the last layer; `keep: "first"` mirrors the rule.
 */
export function uniformLayers(numLayers: number, numReplaced: number, keep: "first" | "last" = "last"): number[] {
  const numKept = numLayers - numReplaced;
  const kept = new Set<number>();
  for (let i = 0; i < numKept; i++) {
    const layer = Math.floor(((i + 1) * numLayers) / numKept) - 1;
    kept.add(keep === "last" ? layer : numLayers - 1 - layer);
  }
  return Array.from({ length: numLayers }, (_, layer) => layer).filter((layer) => !kept.has(layer));
}

/** A permutation of 0..numLayers-1 that depends on the seed alone. */
export function randomOrder(numLayers: number, seed: number): number[] {
  const order = Array.from({ length: numLayers }, (_, layer) => layer);
  const random = new CounterRandom(seed, streamOf("search.random"));
  for (let i = numLayers - 1; i > 0; i--) {
    const j = Math.floor(random.uniform(i) * (i + 1));
    const swap = order[i]!;
    order[i] = order[j]!;
    order[j] = swap;
  }
  return order;
}
