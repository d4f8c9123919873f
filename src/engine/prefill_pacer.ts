// How many prompt rows may share a step with streams that decode, so that the step stays within a multiple of what it would
// take without them. Learns both from the steps as they are; knows counts and durations, neither sequences nor clocks.

/** From so many on, prompt rows come in multiples of it, as kernels like them. */
export const ROW_TILE = 16;

/** Part of the time allowed beyond a decode step that is planned for; the rest is for noise. */
const MARGIN = 0.85;
/** Measurements that count. */
const RECENT = 5;
/** Decode steps that must be known of a size. */
const ENOUGH = 3;
/** Mixed steps after which the time of a decode step is looked at anew. */
const STALE_AFTER = 48;

/** Decode steps of about one size. */
interface DecodeTimes {
  readonly times: Recent;
  /** Number of mixed steps there had been at the last one. */
  seenAt: number;
}

/**
 * A step with prompt rows takes about D(n) + c·R: n decode rows alone, and R prompt rows at c each. D is the median of the
 * last decode-only steps with about n rows; where few are known, or none of late, the next step is one. c is taken from
 * the last mixed steps, since rows deep in a prompt cost more than its first ones: the dearest but one, so that one outlier
 * changes nothing. R at most doubles from one step to the next, and shrinks at once after a step that took too long: a
 * wrong guess costs one step.
 */
export class PrefillPacer {
  /** A step may take at most that many times a decode step; 0 = no bound. */
  readonly interference: number;
  readonly #decode = new Map<number, DecodeTimes>();
  readonly #rowCost = new Recent();
  #maxRows = 1;
  #allowance = 0;
  #numMixed = 0;
  #mayProbe = true;

  constructor(interference: number) {
    this.interference = interference;
  }

  /**
   * Prompt rows that the next step may take beside `decodeRows` rows of streams: unbounded where there are none, else at
   * least 1, so that a prompt always gets on; 0 only to measure a step without them, never twice without a mixed step between.
   */
  allowance(decodeRows: number): number {
    if (this.interference === 0 || decodeRows === 0) return Number.POSITIVE_INFINITY;
    this.#allowance = this.#rowsBeside(this.#decode.get(sizeClass(decodeRows)));
    return this.#allowance;
  }

  /** The step that allowance() was asked about has been computed in that many milliseconds. */
  observe(decodeRows: number, promptRows: number, ms: number): void {
    if (decodeRows === 0) return;
    const size = sizeClass(decodeRows);
    const known = this.#decode.get(size);
    if (promptRows === 0) {
      const times = known?.times ?? new Recent();
      times.add(ms);
      this.#decode.set(size, { times, seenAt: this.#numMixed });
      return;
    }
    this.#numMixed++;
    this.#mayProbe = true;
    if (known === undefined) return;
    const extra = Math.max(0, ms - known.times.median);
    const allowed = this.#allowed(known);
    // A prompt's last rows, fewer than it might have had, say more about the fixed cost of a step than about theirs.
    if (2 * promptRows >= this.#allowance) this.#rowCost.add(extra / promptRows);
    if (extra > allowed) this.#maxRows = Math.max(1, (promptRows * allowed) / extra);
    else this.#maxRows = Math.max(this.#maxRows, 2 * promptRows);
  }

  #rowsBeside(known: DecodeTimes | undefined): number {
    const fresh = known !== undefined && this.#numMixed - known.seenAt < STALE_AFTER;
    if (this.#mayProbe && !(fresh && known.times.count >= ENOUGH)) {
      this.#mayProbe = false;
      return 0;
    }
    if (known === undefined || known.times.count < ENOUGH) return 1;
    const fitting = this.#allowed(known) / this.#rowCost.high;
    // Without a cost that is known and more than 0, the quotient says nothing and the ceiling alone holds.
    const rows = Math.floor(Math.min(this.#maxRows, Number.isFinite(fitting) ? fitting : this.#maxRows));
    return rows < ROW_TILE ? Math.max(1, rows) : Math.floor(rows / ROW_TILE) * ROW_TILE;
  }

  /** Milliseconds that prompt rows may add to a decode step. */
  #allowed({ times }: DecodeTimes): number {
    return times.median * Math.max(0, this.interference - 1) * MARGIN;
  }
}

/** The last few values. */
class Recent {
  readonly #values: number[] = [];
  #next = 0;

  get count(): number {
    return this.#values.length;
  }

  add(value: number): void {
    this.#values[this.#next] = value;
    this.#next = (this.#next + 1) % RECENT;
  }

  /** NaN where there is none. */
  get median(): number {
    return this.#sorted[this.#values.length >>> 1] ?? Number.NaN;
  }

  /** The highest but one, NaN where there are fewer. */
  get high(): number {
    return this.#sorted.at(-2) ?? Number.NaN;
  }

  get #sorted(): number[] {
    return this.#values.toSorted((a, b) => a - b);
  }
}

/** Row counts within a fifth of one another share their measurements. */
function sizeClass(rows: number): number {
  return Math.round(4 * Math.log2(rows));
}
