// Decode speed of the real engine: prompts are computed, then every step draws one token of each sequence. The tokens and the
// bits of their log-probabilities must come out of one forward pass over prompt and answer as well before any figure is
// given: random weights repeat their tokens, so tokens alone would show little. Prints nothing.
import type { Engine } from "../engine/engine.ts";
import { KernelError } from "../errors.ts";
import type { CacheTypes } from "./costs.ts";
import { peakMemoryBytes, resetPeakMemory, type StreamingRead } from "./machine.ts";
import { randomPrompts } from "./prompts.ts";
import { percentile, type Spread, spreadOf } from "./statistics.ts";
import { type EngineSizes, type Mask, maskCosts, type Subject, withEngine } from "./subject.ts";

export interface DecodeCase extends CacheTypes {
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
}

export interface DecodeFigure {
  /** Over the repeats; tokens of all sequences. */
  readonly tokensPerSecond: Spread;
  readonly stepSeconds: { readonly p50: number; readonly p99: number };
  /** Bytes of weights, KV and states that a step reads, over the time of the fastest step. */
  readonly bytesPerSecond: number;
  /** bytes/s of a plain streaming read, measured between the repeats. */
  readonly limit: number;
  readonly share: number;
  /** Share of the steps' time outside kernels; null unless the kernels' time is counted (Ops.load timeKernels). */
  readonly outsideKernels: number | null;
  /** Most context of one sequence in the last repeat. */
  readonly lastContext: number;
  /** Of the process from the prompts to the last step, without what measuring the limit takes. */
  readonly peakMemoryBytes: number;
  /** Sequences whose tokens were compared with a forward pass. */
  readonly numChecked: number;
}

const WARM_UP_STEPS = 3;
const SHORTEST_LIMIT = 0.1;
/** Tokens that the comparison may compute again, beyond the first sequence. */
const CHECK_TOKENS = 8192;

/**
 * Measures one case.
 * @throws KernelError if a token is not the one that a forward pass finds; RequestError, CapacityError as withEngine()
 */
export function measureDecode(subject: Subject, one: DecodeCase, read: StreamingRead): DecodeFigure {
  const { mask, context, batch, tokens, repeats } = one;
  const costs = maskCosts(subject, mask, one);
  resetPeakMemory();
  return withEngine(subject, mask, decodeSizes(one), (engine) => {
    const prompts = randomPrompts(subject.model.config.vocabSize, batch, context);
    const run = new DecodeRun(engine, mask.name, prompts, decodeSizes(one).maxTokens - context);
    run.step();
    while (!run.allDecode) run.step();
    for (let i = 0; i < WARM_UP_STEPS; i++) run.timedStep();
    const rates: number[] = [];
    const times: number[] = [];
    let [bytesPerSecond, limit, peak, inKernels] = [0, 0, 0, 0];
    const { clock } = subject.ops;
    for (let r = 0; r < repeats; r++) {
      const from = run.numTokens;
      const before = clock?.seconds ?? 0;
      const steps = Array.from({ length: tokens }, () => run.timedStep());
      inKernels += (clock?.seconds ?? 0) - before;
      const seconds = steps.reduce((a, b) => a + b, 0);
      const kvBytes = costs.kvBytesPerToken * ((from + run.numTokens) / 2);
      const bytes = costs.readBytes + kvBytes + batch * costs.stateBytes;
      rates.push((batch * tokens) / seconds);
      times.push(...steps);
      bytesPerSecond = Math.max(bytesPerSecond, bytes / Math.min(...steps));
      peak = Math.max(peak, peakMemoryBytes());
      // As many samples as steps, as long as these: the fastest of each had the same chance.
      limit = Math.max(limit, read.measure(Math.max(SHORTEST_LIMIT, seconds), bytes));
      resetPeakMemory();
    }
    const lastContext = run.longest;
    const numChecked = run.finish();
    return {
      tokensPerSecond: spreadOf(rates),
      stepSeconds: { p50: percentile(times, 0.5), p99: percentile(times, 0.99) },
      bytesPerSecond,
      limit,
      share: bytesPerSecond / limit,
      outsideKernels: clock === null ? null : 1 - inKernels / times.reduce((a, b) => a + b, 0),
      lastContext,
      peakMemoryBytes: peak,
      numChecked,
    };
  });
}

/** What the engine must hold: while the last prompts are computed, the first sequences decode already. */
export function decodeSizes({ context, batch, tokens, repeats, chunk, ...types }: DecodeCase): EngineSizes {
  const { kvDtype, stateDtype } = types;
  const rowsForPrompts = Math.max(1, Math.max(chunk, batch) - batch);
  const lead = batch === 1 ? 0 : Math.ceil((batch * context) / rowsForPrompts) + batch;
  return { batch, maxTokens: context + lead + WARM_UP_STEPS + repeats * tokens + 1, chunk, kvDtype, stateDtype };
}

/** What one sequence has drawn. */
interface Answer {
  readonly tokenIds: number[];
  readonly logprobs: number[];
}

/** Sequences that decode without end. */
class DecodeRun {
  readonly #engine: Engine;
  readonly #hybrid: string;
  readonly #prompts: readonly Int32Array[];
  readonly #answers = new Map<number, Answer>();

  constructor(engine: Engine, hybrid: string, prompts: readonly Int32Array[], maxTokens: number) {
    this.#engine = engine;
    this.#hybrid = hybrid;
    this.#prompts = prompts;
    for (const promptIds of prompts) {
      const id = engine.add({ hybrid, promptIds, maxTokens, logprobs: 0 });
      this.#answers.set(id, { tokenIds: [], logprobs: [] });
    }
  }

  get allDecode(): boolean {
    return [...this.#answers.values()].every(({ tokenIds }) => tokenIds.length > 0);
  }

  /** Tokens of all sequences. */
  get numTokens(): number {
    return this.#lengths().reduce((a, b) => a + b, 0);
  }

  get longest(): number {
    return Math.max(...this.#lengths());
  }

  step(): number {
    const { events, failed, numDecodeTokens, numPrefillTokens } = this.#engine.step();
    if (failed.length > 0) throw failed[0]!.error;
    if (numDecodeTokens + numPrefillTokens === 0)
      throw new KernelError("Cannot time decoding: no sequence is admitted");
    for (const { id, event } of events) {
      const answer = this.#answers.get(id)!;
      answer.tokenIds.push(...event.tokenIds);
      answer.logprobs.push(...event.logprobs!);
    }
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

  /** Ends the sequences and compares as many as the budget allows. @throws KernelError */
  finish(): number {
    const answers = [...this.#answers.values()];
    for (const id of this.#answers.keys()) this.#engine.cancel(id);
    let [budget, numChecked] = [CHECK_TOKENS, 0];
    for (const [i, contextIds] of this.#prompts.entries()) {
      const answer = answers[i]!;
      budget -= contextIds.length + answer.tokenIds.length;
      if (i > 0 && budget < 0) break;
      this.#compare(i, contextIds, answer);
      numChecked++;
    }
    return numChecked;
  }

  /** One forward pass over prompt and answer must find the same. @throws KernelError */
  #compare(index: number, contextIds: Int32Array, { tokenIds, logprobs }: Answer): void {
    const request = { hybrid: this.#hybrid, contextIds, continuationIds: tokenIds };
    const scored = this.#engine.score([request])[0]!;
    const at = tokenIds.findIndex((id, t) => id !== scored.argmax[t] || logprobs[t] !== scored.logprobs[t]);
    if (at < 0) return;
    throw new KernelError(
      `Cannot give a figure for "${this.#hybrid}": token ${at} of sequence ${index} is ${tokenIds[at]} ` +
        `(${logprobs[at]}), a forward pass finds ${scored.argmax[at]} (${scored.logprobs[at]})`,
    );
  }

  #lengths(): number[] {
    return [...this.#answers.values()].map(({ tokenIds }, i) => this.#prompts[i]!.length + tokenIds.length);
  }
}
