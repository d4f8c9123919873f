// Prefill speed of the real engine: from prompts to the first token of each. That token and its log-probability must come
// out of another cut of the same prompt into chunks bit for bit before any figure is given. Prints nothing.
import type { Engine } from "../engine/engine.ts";
import { KernelError } from "../errors.ts";
import type { CacheTypes } from "./costs.ts";
import { peakFlops, peakMemoryBytes, resetPeakMemory } from "./machine.ts";
import { randomPrompts } from "./prompts.ts";
import { type Spread, spreadOf } from "./statistics.ts";
import { type EngineSizes, type Mask, maskCosts, type Subject, type WeightType, withEngine } from "./subject.ts";

export interface PrefillCase extends CacheTypes {
  readonly mask: Mask;
  /** Tokens of each prompt. */
  readonly context: number;
  readonly batch: number;
  readonly repeats: number;
  readonly chunk: number;
  /** What the linear weights are held as: decides whose unit's peak is the limit. */
  readonly weightType: WeightType;
}

export interface PrefillFigure {
  /** Over the repeats; tokens of all prompts. */
  readonly tokensPerSecond: Spread;
  /** Of the best repeat. */
  readonly flopsPerSecond: number;
  /** FLOP/s of multiply-adds in registers, measured between the repeats. */
  readonly limit: number;
  readonly share: number;
  readonly peakMemoryBytes: number;
  /** Prompts whose first token was compared. */
  readonly numChecked: number;
}

/** Rows that come before a prompt when it is computed again, so that its chunks are cut elsewhere. */
const SHIFT = 7;

/** The first token after a prompt. */
interface FirstToken {
  readonly id: number;
  readonly logprob: number;
}

/**
 * Measures one case, after one run that does not count.
 * @throws KernelError if another cut of the prompt gives other bits; RequestError, CapacityError as withEngine()
 */
export function measurePrefill(subject: Subject, one: PrefillCase): PrefillFigure {
  const { mask, context, batch, repeats, weightType } = one;
  const { ops, model } = subject;
  const flops = maskCosts(subject, mask, one).prefillFlops(batch, context);
  resetPeakMemory();
  return withEngine(subject, mask, prefillSizes(one), (engine) => {
    const prompts = randomPrompts(model.config.vocabSize, batch, context);
    const numChecked = check(engine, mask.name, prompts);
    const rates: number[] = [];
    let limit = 0;
    for (let r = 0; r < repeats; r++) {
      const started = performance.now();
      firstTokens(engine, mask.name, prompts);
      const seconds = (performance.now() - started) / 1000;
      rates.push((batch * context) / seconds);
      limit = Math.max(limit, peakFlops(ops, weightType, seconds)); // as long, so that others disturb both alike
    }
    const tokensPerSecond = spreadOf(rates);
    const flopsPerSecond = (flops * tokensPerSecond.best) / (batch * context);
    const share = flopsPerSecond / limit;
    return { tokensPerSecond, flopsPerSecond, limit, share, peakMemoryBytes: peakMemoryBytes(ops), numChecked };
  });
}

/** One sequence more than the batch holds the rows that shift the chunks. */
function prefillSizes({ context, batch, chunk, kvDtype, stateDtype }: PrefillCase): EngineSizes {
  return { batch: batch + 1, maxTokens: Math.max(context, SHIFT) + 1, chunk, kvDtype, stateDtype };
}

function firstTokens(engine: Engine, hybrid: string, prompts: readonly Int32Array[]): FirstToken[] {
  const requests = prompts.map((promptIds) => ({ hybrid, promptIds, maxTokens: 1, logprobs: 0 }));
  return engine.generate(requests).map(({ tokenIds, logprobs }) => ({ id: tokenIds[0]!, logprob: logprobs![0]! }));
}

/** Computes the last prompt again behind a few rows of another sequence. @throws KernelError */
function check(engine: Engine, hybrid: string, prompts: readonly Int32Array[]): number {
  const drawn = firstTokens(engine, hybrid, prompts).at(-1)!;
  const contextIds = prompts.at(-1)!;
  const shift = { hybrid, contextIds: contextIds.subarray(0, 1), continuationIds: new Int32Array(SHIFT) };
  const again = { hybrid, contextIds, continuationIds: [drawn.id] };
  const { argmax, logprobs } = engine.score([shift, again])[1]!;
  if (argmax[0] === drawn.id && logprobs[0] === drawn.logprob) return 1;
  throw new KernelError(
    `Cannot give a figure for "${hybrid}": the first token is ${drawn.id} (${drawn.logprob}), ` +
      `in other chunks ${argmax[0]} (${logprobs[0]})`,
  );
}
