// Sequences that decode without end in the real engine, and the comparison of what they drew with a forward pass.
import type { Engine } from "../engine/engine.ts";
import { KernelError } from "../errors.ts";

/** What one sequence has drawn. */
interface Answer {
  readonly tokenIds: number[];
  readonly logprobs: number[];
}

/** Steps that in all brought one token to every sequence, as often as was asked. */
export interface TimedSteps {
  readonly seconds: number;
  /** Of every step that brought tokens. */
  readonly steps: readonly number[];
}

/** Tokens that the comparison may compute again, beyond the first sequence. */
const CHECK_TOKENS = 8192;

/** One run of a batch. */
export class DecodeRun {
  readonly #engine: Engine;
  readonly #hybrid: string;
  readonly #prompts: readonly Int32Array[];
  readonly #answers = new Map<number, Answer>();

  /** @param assumed whether the prompts count as computed */
  constructor(
    engine: Engine,
    hybrid: string,
    prompts: readonly Int32Array[],
    { maxTokens, assumed }: { readonly maxTokens: number; readonly assumed: boolean },
  ) {
    this.#engine = engine;
    this.#hybrid = hybrid;
    this.#prompts = prompts;
    for (const promptIds of prompts) {
      const request = { hybrid, promptIds, maxTokens, ...(assumed ? {} : { logprobs: 0 }) };
      const id = assumed ? engine.addAssumed(request) : engine.add(request);
      this.#answers.set(id, { tokenIds: [], logprobs: [] });
    }
  }

  /** Steps until every sequence has drawn a token. */
  begin(): void {
    do this.#step();
    while ([...this.#answers.values()].some(({ tokenIds }) => tokenIds.length === 0));
  }

  /** Tokens of all sequences. */
  get numTokens(): number {
    return this.#lengths().reduce((a, b) => a + b, 0);
  }

  get longest(): number {
    return this.#lengths().reduce((a, b) => Math.max(a, b), 0);
  }

  /** Steps until every sequence has drawn `tokens` more. @throws KernelError where a step draws for some of them only */
  steps(tokens: number): TimedSteps {
    const started = performance.now();
    const steps: number[] = [];
    for (let from = started; steps.length < tokens; ) {
      const drawn = this.#step();
      const now = performance.now();
      if (drawn === 0) continue;
      if (drawn !== this.#prompts.length) {
        throw new KernelError(`Cannot time decoding: a step drew ${drawn} tokens, expected ${this.#prompts.length}`);
      }
      steps.push((now - from) / 1000);
      from = now;
    }
    return { seconds: (performance.now() - started) / 1000, steps };
  }

  /** Ends the sequences. */
  end(): void {
    for (const id of this.#answers.keys()) this.#engine.cancel(id);
  }

  /** Ends the sequences and compares as many as the budget allows. @throws KernelError */
  compare(): number {
    this.end();
    const answers = [...this.#answers.values()];
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

  /** Tokens that one step of the engine brought. */
  #step(): number {
    const { events, failed, numDecodeTokens, numPrefillTokens } = this.#engine.step();
    if (failed.length > 0) throw failed[0]!.error;
    if (numDecodeTokens + numPrefillTokens === 0)
      throw new KernelError("Cannot time decoding: no sequence is admitted");
    for (const { id, event } of events) {
      const answer = this.#answers.get(id)!;
      answer.tokenIds.push(...event.tokenIds);
      answer.logprobs.push(...(event.logprobs ?? []));
    }
    return events.length;
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
