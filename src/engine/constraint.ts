// What a text may go on with, as the engine sees it: a set of ids before each draw. Knows no grammar and no text.

/** What a text may go on with: one per sequence, advanced token by token. Kept across preemption. */
export interface TokenConstraint {
  /**
   * Sets the bit of every id that may come next: id i is bit i % 32 of word i / 32. The mask has ceil(V / 32) words, all
   * zero on entry. False: none may. End-of-text ids are set where the text is complete.
   */
  allow(mask: Uint32Array): boolean;
  /** Takes the id that was drawn; not called for one of the request's stopIds, which ends the sequence. */
  accept(id: number): void;
  /** The text is complete and nothing can follow: the sequence ends with "stop". */
  readonly done: boolean;
}

/**
 * A constraint as plain data that survives structured cloning; what it holds is the factory's affair. An engine opened
 * from a model directory takes a CompiledGrammar.
 */
export type ConstraintSpec = object;

/** Makes a constraint from plain data that crossed a thread; stopIds are the request's. @throws RequestError */
export type ConstraintFactory = (spec: ConstraintSpec, stopIds: ReadonlySet<number>) => TokenConstraint;
