// Decode speed of the real engine: every step draws one token of each sequence. Prompts are computed first, or a context
// counts as computed over pools of random numbers. No figure stands unless the tokens and the bits of their log-probabilities
// came out of one forward pass as well: of the sequences measured, or of short ones of the same hybrid. Prints nothing.
import type { Bandwidth } from "./bandwidth.ts";
import { type CacheTypes, costsOf, type ModelCosts } from "./costs.ts";
import { DecodeRun } from "./decode_run.ts";
import { peakMemoryBytes, resetPeakMemory } from "./machine.ts";
import { randomPrompts } from "./prompts.ts";
import { percentile, type Spread, spreadOf } from "./statistics.ts";
import { type EngineSizes, fittingBatch, type Mask, maskCosts, mixersOf, type Subject, withEngine } from "./subject.ts";

export interface DecodeCase extends CacheTypes {
  readonly mask: Mask;
  /** Tokens of each sequence before the first that it draws. */
  readonly context: number;
  /** Sequences that decode together. */
  readonly batch: number;
  /** Steps of one repeat. */
  readonly tokens: number;
  /** Repeats follow one another: repeat r begins `r * tokens` tokens later in the same sequences. */
  readonly repeats: number;
  readonly chunk: number;
  /** "random": the context is not computed, its keys, values and states are random numbers. */
  readonly prompts: "computed" | "random";
}

/** What memory bandwidth allows at most. */
export interface Bound {
  /** Of one step, at the mean context of the repeats. */
  readonly bytes: number;
  readonly tokensPerSecond: number;
}

export interface DecodeFigure {
  /** Over the repeats; tokens of all sequences. */
  readonly tokensPerSecond: Spread;
  readonly stepSeconds: { readonly p50: number; readonly p99: number };
  /** Bytes of weights, KV and states that a step moves, over the time of the fastest step; on a device of the mean step. */
  readonly bytesPerSecond: number;
  /** bytes/s of the bandwidth in the same run, and what it is of. */
  readonly limit: number;
  readonly limitKind: Bandwidth["kind"];
  readonly share: number;
  /** By the bytes that kernels move. */
  readonly bound: Bound;
  /** By the textbook: the full model's weights, all keys and values, states read and written once a step. */
  readonly textbook: Bound;
  /** Share of the steps' time outside kernels; null unless the kernels' time is counted (Ops.load timeKernels). */
  readonly outsideKernels: number | null;
  /** Shares of the repeats' steps that began before the tokens of the one before were known, and that were replayed. */
  readonly stepsAhead: number;
  readonly stepsReplayed: number;
  /** Why steps are not replayed; null: nothing is against it. */
  readonly replayProblem: string | null;
  /** Mean context of the repeats, and the most of one sequence in the last. */
  readonly meanContext: number;
  readonly lastContext: number;
  /** Of the process from the prompts to the last step, without what measuring the limit takes; on a device all it holds. */
  readonly peakMemoryBytes: number;
  /** Sequences whose tokens were compared with a forward pass. */
  readonly numChecked: number;
}

const WARM_UP_STEPS = 6;
/** Steps that an engine may be ahead of what it has reported. */
const AHEAD_STEPS = 2;
const SHORTEST_LIMIT = 0.1;
/** The short sequences whose tokens are compared where those measured cannot be: beyond a page and several blocks. */
const SHORT = { context: 45, tokens: 20, batch: 3, repeats: 1, chunk: 64 };

/** Tokens that checkDecode() needs positions for. */
export const CHECKED_TOKENS = decodeSizes({ ...SHORT, prompts: "computed" } as DecodeCase).maxTokens;

/**
 * Compares short sequences of a hybrid with a forward pass, for cases whose context is not computed; answers how many.
 * @throws KernelError if a token is not the one that the pass finds; RequestError, CapacityError as withEngine()
 */
export function checkDecode(subject: Subject, mask: Mask, types: CacheTypes): number {
  const one: DecodeCase = { ...SHORT, ...types, mask, prompts: "computed" };
  return withEngine(subject, mask, decodeSizes(one), (engine) => {
    const prompts = randomPrompts(subject.model.config.vocabSize, one.batch, one.context);
    const run = new DecodeRun(engine, mask.name, prompts, {
      maxTokens: decodeSizes(one).maxTokens - one.context,
      assumed: false,
    });
    run.begin();
    run.steps(one.tokens);
    return run.compare();
  });
}

/**
 * Measures one case. Where its context is random, checkDecode() comes first.
 * @throws KernelError if a token is not the one that a forward pass finds; RequestError, CapacityError as withEngine()
 */
export function measureDecode(subject: Subject, one: DecodeCase, bandwidth: Bandwidth): DecodeFigure {
  let limit = bandwidth.kind === "copy" ? bandwidth.measure(0, 0) : 0;
  const costs = maskCosts(subject, one.mask, one);
  resetPeakMemory();
  const figure = timeSteps(subject, one, costs, (seconds, bytes) => {
    if (bandwidth.kind === "copy") return;
    // As many samples as steps, as long as these: the fastest of each had the same chance.
    limit = Math.max(limit, bandwidth.measure(Math.max(SHORTEST_LIMIT, seconds), bytes));
    resetPeakMemory();
  });
  if (bandwidth.kind === "copy") limit = Math.max(limit, bandwidth.measure(0, 0));
  const { rates, times, meanContext, ...rest } = figure;
  const bytes = stepBytes(costs, one.batch, meanContext);
  const meanStep = times.reduce((a, b) => a + b, 0) / times.length;
  const bytesPerSecond = bandwidth.kind === "copy" ? bytes / meanStep : figure.bytesPerSecond;
  const bound = (moved: number) => ({ bytes: moved, tokensPerSecond: (one.batch * limit) / moved });
  return {
    ...rest,
    tokensPerSecond: spreadOf(rates),
    stepSeconds: { p50: percentile(times, 0.5), p99: percentile(times, 0.99) },
    bytesPerSecond,
    limit,
    limitKind: bandwidth.kind,
    share: bytesPerSecond / limit,
    bound: bound(bytes),
    textbook: bound(textbookBytes(subject, one, costs, meanContext)),
    meanContext,
  };
}

/** Every key and value is read, and those of one token written. */
function stepBytes(costs: ModelCosts, batch: number, meanContext: number): number {
  return costs.readBytes + batch * (costs.kvBytesPerToken * (meanContext + 1) + costs.stateTraffic);
}

function textbookBytes({ model, pools, ...subject }: Subject, one: DecodeCase, costs: ModelCosts, context: number) {
  const full: Mask = { name: "full", layers: one.mask.layers.map(() => null) };
  const { readBytes } = costsOf(model, mixersOf({ ...subject, model, pools }, full), one);
  return readBytes + one.batch * (costs.kvBytesPerToken * context + 2 * costs.matrixBytes);
}

interface Timed
  extends Pick<
    DecodeFigure,
    | "bytesPerSecond"
    | "outsideKernels"
    | "stepsAhead"
    | "stepsReplayed"
    | "replayProblem"
    | "meanContext"
    | "lastContext"
    | "peakMemoryBytes"
    | "numChecked"
  > {
  readonly rates: readonly number[];
  /** Seconds of every step. */
  readonly times: readonly number[];
}

/** @param between called after each repeat with its seconds and the bytes of one step */
function timeSteps(
  subject: Subject,
  one: DecodeCase,
  costs: ModelCosts,
  between: (seconds: number, bytes: number) => void,
): Timed {
  const { mask, batch, tokens, repeats } = one;
  const sizes = decodeSizes(one);
  const random = one.prompts === "random";
  const hooks = random ? { randomPools: 1 } : {};
  return withEngine(
    subject,
    mask,
    sizes,
    (engine) => {
      const run = new DecodeRun(engine, mask.name, promptsOf(subject, one), {
        maxTokens: sizes.maxTokens - one.context,
        assumed: random,
      });
      run.begin();
      run.steps(WARM_UP_STEPS);
      const rates: number[] = [];
      const times: number[] = [];
      const contexts: number[] = [];
      let [bytesPerSecond, peak, inKernels] = [0, 0, 0];
      const { clock } = subject.ops;
      const counted = engine.stats();
      for (let r = 0; r < repeats; r++) {
        const from = run.numTokens;
        const before = clock?.seconds ?? 0;
        const { seconds, steps } = run.steps(tokens);
        inKernels += (clock?.seconds ?? 0) - before;
        contexts.push((from + run.numTokens) / 2 / batch);
        const bytes = stepBytes(costs, batch, contexts.at(-1)!);
        rates.push((batch * tokens) / seconds);
        times.push(...steps);
        bytesPerSecond = Math.max(bytesPerSecond, bytes / Math.min(...steps));
        peak = Math.max(peak, peakMemoryBytes(subject.ops));
        between(seconds, bytes);
      }
      const lastContext = run.longest;
      const { steps, stepsAhead, stepsReplayed, replayProblem } = engine.stats();
      const shareOf = (count: number) => count / Math.max(1, steps - counted.steps);
      if (random) run.end();
      return {
        rates,
        times,
        bytesPerSecond,
        stepsAhead: shareOf(stepsAhead - counted.stepsAhead),
        stepsReplayed: shareOf(stepsReplayed - counted.stepsReplayed),
        replayProblem,
        outsideKernels: clock === null ? null : 1 - inKernels / times.reduce((a, b) => a + b, 0),
        meanContext: contexts.reduce((a, b) => a + b, 0) / repeats,
        lastContext,
        peakMemoryBytes: peak,
        numChecked: random ? 0 : run.compare(),
      };
    },
    hooks,
  );
}

/** A context that is not computed has no tokens that matter, and one more: that from which the first is drawn. */
function promptsOf({ model }: Subject, { prompts, batch, context }: DecodeCase): Int32Array[] {
  if (prompts === "computed") return randomPrompts(model.config.vocabSize, batch, context);
  return new Array<Int32Array>(batch).fill(new Int32Array(context + 1));
}

/** What the engine must hold: while the last prompts are computed, the first sequences decode already. */
export function decodeSizes({ context, batch, tokens, repeats, chunk, prompts, ...types }: DecodeCase): EngineSizes {
  const { kvDtype, stateDtype } = types;
  const rowsForPrompts = Math.max(1, Math.max(chunk, batch) - batch);
  const lead = prompts === "random" || batch === 1 ? 0 : Math.ceil((batch * context) / rowsForPrompts) + batch;
  const steps = 1 + WARM_UP_STEPS + repeats * tokens + AHEAD_STEPS;
  return { batch, maxTokens: context + lead + steps, chunk, kvDtype, stateDtype };
}

/** The most sequences, up to `most`, that fit into the memory that is free. @throws CapacityError where none does */
export function largestBatch(subject: Subject, one: Omit<DecodeCase, "batch">, most: number): number {
  return fittingBatch(subject, one.mask, (batch) => decodeSizes({ ...one, batch }), most);
}
