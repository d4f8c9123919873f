// Algorithm 1 of Distill-then-Replace as a pure state machine: it says which set of linear layers to score next, is told
// the score, and keeps the whole trajectory. It knows no model, task or file; strategies differ only in what they propose.

/** A set of linear layers to be scored. `layer` is the one added (null for the unchanged model and for whole masks). */
export interface Proposal {
  /** 0 is the base model; round r has r linear layers. */
  readonly round: number;
  readonly layer: number | null;
  /** Linear layers of the candidate, ascending. */
  readonly layers: readonly number[];
}

/** A proposal with its score. */
export interface Candidate extends Proposal {
  /** Finite, or -Infinity where the evaluation gave no usable number. */
  readonly score: number;
}

/** One round: what was scored and what was taken. */
export interface Round {
  readonly round: number;
  readonly candidates: readonly Candidate[];
  /** First candidate of the highest score. */
  readonly chosen: Candidate;
  /** Whether its score reached P_min, so that it became the current model. */
  readonly accepted: boolean;
}

/** One model of a trajectory. */
export interface Selection {
  readonly layers: readonly number[];
  readonly score: number;
  readonly round: number;
}

/** Everything that a search found. */
export interface Trajectory {
  readonly strategy: string;
  readonly numLayers: number;
  readonly base: number;
  /** null: no threshold. */
  readonly minScore: number | null;
  readonly rounds: readonly Round[];
  /** Added layer of each accepted round; empty entries never occur, whole masks (uniform) give null. */
  readonly order: readonly (number | null)[];
  readonly best: Selection;
  readonly optimal: Selection;
  readonly stopped: StopReason;
}

/** Why a search ended. */
export type StopReason = "below_threshold" | "enough_rounds" | "no_candidates";

/** What a strategy offers in a round, ascending; an empty list ends the search. */
export type Proposer = (round: number, current: readonly number[], rounds: readonly Round[]) => Proposal[];

/** What a search may propose and when it stops. */
export interface SearchRules {
  readonly strategy: string;
  readonly numLayers: number;
  readonly propose: Proposer;
  /** P_min as a function of the base score; absent: no threshold. */
  readonly minScore?: (base: number) => number;
  /** Number of rounds after which to stop; absent: until a rule or the layers run out. */
  readonly maxRounds?: number;
  /** Tests feasibility before `best` is updated, unlike the paper. */
  readonly bestMustBeFeasible?: boolean;
}

/** P_min of a relative drop. One part in 10^12 less, so that a score exactly at the limit is not lost to rounding. */
export function relativeThreshold(base: number, maxDrop: number): number {
  const threshold = (1 - maxDrop) * base;
  return threshold - Math.abs(threshold) * 1e-12;
}

/** Every layer that is not linear yet, one at a time, in ascending order. */
export function greedyProposer(numLayers: number): Proposer {
  return (round, current) => {
    const linear = new Set(current);
    const proposals: Proposal[] = [];
    for (let layer = 0; layer < numLayers; layer++) {
      if (!linear.has(layer)) proposals.push({ round, layer, layers: withLayer(current, layer) });
    }
    return proposals;
  };
}

/** The set with one more layer, ascending. */
export function withLayer(layers: readonly number[], layer: number): number[] {
  return [...layers, layer].sort((a, b) => a - b);
}

/** Runs one search: ask `next()`, evaluate, `record()`, until `next()` is null; then read `trajectory()`. */
export class ReplacementSearch {
  readonly #rules: SearchRules;
  #base: number | undefined;
  #minScore = Number.NEGATIVE_INFINITY;
  #current: Selection = { layers: [], score: Number.NaN, round: 0 };
  #best = this.#current;
  readonly #rounds: Round[] = [];
  #pending: Proposal[];
  #scored: Candidate[] = [];
  #stopped: StopReason | undefined;

  /** @throws RangeError if the rules cannot be met */
  constructor(rules: SearchRules) {
    const { numLayers, maxRounds } = rules;
    if (!Number.isInteger(numLayers) || numLayers < 1) {
      throw new RangeError(`Cannot search: number of layers is ${numLayers}, expected at least 1`);
    }
    if (maxRounds !== undefined && (!Number.isInteger(maxRounds) || maxRounds < 1 || maxRounds > numLayers)) {
      throw new RangeError(`Cannot search: number of layers to replace is ${maxRounds}, expected 1 to ${numLayers}`);
    }
    this.#rules = rules;
    this.#pending = [{ round: 0, layer: null, layers: [] }];
  }

  /** The next set of layers to score, or null when the search has ended. The same one until it is recorded. */
  next(): Proposal | null {
    return this.#stopped === undefined ? (this.#pending[this.#scored.length] ?? null) : null;
  }

  /**
   * Takes the score of what `next()` named. NaN and infinities count as minus infinity and never win.
   * @throws RangeError if the base model's score is not finite
   */
  record(score: number): void {
    const proposal = this.next();
    if (proposal === null) throw new RangeError("Cannot record a score: the search has ended");
    if (proposal.round === 0) {
      this.#begin(score);
      return;
    }
    this.#scored.push({ ...proposal, score: Number.isFinite(score) ? score : Number.NEGATIVE_INFINITY });
    if (this.#scored.length === this.#pending.length) this.#endRound();
  }

  /** @throws RangeError before the base model has been scored */
  trajectory(): Trajectory {
    if (this.#base === undefined) throw new RangeError("Cannot read the trajectory: the base model has no score yet");
    return {
      strategy: this.#rules.strategy,
      numLayers: this.#rules.numLayers,
      base: this.#base,
      minScore: Number.isFinite(this.#minScore) ? this.#minScore : null,
      rounds: this.#rounds,
      order: this.#rounds.filter((round) => round.accepted).map((round) => round.chosen.layer),
      best: this.#best,
      optimal: this.#current,
      stopped: this.#stopped ?? "enough_rounds",
    };
  }

  #begin(score: number): void {
    if (!Number.isFinite(score)) throw new RangeError(`Cannot search: the base model scores ${score}`);
    this.#base = score;
    this.#minScore = this.#rules.minScore?.(score) ?? Number.NEGATIVE_INFINITY;
    this.#current = { layers: [], score, round: 0 };
    this.#best = this.#current;
    this.#startRound();
  }

  #startRound(): void {
    const round = this.#rounds.length + 1;
    this.#scored = [];
    if (round > (this.#rules.maxRounds ?? Number.POSITIVE_INFINITY)) {
      this.#stopped = "enough_rounds";
      return;
    }
    this.#pending = this.#rules.propose(round, this.#current.layers, this.#rounds);
    if (this.#pending.length === 0) this.#stopped = "no_candidates";
  }

  #endRound(): void {
    let chosen: Candidate | undefined;
    let star = Number.NEGATIVE_INFINITY;
    for (const candidate of this.#scored) {
      if (candidate.score > star) {
        chosen = candidate;
        star = candidate.score;
      }
    }
    if (chosen === undefined) {
      this.#stopped = "no_candidates";
      return;
    }
    const selection: Selection = { layers: chosen.layers, score: star, round: chosen.round };
    const feasible = star >= this.#minScore;
    if (star >= this.#best.score && (feasible || !this.#rules.bestMustBeFeasible)) this.#best = selection;
    this.#rounds.push({ round: chosen.round, candidates: this.#scored, chosen, accepted: feasible });
    if (feasible) {
      this.#current = selection;
      this.#startRound();
    } else {
      this.#stopped = "below_threshold";
    }
  }
}

/** The model after `numReplaced` rounds of a trajectory; undefined where it did not get that far. */
export function selectReplaced(trajectory: Trajectory, numReplaced: number): Selection | undefined {
  if (numReplaced === 0) return { layers: [], score: trajectory.base, round: 0 };
  const round = trajectory.rounds[numReplaced - 1];
  return round && { layers: round.chosen.layers, score: round.chosen.score, round: round.round };
}

/** `opt` for a threshold, read from a trajectory that ran past it: the last round before the first violation. */
export function selectOptimal(trajectory: Trajectory, minScore: number): Selection {
  let selection: Selection = { layers: [], score: trajectory.base, round: 0 };
  for (const { chosen, round } of trajectory.rounds) {
    if (!(chosen.score >= minScore)) break;
    selection = { layers: chosen.layers, score: chosen.score, round };
  }
  return selection;
}
