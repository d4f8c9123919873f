// What every token mixer is: its shape, the ragged batch it sees, the serving form and the training form.
// Knows neither the engine that fills a batch nor the backbone around the layer.
import type { LayerStates, Ops, PagedKv, RowNorm, StateDtype } from "../../src/ops/ops.ts";
import type { Arena } from "../../src/tensor/arena.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import type { ParameterSet } from "../parameters.ts";

/** A kind of linear attention. */
export type Variant = "gla" | "gdn" | "jet";

/** Sizes and options of one linear-attention layer; the `linear_*` keys of a hybrid's config.json. */
export interface LinearShape {
  readonly variant: Variant;
  readonly hiddenSize: number;
  /** Heads that read a state (gla; equal to numValueHeads in gdn and jet, where every value head has its own state). */
  readonly numQueryHeads: number;
  readonly numKeyHeads: number;
  readonly numValueHeads: number;
  readonly keyHeadDim: number;
  readonly valueHeadDim: number;
  /** Taps of the convolution, 0 = none. */
  readonly convKernel: number;
  readonly convBias: boolean;
  readonly outputGate: boolean;
  readonly qkvBias: boolean;
  readonly oBias: boolean;
  readonly normEps: number;
  /** gla: rank of the decay projection, and the divisor of its log-sigmoid. */
  readonly gateLowRank: number;
  readonly gateNormalizer: number;
  /** gdn: write strength in (0, 2). */
  readonly allowNegEigval: boolean;
  /** jet: width of v divided by the width of the kernel generator. */
  readonly dconvReduction: number;
  /** Tokens per anchored block of the serving form; not part of a checkpoint. */
  readonly block: number;
}

/** What a forward or backward call works with: the ops, and scratch that the caller marks and releases. */
export interface Context {
  readonly ops: Ops;
  readonly arena: Arena;
}

/** What a mixer reads and writes. */
export interface MixerIo {
  /** [N,C] */
  readonly x: Tensor;
  /** Of x before anything else; null: none. */
  readonly norm: RowNorm | null;
  /** [N,C]; may be x. */
  readonly y: Tensor;
  /** Added to the output; may be y. */
  readonly residual: Tensor | null;
}

/** A ragged set of sequences as one layer's mixer sees it. */
export interface MixerBatch {
  /** N */
  readonly numRows: number;
  /** S */
  readonly numSeqs: number;
  /** i32[S+1]: first row of each sequence, and N. */
  readonly seqStart: Tensor;
  /** i32[S]: position of the first row of each sequence. */
  readonly startPos: Tensor;
  /** No row stands at or beyond this position. */
  readonly longest: number;
  /** Paged cache of a full-attention layer. */
  readonly kv?: PagedKv;
  /**
   * States of a linear layer. The windows of a sequence must be zero when it starts; its recurrent state need not
   * (position 0 reads it as zero).
   */
  readonly state?: LayerStates;
}

/** What one sequence costs in one layer. */
export interface StateSpec {
  /** Bytes of k and v of one token, by cache dtype; 0 for linear layers. */
  readonly kvBytesPerToken: { readonly f32: number; readonly bf16: number };
  /** Floats (4 bytes) of a slot, by the type that states are kept in. */
  readonly recurrentFloats: Readonly<Record<StateDtype, number>>;
  readonly convFloats: number;
}

/** Serving form of one layer's token mixer. */
export interface TokenMixer {
  readonly kind: "full_attention" | Variant;
  /** y = mixer(norm(x)) (+ residual). Advances the batch's cache or states. */
  forward(ctx: Context, io: MixerIo, batch: MixerBatch): void;
  stateSpec(): StateSpec;
  /** Bytes of device memory that the weights take. */
  weightBytes(): number;
  free(): void;
}

/** A mixer whose weights come and go; what it is and what state it needs is known without them. */
export interface LoadableMixer extends TokenMixer {
  readonly loaded: boolean;
  /** What weightBytes() is once it is loaded. */
  readonly bytes: number;
  /** Names its weights by their content, the same in every process; null until they were first read. */
  readonly content: string | null;
  /** Reads the weights; `turn` is awaited before each piece of work that holds up the thread. @throws CheckpointError */
  load(turn: () => Promise<void>): Promise<void>;
  /** Frees the weights; does nothing where there are none. */
  unload(): void;
}

/** Whether a mixer's weights come and go. */
export function isLoadable(mixer: TokenMixer): mixer is LoadableMixer {
  return "load" in mixer;
}

/** Rows of whole sequences, each from position 0: what training forms see. */
export interface RaggedRows {
  /** i32[S+1] */
  readonly seqStart: Tensor;
  readonly numSeqs: number;
  readonly numRows: number;
  /** i32[N] */
  readonly positions: Tensor;
}

/** The result of a training forward pass; a mixer's own type adds what its backward pass needs. All in the arena. */
export interface Saved {
  /** [N,C] */
  readonly y: Tensor;
}

/** Training form of one layer's token mixer. */
export interface TrainableMixer<S extends Saved = Saved> {
  readonly params: ParameterSet;
  forward(ctx: Context, x: Tensor, rows: RaggedRows): S;
  /** Adds to the gradients of the parameters and, where given, to dx[N,C]. May overwrite what was saved. */
  backward(ctx: Context, dy: Tensor, saved: S, dx: Tensor | null): void;
}
