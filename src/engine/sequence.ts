// One sequence's whole state: its tokens, how far they are computed, and the pages and slots it holds.
// Knows neither queue nor batch; scheduler.ts moves it.
import type { TokenConstraint } from "./constraint.ts";
import type { Hybrid } from "./hybrid.ts";
import { LogitAdjustments } from "./logit_adjustments.ts";
import type { Snapshot } from "./prefix_cache.ts";
import { Stopwatch } from "./timings.ts";
import type { FinishReason, SamplingParams, TokenLogprob, Usage } from "./types.ts";

/** How a sequence's tokens are drawn, every default filled in. */
export interface SamplingState extends Required<SamplingParams> {
  readonly choice: number;
  /** -1: no log-probabilities; k: of the chosen token and the k most likely. */
  readonly numLogprobs: number;
}

/** What a scored sequence collects, one entry per continuation token. */
export interface ScoreState {
  /** Index of the first continuation token. */
  readonly from: number;
  readonly logprobs: Float32Array;
  readonly argmax: Int32Array;
  /** Most likely ids wanted at each place, and what was found of them. */
  readonly numTop: number;
  readonly top: TokenLogprob[][];
}

/** Sequences that score continuations of one context under one hybrid. */
export interface ShareGroup {
  readonly key: string;
  /** Members that have not begun. */
  waiting: number;
  /** Their common prefix, once a member has computed it. */
  snapshot: Snapshot | null;
}

/** What a checked request says of its sequence. */
export interface SequenceSpec {
  readonly id: number;
  readonly hybrid: Hybrid;
  /** Copied by the caller: the sequence appends to it. */
  readonly tokens: number[];
  /** Number of tokens at which a generated sequence has its full length. */
  readonly maxTokens: number;
  readonly sampling: SamplingState;
  readonly stopIds: ReadonlySet<number>;
  /** null: any text. */
  readonly constraint: TokenConstraint | null;
  /** null: generate. */
  readonly score: ScoreState | null;
  /** Lower goes first. */
  readonly priority: number;
  /** Milliseconds from acceptance; Infinity = none. */
  readonly deadlineMs: number;
  /** Token counts at which messages of the prompt end, ascending. */
  readonly boundaries: readonly number[];
}

/** Mutable; one per request. */
export class Sequence {
  readonly id: number;
  readonly hybrid: Hybrid;
  readonly tokens: number[];
  readonly numPrompt: number;
  readonly maxTokens: number;
  readonly sampling: SamplingState;
  readonly stopIds: ReadonlySet<number>;
  readonly constraint: TokenConstraint | null;
  /** Penalties and biases as of its last token; like the tokens they outlive a preemption. */
  readonly adjustments: LogitAdjustments | null;
  readonly score: ScoreState | null;
  readonly priority: number;
  readonly deadlineMs: number;
  readonly boundaries: readonly number[];
  readonly stopwatch = new Stopwatch();
  /** On the engine's clock, in milliseconds. */
  deadlineAt = Number.POSITIVE_INFINITY;
  status: "waiting" | "running" | "finished" = "waiting";
  /** Whether what it runs on is in memory; until then it waits, and others are not held up by it. */
  ready = true;
  /** Tokens whose keys, values and states the pools hold. */
  numComputed = 0;
  /** Tokens that count as computed from the start, whatever the pools hold in their places; for measuring. */
  assumed = 0;
  /** KV pages; page of full layer f and token block j at [j * numFull + f]. */
  readonly pages: number[] = [];
  /** State slots, one per linear layer. */
  readonly stateSlots: number[] = [];
  /** Whether the step that feeds its last token has been begun already. */
  ahead = false;
  /** How often it has begun to run: its places in the pools are others each time. */
  numStarts = 0;
  /** Index among the running sequences, which names its rows of the page table; -1 while it does not run. */
  slot = -1;
  /** Token blocks already written to the page table. */
  tableBlocks = 0;
  /** Tokens that it took from the prefix cache when it first began; -1 before. */
  cachedTokens = -1;
  /** Positions ahead at which its prefix is to be kept for others, ascending. */
  keepAt: number[] = [];
  /** Scorings of the same context that it can share its prefix with. */
  group: ShareGroup | null = null;

  constructor(spec: SequenceSpec) {
    this.id = spec.id;
    this.hybrid = spec.hybrid;
    this.tokens = spec.tokens;
    this.numPrompt = spec.tokens.length;
    this.maxTokens = spec.maxTokens;
    this.sampling = spec.sampling;
    this.stopIds = spec.stopIds;
    this.constraint = spec.constraint;
    this.adjustments = LogitAdjustments.of(spec.sampling, spec.tokens);
    this.score = spec.score;
    this.priority = spec.priority;
    this.deadlineMs = spec.deadlineMs;
    this.boundaries = spec.boundaries;
  }

  /** Its time begins to run. */
  accept(now: number): void {
    this.stopwatch.accept(now);
    this.deadlineAt = now + this.deadlineMs;
  }

  /** Tokens that the model must see next; a scored sequence's last token is never fed. */
  get numFed(): number {
    return this.score === null ? this.tokens.length : this.tokens.length - 1;
  }

  get numPending(): number {
    return this.numFed - this.numComputed;
  }

  /** Most tokens that will ever be fed: what it may need of the KV cache. */
  get maxFed(): number {
    return this.score === null ? this.maxTokens - 1 : this.numFed;
  }

  /** First position whose logits are wanted. */
  get outputFrom(): number {
    return this.score === null ? this.tokens.length - 1 : this.score.from - 1;
  }

  /** Appends a generated token and says whether it ends the sequence. @throws what the constraint does */
  append(id: number): FinishReason | null {
    this.tokens.push(id);
    if (this.stopIds.has(id)) return "stop";
    this.adjustments?.accept(id);
    this.constraint?.accept(id);
    if (this.constraint?.done) return "stop";
    return this.tokens.length >= this.maxTokens ? "length" : null;
  }

  get usage(): Usage {
    const promptTokens = this.numPrompt;
    return {
      promptTokens,
      completionTokens: this.tokens.length - promptTokens,
      cachedTokens: Math.max(0, this.cachedTokens),
    };
  }
}

/** The order in which sequences are served: by priority, then by arrival. */
export function byPriority(a: Sequence, b: Sequence): number {
  return a.priority - b.priority || a.id - b.id;
}

/** Soonest deadline first. */
export function byDeadline(a: Sequence, b: Sequence): number {
  return a.deadlineAt - b.deadlineAt || a.id - b.id;
}
