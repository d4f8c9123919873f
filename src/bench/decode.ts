// Decode speed of the real engine: prompts are computed, then every step draws one token of each sequence. The drawn tokens
// are compared with one forward pass over prompt and answer before any figure is given. Prints nothing.
import type { Engine } from "../engine/engine.ts";
import { KernelError } from "../errors.ts";
import { peakMemoryBytes, resetPeakMemory, type StreamingRead } from "./machine.ts";
import { randomPrompts } from "./prompts.ts";
import { percentile, type Spread, spreadOf } from "./statistics.ts";
import { type EngineSizes, type Mask, maskCosts, type Subject, withEngine } from "./subject.ts";

export interface DecodeCase {
  readonly mask: Mask;
  /** Tokens of each prompt. */
  readonly context: number;
  /** Sequences that decode together. */
  readonly batch: number;
  /** Steps of one repeat. */
  readonly tokens: number;
  /** Repeats follow one another: repeat r begins `r * tokens` tokens later in the same sequences. */
  readonly repeats: number;
  readonly chunk: number;
  readonly kvDtype: "f32" | "bf16";
}

export interface DecodeFigure {
  /** Over the repeats; tokens of all sequences. */
  readonly tokensPerSecond: Spread;
  readonly stepSeconds: { readonly p50: number; readonly p99: number };
  /** Bytes of weights, KV and states (read and written) that a step moves, over the time of the fastest step. */
  readonly bytesPerSecond: number;
  /** bytes/s of a plain streaming read, measured between the repeats. */
  readonly limit: number;
  readonly share: number;
  /** Most context of one sequence in the last repeat. */
  readonly lastContext: number;
  readonly peakMemoryBytes: number;
  /** Sequences whose tokens were compared with a forward pass. */
  readonly numChecked: number;
}

const WARM_UP_STEPS = 3;
const LIMIT_SECONDS = 0.15;
/** Tokens that the comparison may compute again, beyond the first sequence. */
const CHECK_TOKENS = 8192;

/**
 * Measures one case.
 * @throws KernelError if a token is not the one that a forward pass finds; RequestError, CapacityError as withEngine()
 */
export function measureDecode(subject: Subject, one: DecodeCase, read: StreamingRead): DecodeFigure {
  const { mask, context, batch, tokens, repeats, kvDtype } = one;
  const prompts = randomPrompts(subject.model.config.vocabSize, batch, context);
  const costs = maskCosts(subject, mask, kvDtype);
  resetPeakMemory();
  return withEngine(subject, mask, decodeSizes(one), (engine) => {
    const run = new DecodeRun(engine, mask.name, prompts, decodeSizes(one).maxTokens - context);
    run.step();
    while (!run.allDecode) run.step();
    for (let i = 0; i < WARM_UP_STEPS; i++) run.timedStep();
    const rates: number[] = [];
    const times: number[] = [];
    let [bytesPerSecond, limit] = [0, 0];
    for (let r = 0; r < repeats; r++) {
      const from = run.numTokens;
      const steps = Array.from({ length: tokens }, () => run.timedStep());
      const seconds = steps.reduce((a, b) => a + b, 0);
      const kvBytes = costs.kvBytesPerToken * ((from + run.numTokens) / 2);
      const bytes = costs.readBytes + kvBytes + 2 * batch * costs.stateBytes;
      rates.push((batch * tokens) / seconds);
      times.push(...steps);
      bytesPerSecond = Math.max(bytesPerSecond, bytes / Math.min(...steps));
      limit = Math.max(limit, read.measure(LIMIT_SECONDS, bytes));
    }
    const lastContext = run.longest;
    const numChecked = run.finish();
    return {
      tokensPerSecond: spreadOf(rates),
      stepSeconds: { p50: percentile(times, 0.5), p99: percentile(times, 0.99) },
      bytesPerSecond,
      limit,
      share: bytesPerSecond / limit,
      lastContext,
      peakMemoryBytes: peakMemoryBytes(),
      numChecked,
    };
  });
}

/** What the engine must hold: while the last prompts are computed, the first sequences decode already. */
export function decodeSizes({ context, batch, tokens, repeats, chunk, kvDtype }: DecodeCase): EngineSizes {
  const rowsForPrompts = Math.max(1, Math.max(chunk, batch) - batch);
  const lead = batch === 1 ? 0 : Math.ceil((batch * context) / rowsForPrompts) + batch;
  return { batch, maxTokens: context + lead + WARM_UP_STEPS + repeats * tokens + 1, chunk, kvDtype };
}

/** Sequences that decode without end. */
class DecodeRun {
  readonly #engine: Engine;
  readonly #hybrid: string;
  readonly #prompts: readonly Int32Array[];
  readonly #answers = new Map<number, number[]>();

  constructor(engine: Engine, hybrid: string, prompts: readonly Int32Array[], maxTokens: number) {
    this.#engine = engine;
    this.#hybrid = hybrid;
    this.#prompts = prompts;
    for (const promptIds of prompts) this.#answers.set(engine.add({ hybrid, promptIds, maxTokens }), []);
  }

  get allDecode(): boolean {
    return [...this.#answers.values()].every((answer) => answer.length > 0);
  }

  /** Tokens of all sequences. */
  get numTokens(): number {
    return [...this.#answers.values()].reduce((sum, answer, i) => sum + this.#prompts[i]!.length + answer.length, 0);
  }

  get longest(): number {
    return Math.max(...[...this.#answers.values()].map((answer, i) => this.#prompts[i]!.length + answer.length));
  }

  step(): number {
    const { events, failed, numDecodeTokens } = this.#engine.step();
    if (failed.length > 0) throw failed[0]!.error;
    for (const { id, event } of events) this.#answers.get(id)!.push(...event.tokenIds);
    return numDecodeTokens;
  }

  /** Seconds of a step in which every sequence draws a token. */
  timedStep(): number {
    const started = performance.now();
    const numTokens = this.step();
    const seconds = (performance.now() - started) / 1000;
    if (numTokens !== this.#prompts.length) {
      throw new KernelError(`Cannot time decoding: a step drew ${numTokens} tokens, expected ${this.#prompts.length}`);
    }
    return seconds;
  }

  /** Ends the sequences and compares their tokens with the most likely ones of a forward pass. @throws KernelError */
  finish(): number {
    const answers = [...this.#answers.values()];
    for (const id of this.#answers.keys()) this.#engine.cancel(id);
    let [budget, numChecked] = [CHECK_TOKENS, 0];
    for (const [i, contextIds] of this.#prompts.entries()) {
      budget -= contextIds.length + answers[i]!.length;
      if (i > 0 && budget < 0) break;
      const request = { hybrid: this.#hybrid, contextIds, continuationIds: answers[i]! };
      const { argmax, greedy } = this.#engine.score([request])[0]!;
      if (!greedy) {
        const at = argmax.findIndex((id, t) => id !== answers[i]![t]);
        throw new KernelError(
          `Cannot give a figure for "${this.#hybrid}": token ${at} of sequence ${i} is ${answers[i]![at]}, ` +
            `a forward pass finds ${argmax[at]}`,
        );
      }
      numChecked++;
    }
    return numChecked;
  }
}
