// Upper bounds on every number that a config.json may state, each with its reason. A value past them is a lie or a
// model that this program cannot serve; refusing it early keeps sizes within 32 bits and memory within reason.
import type { Bounds } from "../src/checkpoint/hf_config.ts";

/** The largest published decoders have about 130 layers. */
export const LAYERS: Bounds = { min: 1, max: 1024 };
/** Width of the residual stream; the largest published is 18,432. */
export const HIDDEN: Bounds = { min: 8, max: 65_536 };
/** Width of the MLP; the largest published is 53,248. */
export const INTERMEDIATE: Bounds = { min: 1, max: 1 << 20 };
/** Keeps vocabulary x width below 2^31 rows of a table for every published model. */
export const VOCABULARY: Bounds = { min: 1, max: 1 << 22 };
/** The largest published decoders have 128. */
export const HEADS: Bounds = { min: 1, max: 1024 };
/** What the attention and linear-attention kernels take, in steps of 8. */
export const HEAD_DIM: Bounds = { min: 8, max: 256 };
/** Position numbers in float32 angles are exact up to 2^24. */
export const POSITIONS: Bounds = { min: 1, max: 1 << 24 };
/** 0 divides by zero on a row of zeros; in use are 1e-6 and 1e-5. */
export const NORM_EPS: Bounds = { min: 1e-12, max: 1 };
/** In use are 1e4 to 1e7. */
export const ROPE_THETA: Bounds = { min: 1, max: 1e12 };
/** Stretch of the context; in use are 8 to 32. */
export const ROPE_FACTOR: Bounds = { min: 1, max: 4096 };
/** Rank of the decay gate; also the divisor of its logarithm. */
export const GATE_RANK: Bounds = { min: 1, max: 4096 };
/** Divisor of the decay gate's logarithm; in use is 16. */
export const GATE_NORMALIZER: Bounds = { min: 1e-3, max: 1e6 };
/** Ids of the largest vocabulary allowed. */
export const TOKEN_ID: Bounds = { min: 0, max: (1 << 22) - 1 };
/** Taps of a short convolution, 0 = none. */
export const CONV_KERNELS: readonly number[] = [0, 2, 3, 4];
