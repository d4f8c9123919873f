// Where in its rules a text may stand: places, the frames that tie a called rule to its callers, and calls still to be made.
import type { CompiledGrammar } from "./grammar.ts";

/** Where callers go on when the called rule ends; all calls of one rule at one position share a frame. */
export interface Frame {
  readonly id: number;
  readonly returns: readonly number[];
  readonly parents: readonly Frame[];
}

/** A set of places in the order in which they are found. */
export class Places {
  readonly states: number[] = [];
  readonly frames: Frame[] = [];
  readonly #seen = new Set<number>();

  get size(): number {
    return this.states.length;
  }

  add(state: number, frame: Frame): void {
    // Most sets hold a handful, for which looking is faster than hashing.
    if (this.size < 8) {
      for (let i = 0; i < this.size; i++) if (this.states[i] === state && this.frames[i] === frame) return;
    } else {
      if (this.#seen.size === 0)
        for (let i = 0; i < this.size; i++) this.#seen.add(keyOf(this.states[i]!, this.frames[i]!));
      const key = keyOf(state, frame);
      if (this.#seen.has(key)) return;
      this.#seen.add(key);
    }
    this.states.push(state);
    this.frames.push(frame);
  }
}

function keyOf(state: number, frame: Frame): number {
  return frame.id * 2 ** 22 + state;
}

/** Calls that are still to be made at one position, taken in the order of the rules' ranks. */
export class Calls {
  returns: number[] = [];
  parents: Frame[] = [];
  readonly #grammar: CompiledGrammar;
  readonly #waiting = new Map<number, { returns: number[]; parents: Frame[] }>();
  /** Rules that wait, last to be taken first. */
  readonly #order: number[] = [];

  constructor(grammar: CompiledGrammar) {
    this.#grammar = grammar;
  }

  add(rule: number, returnTo: number, parent: Frame): void {
    let entry = this.#waiting.get(rule);
    if (entry === undefined) {
      entry = { returns: [], parents: [] };
      this.#waiting.set(rule, entry);
      this.#insert(rule);
    }
    entry.returns.push(returnTo);
    entry.parents.push(parent);
  }

  /** The next rule, whose callers are then in `returns` and `parents`; -1 where there is none. */
  take(): number {
    const rule = this.#order.pop();
    if (rule === undefined) return -1;
    const entry = this.#waiting.get(rule)!;
    this.#waiting.delete(rule);
    this.returns = entry.returns;
    this.parents = entry.parents;
    return rule;
  }

  #insert(rule: number): void {
    const rank = this.#grammar.ruleRank;
    let low = 0;
    let high = this.#order.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (rank[this.#order[middle]!]! > rank[rule]!) low = middle + 1;
      else high = middle;
    }
    this.#order.splice(low, 0, rule);
  }
}
