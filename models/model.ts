// What a backbone offers to the engine and to conversion, and what a loaded model consists of.
// Knows no architecture; models/registry.ts does.
import type { RowNorm } from "../src/ops/ops.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import type { FullAttention } from "./attention/full.ts";
import type { Context, LinearShape, RaggedRows, TokenMixer, Variant } from "./attention/mixer.ts";
import type { ModelConfig } from "./config.ts";
import type { ParameterSet } from "./parameters.ts";

/** Everything of a model but its linear token mixers. Rows N are tokens of any sequences; C is the hidden size. */
export interface Backbone {
  readonly config: ModelConfig;
  /** y[N,C] = embedding of ids i32[N] (plus that of positions i32[N] where these are learned). */
  embed(ctx: Context, ids: Tensor, positions: Tensor, y: Tensor): void;
  /** The norm before the token mixer. */
  inputNorm(layer: number): RowNorm;
  /** x[N,C] += MLP(norm(x)), in place. */
  mlpBlock(ctx: Context, layer: number, x: Tensor): void;
  /** logits[M,V] of x[M,C] after the last layer. */
  head(ctx: Context, x: Tensor, logits: Tensor): void;
  /** @throws CheckpointError where a stand-alone hybrid has no full attention in this layer. */
  fullAttention(layer: number): FullAttention;
  weightBytes(): number;
  free(): void;
}

/** A checkpoint in memory. */
export interface LoadedModel {
  readonly directory: string;
  readonly config: ModelConfig;
  readonly backbone: Backbone;
  readonly layerTypes: readonly ("full_attention" | "linear_attention")[];
  /** A stand-alone hybrid's own linear mixers; null in full-attention layers. */
  readonly mixers: readonly (TokenMixer | null)[];
  /** See identityOf(): pools name the backbone they belong to by it. */
  readonly identity: string;
  free(): void;
}

/** Counterparts of one variant, one per layer of one backbone: all in memory, or each read when it is needed. */
export interface LinearPool {
  readonly directory: string;
  readonly variant: Variant;
  readonly shape: LinearShape;
  readonly mixers: readonly TokenMixer[];
  /** `identity` of the backbone that the pool was made for. */
  readonly backbone: string;
  /** Of a pool that is read when it is needed: tells the files of one conversion from those of the next in their place. */
  readonly stamp?: string;
  free(): void;
}

/** What a whole model's training forward keeps for its backward pass; all in the arena. */
export interface ModelSaved {
  /** [N,V] */
  readonly logits: Tensor;
}

/** A whole model with a gradient for every parameter. */
export interface TrainableModel {
  readonly config: ModelConfig;
  readonly params: ParameterSet;
  forward(ctx: Context, ids: Tensor, rows: RaggedRows): ModelSaved;
  /** Adds to the gradients; dlogits[N,V] may be the memory of the logits. */
  backward(ctx: Context, saved: ModelSaved, dlogits: Tensor): void;
  free(): void;
}
