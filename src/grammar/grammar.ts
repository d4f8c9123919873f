// A compiled grammar: flat arrays that survive structured cloning. rules.ts makes it, machine.ts runs it.

/**
 * Rules as deterministic automata over bytes and calls of other rules. States of all rules are numbered together. No
 * rule matches the empty text or calls itself before it has taken a byte, and from every state some text leads to the end.
 */
export interface CompiledGrammar {
  /** Equal for equal grammars, so that they share what is computed for them. */
  readonly key: string;
  readonly root: number;
  /** Whether the empty text is complete. */
  readonly allowsEmpty: boolean;
  /** First state of each rule. */
  readonly ruleStart: Int32Array;
  /** A rule calls, before it takes a byte, only rules of higher rank. */
  readonly ruleRank: Int32Array;
  /** 1 where a rule may end. */
  readonly final: Uint8Array;
  /** Edges over bytes lo..hi of state s: indices byteAt[s] to byteAt[s + 1]. */
  readonly byteAt: Int32Array;
  readonly byteLo: Uint8Array;
  readonly byteHi: Uint8Array;
  readonly byteTo: Int32Array;
  /** Calls of state s: indices callAt[s] to callAt[s + 1]; afterwards the rule goes on at callTo. */
  readonly callAt: Int32Array;
  readonly callRule: Int32Array;
  readonly callTo: Int32Array;
}
