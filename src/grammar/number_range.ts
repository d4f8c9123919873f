// Numbers in a range, and multiples, as automata over their decimal digits. Plain notation only, without an exponent.
import { type Dfa, determinize, Nfa } from "./automaton.ts";
import type { Budget } from "./budget.ts";

/** A number's bounds; infinite where there is none. */
export interface NumberBounds {
  readonly min: number;
  readonly minOpen: boolean;
  readonly max: number;
  readonly maxOpen: boolean;
}

const DIGIT_0 = 0x30;
const MINUS = 0x2d;
const POINT = 0x2e;

/** A non-negative bound by its decimal digits; null for none. */
interface Bound {
  readonly whole: string;
  readonly fraction: string;
  readonly open: boolean;
}

/** Most digits that the numbers of an automaton have before the point and after it; 0 after it = integers. */
export interface NumberDigits {
  readonly whole: number;
  readonly fraction: number;
}

/** The numbers within bounds. "-0" is none of them. */
export function rangeDfa(bounds: NumberBounds, digits: NumberDigits, budget: Budget): Dfa {
  const nfa = new Nfa(budget);
  const [start, final] = [nfa.state(), nfa.state()];
  const { min, minOpen, max, maxOpen } = bounds;
  const top = max === Number.POSITIVE_INFINITY ? null : boundOf(max, maxOpen);
  if (max >= 0) {
    const low = min >= 0 ? boundOf(min, minOpen) : boundOf(0, false);
    new Magnitudes(nfa, low, top, digits).add(start, final);
  }
  if (min < 0) {
    const negative = nfa.state();
    nfa.edge(start, MINUS, MINUS, negative);
    const low = max < 0 ? boundOf(-max, maxOpen) : boundOf(0, true);
    const high = min === Number.NEGATIVE_INFINITY ? null : boundOf(-min, minOpen);
    new Magnitudes(nfa, low, high, digits).add(negative, final);
  }
  return determinize(nfa, start, final);
}

function boundOf(value: number, open: boolean): Bound {
  const [, whole = "0", fraction = "", exponent = "0"] = /^(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(value)) ?? [];
  const shift = Number(exponent);
  const all = whole + fraction;
  const point = whole.length + shift;
  const left = point > 0 ? all.slice(0, point).padEnd(point, "0") : "0";
  const right = point > 0 ? all.slice(point) : "0".repeat(-point) + all;
  return { whole: left, fraction: right.replace(/0+$/, ""), open };
}

/**
 * Numbers between two bounds, digit by digit. A state knows how many digits are to come and whether those so far are the
 * bound's own, in which case the next one is limited by it.
 */
class Magnitudes {
  readonly #nfa: Nfa;
  readonly #low: Bound;
  readonly #high: Bound | null;
  readonly #digits: NumberDigits;
  readonly #states = new Map<string, number>();
  #final = 0;

  constructor(nfa: Nfa, low: Bound, high: Bound | null, digits: NumberDigits) {
    this.#nfa = nfa;
    this.#low = low;
    this.#high = high;
    const longest = Math.max(low.fraction.length, high?.fraction.length ?? 0);
    // Between two close bounds with long fractions there must be room for one that is longer.
    this.#digits = { ...digits, fraction: digits.fraction === 0 ? 0 : Math.max(digits.fraction, longest + 1) };
  }

  add(from: number, to: number): void {
    this.#final = to;
    for (let length = this.#low.whole.length; length <= this.#digits.whole; length++) {
      if (this.#high !== null && length > this.#high.whole.length) break;
      const low = length === this.#low.whole.length;
      const high = length === this.#high?.whole.length;
      this.#wholeDigit(from, length, length, low, high);
    }
  }

  /** Edges of the digit after which `left - 1` more come before the point. */
  #wholeDigit(state: number, length: number, left: number, low: boolean, high: boolean): void {
    const at = length - left;
    const least = low ? digitAt(this.#low.whole, at) : at === 0 && length > 1 ? 1 : 0;
    const most = high ? digitAt(this.#high!.whole, at) : 9;
    this.#split(
      state,
      Math.max(least, at === 0 && length > 1 ? 1 : 0),
      most,
      low ? least : -1,
      high ? most : -1,
      (l, h) =>
        left === 1
          ? this.#known(`end ${l} ${h}`, (next) => this.#afterWhole(next, l, h))
          : this.#known(`${length} ${left - 1} ${l} ${h}`, (next) => this.#wholeDigit(next, length, left - 1, l, h)),
    );
  }

  #afterWhole(state: number, low: boolean, high: boolean): void {
    this.#endAt(state, 0, low, high);
    if (this.#digits.fraction === 0) return;
    const next = this.#known(`fraction 0 ${low} ${high}`, (first) => this.#fractionDigit(first, 0, low, high));
    this.#nfa.edge(state, POINT, POINT, next);
  }

  #fractionDigit(state: number, at: number, low: boolean, high: boolean): void {
    if (at > 0) this.#endAt(state, at, low, high);
    if (at === this.#digits.fraction) return;
    const least = low ? digitAt(this.#low.fraction, at) : 0;
    const most = high ? digitAt(this.#high!.fraction, at) : 9;
    this.#split(state, least, most, low ? least : -1, high ? most : -1, (l, h) =>
      this.#known(`fraction ${at + 1} ${l} ${h}`, (next) => this.#fractionDigit(next, at + 1, l, h)),
    );
  }

  /** The number may end here where it is neither below the lower bound nor above the upper one. */
  #endAt(state: number, at: number, low: boolean, high: boolean): void {
    const belowLow = low && (this.#low.fraction.length > at || this.#low.open);
    const aboveHigh = high && this.#high!.fraction.length <= at && this.#high!.open;
    if (!belowLow && !aboveHigh) this.#nfa.move(state, this.#final);
  }

  /** Edges for digits least..most, those equal to a bound's digit apart. */
  #split(
    state: number,
    least: number,
    most: number,
    lowDigit: number,
    highDigit: number,
    next: (low: boolean, high: boolean) => number,
  ): void {
    for (let digit = least; digit <= most; digit++) {
      const code = DIGIT_0 + digit;
      this.#nfa.edge(state, code, code, next(digit === lowDigit, digit === highDigit));
    }
  }

  #known(key: string, fill: (state: number) => void): number {
    const known = this.#states.get(key);
    if (known !== undefined) return known;
    const state = this.#nfa.state();
    this.#states.set(key, state);
    fill(state);
    return state;
  }
}

function digitAt(digits: string, at: number): number {
  return at < digits.length ? digits.charCodeAt(at) - DIGIT_0 : 0;
}

/** Largest step, in units of its last digit. */
const MAX_STEP = 20_000;

/** A step as whole units of 10^-places; null where it is too fine or too large. */
export function decimalStep(step: number): { readonly units: number; readonly places: number } | null {
  const { whole, fraction } = boundOf(step, false);
  const units = Number(whole + fraction);
  return units >= 1 && units <= MAX_STEP ? { units, places: fraction.length } : null;
}

/** Plain decimal numbers that are multiples of units * 10^-places, with at most `places` digits after the point. */
export function multipleDfa(units: number, places: number, budget: Budget): Dfa {
  // States: 0 the start, 1 after "-", then one per remainder and number of digits after the point (-1 before it).
  const state = (remainder: number, after: number) => 2 + remainder + units * (after + 1);
  const count = 2 + units * (places + 2);
  budget.checkStates(count);
  const edges: number[][] = [];
  const final: boolean[] = [];
  const digitsFrom = (remainder: number, after: number) =>
    Array.from({ length: 10 }, (_, digit) => {
      const code = DIGIT_0 + digit;
      return [code, code, state((remainder * 10 + digit) % units, after)];
    }).flat();
  edges.push([MINUS, MINUS, 1, ...digitsFrom(0, -1)], digitsFrom(0, -1));
  final.push(false, false);
  for (let after = -1; after <= places; after++) {
    for (let remainder = 0; remainder < units; remainder++) {
      budget.spend(1);
      const digits = after === places ? [] : digitsFrom(remainder, after === -1 ? -1 : after + 1);
      const point = after === -1 && places > 0 ? [POINT, POINT, state(remainder, 0)] : [];
      edges.push([...point, ...digits]);
      const missing = 10 ** (places - Math.max(0, after));
      final.push(after !== 0 && (remainder * missing) % units === 0);
    }
  }
  return { edges, final };
}
