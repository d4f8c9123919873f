// What one step computes: a chunk of consecutive tokens of each of some sequences, and what comes out of each chunk.
// The contract between the scheduler and whatever runs a batch.
import type { Sequence } from "./sequence.ts";
import type { TokenLogprob } from "./types.ts";

/** Tokens start..start+count-1 of one sequence. */
export interface Chunk {
  readonly sequence: Sequence;
  readonly start: number;
  readonly count: number;
  /** Number of rows at the chunk's end whose logits are wanted; the rest only fill caches and states. */
  readonly numOutputs: number;
}

/** A KV page, or a state slot of that many floats, whose content goes to another one. */
export type Copy =
  | { readonly kind: "page"; readonly from: number; readonly to: number }
  | { readonly kind: "slot"; readonly from: number; readonly to: number; readonly floats: number };

/** Chunks of one hybrid stand together. At most one chunk per sequence. */
export interface Batch {
  /** Done before anything else, in this order. */
  readonly copies: readonly Copy[];
  readonly chunks: readonly Chunk[];
  readonly numRows: number;
}

/** The token drawn after a generated sequence's last token. */
export interface Drawn {
  readonly id: number;
  /** NaN where the sequence asked for no log-probabilities. */
  readonly logprob: number;
  readonly top: TokenLogprob[];
}

/** Log-probabilities of the given next tokens, one per wanted row. */
export interface Scored {
  readonly logprobs: Float32Array;
  readonly argmax: Int32Array;
  /** The most likely ids of each row; empty where the sequence asked for none. */
  readonly top: readonly TokenLogprob[][];
}

/** Nothing can come of this sequence; the others of the batch are as good as ever. */
export interface Failed {
  readonly error: Error;
}

/** Per chunk, in the batch's order; null where no logits were wanted. */
export type ChunkOutput = Drawn | Scored | Failed | null;

/** Runs batches: the model itself, or a stand-in for it in tests. */
export interface Backend {
  /** Batches so far that were replayed whole rather than launched op by op. */
  readonly numReplayed: number;
  /** Why one could not be, the last time; null where there was nothing against it. */
  readonly replayProblem: string | null;
  /** Begins a batch, which advances the caches and states of every sequence by its chunk. @throws KernelError */
  start(batch: Batch): void;
  /**
   * Begins the batch behind the last one: its sequences, one plain row each, a token further, whatever the last one draws.
   * False where this backend cannot; then nothing has been done. @throws KernelError
   */
  follow(batch: Batch): boolean;
  /** The outputs of the batch that was begun first, of two at most. @throws KernelError */
  finish(): ChunkOutput[];
  /** Forgets what has been begun: nobody knows what of it was done. */
  drop(): void;
  /** A hybrid of that identity leaves the memory: its weights will lie elsewhere when it returns. */
  forget(identity: string): void;
  /** Begins a batch, without copies, that goes through the model in parts between others; one at a time. @throws KernelError */
  begin(batch: Batch): void;
  /** Takes it one layer on; its outputs when it is through. @throws KernelError */
  advance(): ChunkOutput[] | null;
  /** Waits until its layers so far are done: a device goes on by itself. @throws KernelError */
  settle(): void;
  /** Forgets it: its sequences' states stand at no position then. Does nothing where there is none. */
  abandon(): void;
}

/** The next `count` tokens of a sequence. */
export function makeChunk(sequence: Sequence, count: number): Chunk {
  const start = sequence.numComputed;
  const numOutputs = Math.min(count, Math.max(0, start + count - sequence.outputFrom));
  return { sequence, start, count, numOutputs };
}

/**
 * Whether a chunk is one row whose token is drawn with nothing in between that the host must know or do: what follows it
 * can be begun before its token is known.
 */
export function isPlain({ sequence, count, numOutputs }: Chunk): boolean {
  const { score, sampling, adjustments, constraint } = sequence;
  if (count !== 1 || numOutputs !== 1 || score !== null) return false;
  return sampling.numLogprobs < 0 && adjustments === null && constraint === null;
}

/** Orders chunks so that those of one hybrid stand together. */
export function makeBatch(chunks: Chunk[], copies: readonly Copy[]): Batch {
  chunks.sort((a, b) => a.sequence.hybrid.serial - b.sequence.hybrid.serial || a.sequence.id - b.sequence.id);
  return { copies, chunks, numRows: chunks.reduce((sum, chunk) => sum + chunk.count, 0) };
}
