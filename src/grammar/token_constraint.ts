// One sequence's way through a grammar, token by token, and the factory that makes such ways from compiled grammars.
import { RequestError } from "../errors.ts";
import type { CompiledGrammar } from "./grammar.ts";
import { type Configuration, DEAD, GrammarMachine, type MachineLimits } from "./machine.ts";
import { TokenMasks } from "./masks.ts";
import { restrictTo } from "./restrict.ts";
import type { TokenVocabulary } from "./vocabulary.ts";

/** Grammars whose machines are kept. */
const MAX_MACHINES = 64;

/** Where one text stands in its grammar. */
export class GrammarConstraint {
  readonly #machine: GrammarMachine;
  readonly #masks: TokenMasks;
  readonly #stopIds: ReadonlySet<number>;
  #at: Configuration;
  #ended = false;

  constructor(machine: GrammarMachine, masks: TokenMasks, stopIds: ReadonlySet<number>) {
    this.#machine = machine;
    this.#masks = masks;
    this.#stopIds = stopIds;
    this.#at = machine.start();
  }

  /** Whether the text is complete and nothing can follow. */
  get done(): boolean {
    return this.#ended || (this.#at.complete && this.#at.states.length === 0);
  }

  /**
   * Sets the bits of the ids that may come next; stop ids only where the text is complete.
   * @returns false where none may come @throws RequestError where the grammar is too ambiguous to follow
   */
  allow(mask: Uint32Array): boolean {
    if (this.done) return false;
    this.#machine.trim();
    this.#at = this.#machine.current(this.#at);
    const allowed = guarded(() => this.#masks.of(this.#machine, this.#at));
    mask.set(allowed.length > mask.length ? allowed.subarray(0, mask.length) : allowed);
    for (const id of this.#stopIds) {
      if (id >>> 5 >= mask.length) continue;
      if (this.#at.complete) mask[id >>> 5]! |= 1 << (id & 31);
      else mask[id >>> 5]! &= ~(1 << (id & 31));
    }
    return mask.some((word) => word !== 0);
  }

  /** Takes an id that allow() allows. @throws RangeError for any other */
  accept(id: number): void {
    if (this.#stopIds.has(id) && this.#at.complete) {
      this.#ended = true;
      return;
    }
    const bytes = this.#ended ? null : this.#masks.vocabulary.bytesOf(id);
    if (bytes === null) throw new RangeError(`Token ${id} cannot follow here`);
    this.#at = this.#machine.current(this.#at);
    this.#machine.beginWork();
    let at = this.#at.id;
    for (const byte of bytes) {
      at = guarded(() => this.#machine.step(at, this.#machine.classOf[byte]!));
      if (at === DEAD) throw new RangeError(`Token ${id} cannot follow here`);
    }
    this.#at = this.#machine.configuration(at);
  }
}

function guarded<T>(body: () => T): T {
  try {
    return body();
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new RequestError("invalid_schema", `Cannot follow the grammar: ${cause.message}`, { cause });
  }
}

/** What constraints may cost. */
export interface ConstraintLimits extends MachineLimits {
  /** Bytes of masks kept, of all grammars together. */
  readonly cacheBytes?: number;
}

/** Makes constraints over one vocabulary; equal grammars share what is found out about them. */
export class GrammarConstraints {
  readonly #masks: TokenMasks;
  readonly #limits: MachineLimits;
  /** By key, least recently used first. */
  readonly #machines = new Map<string, GrammarMachine>();

  constructor(vocabulary: TokenVocabulary, { cacheBytes, ...limits }: ConstraintLimits = {}) {
    this.#masks = new TokenMasks(vocabulary, cacheBytes);
    this.#limits = limits;
  }

  /** @throws RequestError where the vocabulary cannot write any text of the grammar */
  create(grammar: CompiledGrammar, stopIds: ReadonlySet<number>): GrammarConstraint {
    const machine = this.#machines.get(grammar.key) ?? this.#machine(grammar);
    this.#machines.delete(grammar.key);
    this.#machines.set(grammar.key, machine);
    if (this.#machines.size > MAX_MACHINES) this.#machines.delete(this.#machines.keys().next().value!);
    return new GrammarConstraint(machine, this.#masks, stopIds);
  }
  #machine(grammar: CompiledGrammar): GrammarMachine {
    const writable = restrictTo(grammar, this.#masks.vocabulary.singleBytes);
    if (writable !== null) return new GrammarMachine(writable, this.#limits);
    throw new RequestError("invalid_schema", "Cannot use the grammar: the model's vocabulary cannot write its texts");
  }
}
