// What penalties and biases do to one sequence's logits, as the entries that graft_adjust_logits reads. A token changes
// one entry, so a step copies them and counts nothing. A function of the request and the tokens so far alone.
import { ADJUSTMENT_WORDS } from "../ops/sampling_ops.ts";
import type { SamplingParams } from "./types.ts";

/** The sampling parameters that change single logits. */
export type AdjustingParams = Pick<
  Required<SamplingParams>,
  "presencePenalty" | "frequencyPenalty" | "repetitionPenalty" | "logitBias"
>;

/** Entries of one sequence: (id, scale, add) each, no id twice. */
export class LogitAdjustments {
  readonly #params: AdjustingParams;
  /** Place of an id's entry. */
  readonly #places = new Map<number, number>();
  /** Beside each entry: its bias, and how often its id has been generated. */
  readonly #biases: number[] = [];
  readonly #counts: number[] = [];
  #words = new Int32Array(16 * ADJUSTMENT_WORDS);
  #floats = new Float32Array(this.#words.buffer);

  /** Null where nothing is asked for, which costs nothing then. */
  static of(params: AdjustingParams, promptIds: readonly number[]): LogitAdjustments | null {
    const { presencePenalty, frequencyPenalty, repetitionPenalty, logitBias } = params;
    const off = presencePenalty === 0 && frequencyPenalty === 0 && repetitionPenalty === 1 && logitBias.length === 0;
    return off ? null : new LogitAdjustments(params, promptIds);
  }

  private constructor(params: AdjustingParams, promptIds: readonly number[]) {
    this.#params = params;
    for (const [id, bias] of params.logitBias) this.#biases[this.#place(id)] = bias;
    if (params.repetitionPenalty !== 1) for (const id of promptIds) this.#repeat(this.#place(id));
    for (let place = 0; place < this.size; place++) this.#write(place);
  }

  /** Number of entries. */
  get size(): number {
    return this.#biases.length;
  }

  /** Takes a generated token. */
  accept(id: number): void {
    const { presencePenalty, frequencyPenalty, repetitionPenalty } = this.#params;
    if (presencePenalty === 0 && frequencyPenalty === 0 && repetitionPenalty === 1) return;
    const place = this.#place(id);
    this.#counts[place]!++;
    this.#repeat(place);
    this.#write(place);
  }

  /** Writes all entries to `words` from word `at` on. */
  copyTo(words: Int32Array, at: number): void {
    words.set(this.#words.subarray(0, this.size * ADJUSTMENT_WORDS), at);
  }

  #place(id: number): number {
    const known = this.#places.get(id);
    if (known !== undefined) return known;
    const place = this.size;
    this.#places.set(id, place);
    this.#biases.push(0);
    this.#counts.push(0);
    if (this.size * ADJUSTMENT_WORDS > this.#words.length) this.#grow();
    this.#words[place * ADJUSTMENT_WORDS] = id;
    this.#floats[place * ADJUSTMENT_WORDS + 1] = 1;
    return place;
  }

  /** Its id stands in the prompt or among the generated tokens. */
  #repeat(place: number): void {
    this.#floats[place * ADJUSTMENT_WORDS + 1] = this.#params.repetitionPenalty;
  }

  /** The addend from the count as a whole, so that no rounding piles up. */
  #write(place: number): void {
    const { presencePenalty, frequencyPenalty } = this.#params;
    const count = this.#counts[place]!;
    const penalty = count === 0 ? 0 : presencePenalty + frequencyPenalty * count;
    this.#floats[place * ADJUSTMENT_WORDS + 2] = this.#biases[place]! - penalty;
  }

  #grow(): void {
    const words = new Int32Array(2 * this.#words.length);
    words.set(this.#words);
    this.#words = words;
    this.#floats = new Float32Array(words.buffer);
  }
}
