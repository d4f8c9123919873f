// Runs a compiled grammar byte by byte. What may follow a text is a configuration: a set of places, each a state of a
// rule and a frame that says where the rule's callers go on. Configurations and the steps between them are found as they
// are needed and kept, so that a second visit costs a table look-up.
import type { CompiledGrammar } from "./grammar.ts";
import { Calls, type Frame, Places } from "./places.ts";

/** What may follow. Interned: equal ones are the same object while the machine keeps them. */
export interface Configuration {
  /** Index in the machine's tables, as long as `era` is the machine's. */
  readonly id: number;
  readonly era: number;
  readonly states: readonly number[];
  readonly frames: readonly Frame[];
  /** The text so far is complete. */
  readonly complete: boolean;
}

/** No text with this beginning is in the grammar. */
export const DEAD = -1;
const UNKNOWN = -2;

/** Beyond so many places at once the grammar is too ambiguous to follow in time. */
const MAX_PLACES = 5000;
/** What a machine may cost; the defaults are meant for servers. */
export interface MachineLimits {
  /** Table entries kept before the machine starts anew. */
  readonly maxTable?: number;
  /** Places looked at for one token or one mask; a mask of a large vocabulary takes some thousands. */
  readonly maxWork?: number;
}

const MAX_TABLE = 1 << 22;
const MAX_WORK = 300_000;

/** One grammar with everything found out about it. */
export class GrammarMachine {
  readonly grammar: CompiledGrammar;
  /** Bytes that no edge tells apart have one class. */
  readonly classOf: Uint8Array;
  readonly numClasses: number;
  readonly #maxTable: number;
  readonly #maxWork: number;
  readonly #byteOfClass: Uint8Array;
  #configurations: Configuration[] = [];
  #byKey = new Map<string, Configuration>();
  #frames = new Map<string, Frame>();
  #next = new Int32Array(0);
  #era = 0;
  #lastFrame = 0;
  #work = 0;
  readonly #root: Frame = { id: 0, returns: [], parents: [] };

  constructor(grammar: CompiledGrammar, { maxTable = MAX_TABLE, maxWork = MAX_WORK }: MachineLimits = {}) {
    this.grammar = grammar;
    this.#maxTable = maxTable;
    this.#maxWork = maxWork;
    const { classOf, byteOfClass } = byteClasses(grammar);
    this.classOf = classOf;
    this.#byteOfClass = byteOfClass;
    this.numClasses = byteOfClass.length;
  }

  /** Where a text begins. */
  start(): Configuration {
    const calls = new Calls(this.grammar);
    calls.add(this.grammar.root, -1, this.#root);
    return this.#close(new Places(), calls, this.grammar.allowsEmpty);
  }

  /** The same configuration in the tables of now. */
  current(configuration: Configuration): Configuration {
    if (configuration.era === this.#era) return configuration;
    return this.#intern(configuration.states, configuration.frames, configuration.complete);
  }

  /** Starts anew where too much has been kept. Ids given out before are void. */
  trim(): void {
    if (this.#next.length <= this.#maxTable) return;
    this.#era++;
    this.#configurations = [];
    this.#byKey.clear();
    this.#frames.clear();
    this.#next = new Int32Array(0);
  }

  /** Begins the account of a token or a mask, so that an ambiguous grammar cannot hold the thread for long. */
  beginWork(): void {
    this.#work = 0;
  }

  configuration(id: number): Configuration {
    return this.#configurations[id]!;
  }

  /** Next configurations by id * numClasses + class, DEAD, or less where they are not known yet; valid until step(). */
  get table(): Int32Array {
    return this.#next;
  }

  /** The configuration after a byte of the class. @throws RangeError where the grammar is too ambiguous to follow */
  step(id: number, byteClass: number): number {
    const slot = id * this.numClasses + byteClass;
    const known = this.#next[slot]!;
    if (known !== UNKNOWN) return known;
    const found = this.#advance(this.#configurations[id]!, this.#byteOfClass[byteClass]!);
    this.#next[slot] = found;
    return found;
  }

  #advance({ states, frames }: Configuration, byte: number): number {
    const { byteAt, byteLo, byteHi, byteTo } = this.grammar;
    const places = new Places();
    for (let i = 0; i < states.length; i++) {
      const state = states[i]!;
      for (let edge = byteAt[state]!; edge < byteAt[state + 1]!; edge++) {
        if (byteLo[edge]! <= byte && byte <= byteHi[edge]!) places.add(byteTo[edge]!, frames[i]!);
      }
    }
    if (places.size === 0) return DEAD;
    return this.#close(places, new Calls(this.grammar), false).id;
  }

  /** Ends rules that may end, then begins rules that are called, until only places that take a byte are left. */
  #close(places: Places, calls: Calls, empty: boolean): Configuration {
    const { final, callAt, callRule, callTo, ruleStart } = this.grammar;
    let complete = empty;
    for (let i = 0; i < places.size; i++) {
      const frame = places.frames[i]!;
      if (final[places.states[i]!] === 1) {
        for (let k = 0; k < frame.returns.length; k++) {
          if (frame.returns[k]! < 0) complete = true;
          else places.add(frame.returns[k]!, frame.parents[k]!);
        }
      }
    }
    let done = 0;
    const collect = () => {
      for (; done < places.size; done++) {
        const state = places.states[done]!;
        for (let k = callAt[state]!; k < callAt[state + 1]!; k++) {
          calls.add(callRule[k]!, callTo[k]!, places.frames[done]!);
        }
      }
    };
    collect();
    // Rules come in the order in which they call one another, so that a frame has all its callers when it is made.
    for (let rule = calls.take(); rule !== -1; rule = calls.take()) {
      places.add(ruleStart[rule]!, this.#frame(calls.returns, calls.parents));
      collect();
    }
    this.#work += places.size;
    if (places.size > MAX_PLACES || this.#work > this.#maxWork)
      throw new RangeError("The grammar is too ambiguous to follow");
    return this.#internPlaces(places, complete);
  }

  #frame(returns: readonly number[], parents: readonly Frame[]): Frame {
    const pairs = returns.map((state, i) => [state, parents[i]!] as const);
    pairs.sort((a, b) => a[0] - b[0] || a[1].id - b[1].id);
    const kept = pairs.filter(
      ([state, { id }], i) => i === 0 || state !== pairs[i - 1]![0] || id !== pairs[i - 1]![1].id,
    );
    const key = kept.map(([state, { id }]) => `${state}:${id}`).join();
    let frame = this.#frames.get(key);
    if (frame === undefined) {
      frame = {
        id: ++this.#lastFrame,
        returns: kept.map(([state]) => state),
        parents: kept.map(([, parent]) => parent),
      };
      this.#frames.set(key, frame);
    }
    return frame;
  }

  #internPlaces(places: Places, complete: boolean): Configuration {
    const { byteAt } = this.grammar;
    const order = places.states
      .map((_, i) => i)
      .filter((i) => byteAt[places.states[i]!]! < byteAt[places.states[i]! + 1]!);
    order.sort((a, b) => places.states[a]! - places.states[b]! || places.frames[a]!.id - places.frames[b]!.id);
    return this.#intern(
      order.map((i) => places.states[i]!),
      order.map((i) => places.frames[i]!),
      complete,
    );
  }

  #intern(states: readonly number[], frames: readonly Frame[], complete: boolean): Configuration {
    let key = complete ? "!" : "";
    for (let i = 0; i < states.length; i++) key += `${states[i]}:${frames[i]!.id},`;
    let found = this.#byKey.get(key);
    if (found === undefined) {
      found = { id: this.#configurations.length, era: this.#era, states, frames, complete };
      this.#byKey.set(key, found);
      this.#configurations.push(found);
      this.#grow();
    }
    return found;
  }

  #grow(): void {
    const needed = this.#configurations.length * this.numClasses;
    if (needed <= this.#next.length) return;
    const larger = new Int32Array(Math.max(64 * this.numClasses, 2 * this.#next.length)).fill(UNKNOWN);
    larger.set(this.#next);
    this.#next = larger;
  }
}

/** The partition of bytes by the ends of all edges, and a byte of each class. */
function byteClasses({ byteLo, byteHi }: CompiledGrammar) {
  const begins = new Uint8Array(257);
  begins[0] = 1;
  for (let i = 0; i < byteLo.length; i++) {
    begins[byteLo[i]!] = 1;
    begins[byteHi[i]! + 1] = 1;
  }
  const classOf = new Uint8Array(256);
  const byteOfClass: number[] = [];
  for (let byte = 0; byte < 256; byte++) {
    if (begins[byte] === 1) byteOfClass.push(byte);
    classOf[byte] = byteOfClass.length - 1;
  }
  return { classOf, byteOfClass: Uint8Array.from(byteOfClass) };
}
