// What compiling one grammar may cost. Whoever builds something charges it here first, so that a small text that stands
// for something huge is refused early and by name.
import { RequestError } from "../errors.ts";

/** Automaton states and edges of all steps of one compilation together. */
const MAX_WORK = 4_000_000;
/** States of one automaton. */
const MAX_STATES = 300_000;
const MAX_MS = 1500;
/** Characters of a place that are shown. */
const MAX_PLACE = 200;

/** Refuses a grammar: `place` is a JSON pointer with # in front, or empty where there is only one place. */
export function refuse(place: string, why: string): never {
  const shown = place.length <= MAX_PLACE ? place : `${place.slice(0, MAX_PLACE)}...`;
  const at = shown === "" ? "" : ` at "${shown}"`;
  throw new RequestError("invalid_schema", `Cannot use the grammar${at}: ${why}`);
}

/** The account of one compilation. */
export class Budget {
  /** Where in the input the work is for; names the place in a refusal. */
  place = "";
  #work = 0;
  readonly #deadline: number;

  constructor(maxMs = MAX_MS) {
    this.#deadline = performance.now() + maxMs;
  }

  /** Charges work, and looks at the clock now and then. @throws RequestError */
  spend(amount: number): void {
    const before = this.#work;
    this.#work += amount;
    if (this.#work > MAX_WORK) refuse(this.place, "it is too large (too many states)");
    if (before >>> 10 !== this.#work >>> 10 && performance.now() > this.#deadline) {
      refuse(this.place, "it is too large (it takes too long to compile)");
    }
  }

  /** Checks the size of one automaton. @throws RequestError */
  checkStates(count: number): void {
    if (count > MAX_STATES) refuse(this.place, `it is too large (more than ${MAX_STATES} states)`);
  }
}
