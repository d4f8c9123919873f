// How prompts go through the model beside streams: how many of their rows at a time, and for how long in each step. Knows
// counts and durations, neither sequences nor clocks.

/** From so many on, prompt rows come in multiples of it, as kernels like them. */
const ROW_TILE = 16;
const FIRST_ROWS = 64;
/** A layer of prompt rows is to take about this part of the time that a step has for them. */
const LAYER_SHARE = 0.5;
/** Part of the time allowed that is planned for; the rest is for noise. */
const MARGIN = 0.75;
/** Steps by which the time of a decode step is known: one that a busy machine held up is not answered with more of the same. */
const RECENT = 15;

/**
 * Where streams decode, prompt rows take turns with them layer by layer: each step computes the streams' tokens, then takes
 * the prompt rows on by as many layers as fit into (interference - 1) times what the tokens took. So the time between tokens
 * is bounded however deep the prompt is, and the rows stay many enough to be computed well. Their number follows from the
 * slowest layers of the last ones: it at most doubles, and at most halves.
 */
export class PrefillPacer {
  /** A step with prompt rows may take that many times one without; 0 = no bound: all rows of a step go together. */
  readonly interference: number;
  #rows = FIRST_ROWS;
  readonly #decodeMs: number[] = [];
  #next = 0;

  constructor(interference: number) {
    this.interference = interference;
  }

  /** Whether prompt rows take turns with streams. */
  get bounded(): boolean {
    return this.interference > 0;
  }

  /** Prompt rows to begin beside streams, at least one. */
  get rows(): number {
    return this.#rows;
  }

  /** Milliseconds for prompt rows in a step whose streams took `decodeMs`. */
  allowance(decodeMs: number): number {
    this.#decodeMs[this.#next] = decodeMs;
    this.#next = (this.#next + 1) % RECENT;
    const usual = this.#decodeMs.toSorted((a, b) => a - b)[this.#decodeMs.length >>> 1]!;
    return Math.min(decodeMs, usual) * (this.interference - 1) * MARGIN;
  }

  /** `rows` prompt rows are through: what their layers took each, and the shortest time that a step had for them. */
  observe(rows: number, layerMs: readonly number[], allowanceMs: number): void {
    // The dearest tenth is left out: noise, and the head, which only the last rows of a prompt meet.
    const slow = layerMs.toSorted((a, b) => a - b)[Math.floor(0.9 * (layerMs.length - 1))] ?? 0;
    if (slow === 0 || !Number.isFinite(allowanceMs)) return;
    const factor = Math.min(2, Math.max(0.5, (LAYER_SHARE * allowanceMs) / slow));
    // Fewer rows than there might have been, at a prompt's end, say nothing of more.
    if (factor > 1 && rows < this.#rows) return;
    const next = Math.floor(rows * factor);
    this.#rows = next < ROW_TILE ? Math.max(1, next) : Math.floor(next / ROW_TILE) * ROW_TILE;
  }
}
