// The normalised model configuration: one record for every backbone family and for hybrids over them.
// The parsing of each family's config.json stands in models/parse_config.ts.
import type { LinearShape } from "./attention/mixer.ts";

/** A backbone family, spelled as Hugging Face's `model_type`. */
export type Architecture = "llama" | "qwen2" | "qwen3" | "gpt2";

/** Llama-3 stretching of low rope frequencies (layers.md 1). */
export interface RopeScaling {
  readonly factor: number;
  readonly lowFreqFactor: number;
  readonly highFreqFactor: number;
  readonly originalMaxPositions: number;
}

/** Rotary embedding of one model. */
export interface RopeConfig {
  readonly theta: number;
  readonly scaling: RopeScaling | null;
}

/** Everything that the model code needs to know of a config.json. */
export interface ModelConfig {
  readonly architecture: Architecture;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Longest context, in tokens. */
  readonly maxPositions: number;
  readonly normEps: number;
  readonly tieWordEmbeddings: boolean;
  /** Biases of q, k, v; of the attention output; of the MLP. */
  readonly qkvBias: boolean;
  readonly oBias: boolean;
  readonly mlpBias: boolean;
  /** Qwen3: rms norm of q and k per head, before rope. */
  readonly qkNorm: boolean;
  /** null: learned positions (GPT-2). */
  readonly rope: RopeConfig | null;
  /** One entry per layer: null = full attention, else the linear layer in its place. */
  readonly linearLayers: readonly (LinearShape | null)[];
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  /** The config.json itself, for export. */
  readonly raw: Readonly<Record<string, unknown>>;
}
