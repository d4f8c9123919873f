// Upper bounds on every number that a config.json may state, each with its reason. A value past them is a lie or a
// model that this program cannot serve; refusing it early keeps sizes within 32 bits and memory within reason.
import type { Bounds } from "../src/checkpoint/hf_config.ts";

/** The largest published decoders have about 130 layers. */
export const LAYERS: Bounds = { min: 1, max: 1024 };
/** Width of the residual stream; the largest published is 18,432. */
export const HIDDEN: Bounds = { min: 8, max: 65_536 };
export const INTERMEDIATE: Bounds = { min: 1, max: 1 << 20 };
/** Keeps vocabulary x width below 2^31 rows of a table for every published model. */
export const VOCABULARY: Bounds = { min: 1, max: 1 << 22 };
export const HEADS: Bounds = { min: 1, max: 1024 };
/** What the attention and linear-attention kernels take, in steps of 8. */
export const HEAD_DIM: Bounds = { min: 8, max: 256 };
/** Position numbers in float32 angles are exact up to 2^24. */
export const POSITIONS: Bounds = { min: 1, max: 1 << 24 };
export const NORM_EPS: Bounds = { min: 1e-12, max: 1 };
export const ROPE_THETA: Bounds = { min: 1, max: 1e12 };
export const ROPE_FACTOR: Bounds = { min: 1, max: 4096 };
/** Rank of the decay gate; also the divisor of its logarithm. */
export const GATE_RANK: Bounds = { min: 1, max: 4096 };
export const GATE_NORMALIZER: Bounds = { min: 1e-3, max: 1e6 };
export const TOKEN_ID: Bounds = { min: 0, max: (1 << 22) - 1 };
/** Taps of a short convolution, 0 = none. */
export const CONV_KERNELS: readonly number[] = [0, 2, 3, 4];
