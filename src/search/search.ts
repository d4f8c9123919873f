// Runs one replacement search: asks the state machine what to score, looks in the log of earlier scores, else evaluates and
// logs. Killed at any point it goes on from the log to the same trajectory. Knows neither store nor command line.
import type { Variant } from "../../models/attention/mixer.ts";
import { type EvalEngine, type EvaluateOptions, type Evaluation, evaluate, metricOf } from "../eval/evaluate.ts";
import type { PreparedTask } from "../eval/requests.ts";
import type { Metric } from "../eval/scoring.ts";
import { noProgress, type Progress } from "../train/progress.ts";
import {
  type Proposal,
  ReplacementSearch,
  relativeThreshold,
  type SearchRules,
  type Trajectory,
} from "./algorithm1.ts";
import { proposerOf, type StrategyName } from "./strategies.ts";

/** When to stop: a relative drop below the base score, a number of replaced layers, or never. */
export type StopRule = { readonly maxDrop: number } | { readonly replace: number } | { readonly all: true };

/** Scores by set of linear layers, kept where a killed search finds them again. */
export interface ScoreLog {
  /** undefined where this set has not been scored; -Infinity where its evaluation gave no usable number. */
  lookUp(layers: readonly number[]): number | undefined;
  record(proposal: Proposal, score: number, evaluation: Evaluation): void;
}

/** An engine whose hybrids can be redefined; both the engine itself and its client do. */
export interface SearchEngine extends EvalEngine {
  registerHybrid(spec: { name: string; layers: readonly (Variant | null)[] }): unknown;
  removeHybrid(name: string): unknown;
}

/** What a search scores with, on what, and by which rules. */
export interface SearchOptions {
  readonly engine: SearchEngine;
  readonly task: PreparedTask;
  readonly metric: Metric;
  readonly variant: Variant;
  readonly numLayers: number;
  readonly strategy: StrategyName;
  readonly stop: StopRule;
  readonly seed?: number;
  readonly bestMustBeFeasible?: boolean;
  readonly log: ScoreLog;
  readonly evaluate?: EvaluateOptions;
  readonly progress?: Progress;
}

/** Name of the hybrid that candidates are scored under. */
const CANDIDATE = "search candidate";

/** The search was told to stop; what was scored is in the log. */
export class SearchCancelled extends Error {
  override name = "SearchCancelled";
}

/** @throws SearchCancelled when the progress receiver asks for it; RangeError for rules that cannot be met */
export async function search(options: SearchOptions): Promise<Trajectory> {
  const { numLayers, log } = options;
  const progress = options.progress ?? noProgress;
  const machine = new ReplacementSearch(rulesOf(options));
  const total = numEvaluations(options.strategy, numLayers, options.stop);
  let done = 0;
  let reported = 0;
  try {
    for (let proposal = machine.next(); proposal !== null; proposal = machine.next()) {
      if (progress.cancelled()) throw new SearchCancelled("Search cancelled");
      const score = log.lookUp(proposal.layers) ?? (await evaluateProposal(options, proposal));
      machine.record(score);
      done++;
      progress.progress(done, Math.max(total, done), "candidates", { round: proposal.round, score });
      reported = reportRounds(machine, reported, progress);
    }
  } finally {
    await options.engine.removeHybrid(CANDIDATE);
  }
  return machine.trajectory();
}

/** The hybrid's layers as a mask: null keeps full attention. */
export function maskOf(layers: readonly number[], numLayers: number, variant: Variant): (Variant | null)[] {
  const linear = new Set(layers);
  return Array.from({ length: numLayers }, (_, layer) => (linear.has(layer) ? variant : null));
}

function rulesOf({ strategy, numLayers, seed, stop, bestMustBeFeasible }: SearchOptions): SearchRules {
  if ("maxDrop" in stop && !(stop.maxDrop >= 0 && stop.maxDrop <= 1)) {
    throw new RangeError(`Cannot search: the largest drop is ${stop.maxDrop}, expected 0 to 1`);
  }
  return {
    strategy,
    numLayers,
    propose: proposerOf(strategy, numLayers, seed ?? 1),
    ...("maxDrop" in stop ? { minScore: (base: number) => relativeThreshold(base, stop.maxDrop) } : {}),
    ...("replace" in stop ? { maxRounds: stop.replace } : {}),
    ...(bestMustBeFeasible === undefined ? {} : { bestMustBeFeasible }),
  };
}

async function evaluateProposal(options: SearchOptions, proposal: Proposal): Promise<number> {
  const { engine, task, metric, numLayers, variant } = options;
  await engine.registerHybrid({ name: CANDIDATE, layers: maskOf(proposal.layers, numLayers, variant) });
  const evaluation = await evaluate(engine, CANDIDATE, task, options.evaluate);
  const value = metricOf(evaluation, metric);
  const score = Number.isFinite(value) ? value : Number.NEGATIVE_INFINITY;
  options.log.record(proposal, score, evaluation);
  return score;
}

/** Most evaluations that the rules can ask for. */
export function numEvaluations(strategy: StrategyName, numLayers: number, stop: StopRule): number {
  const rounds = "replace" in stop ? stop.replace : numLayers;
  if (strategy === "local") return 1 + numLayers + rounds - 1;
  if (strategy !== "greedy") return 1 + rounds;
  let total = 1;
  for (let round = 0; round < rounds; round++) total += numLayers - round;
  return total;
}

function reportRounds(machine: ReplacementSearch, reported: number, progress: Progress): number {
  const { rounds, best, optimal } = machine.trajectory();
  for (const { round, chosen, accepted } of rounds.slice(reported)) {
    const data = { round, layer: chosen.layer, layers: chosen.layers, score: chosen.score, accepted };
    progress.event("round", { ...data, best: best.score, optimal: optimal.score });
  }
  return rounds.length;
}
