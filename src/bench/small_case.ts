// A small model of the same family and head layout, computed by these kernels and by the reference: no figure is given for
// kernels that compute something else. Prints nothing.
import type { Variant } from "../../models/attention/mixer.ts";
import type { ModelConfig } from "../../models/config.ts";
import { parseModelConfig } from "../../models/parse_config.ts";
import { createRandomModel, createRandomPool } from "../../models/random_model.ts";
import { createEngine } from "../engine/create.ts";
import { KernelError } from "../errors.ts";
import type { Ops } from "../ops/ops.ts";
import type { CacheTypes } from "./costs.ts";
import { randomPrompts } from "./prompts.ts";
import type { WeightType } from "./subject.ts";

const HIDDEN = 256;
const CONTEXT = 45;
const CONTINUATION = 40;
/** Rounding moves log-probabilities by less than this share of their spread (root mean squares); an error by far more. */
const LIMIT = 0.05;

/**
 * Difference between the two libraries' log-probabilities as a share of their spread, both as root mean squares: of full
 * attention, each variant, and full attention again.
 * @throws KernelError where it is no rounding
 */
export function checkSmallCase(
  ops: Ops,
  reference: Ops,
  config: ModelConfig,
  variants: readonly Variant[],
  types: CacheTypes & { readonly weightType: WeightType },
): number {
  const small = smallConfig(config, 2 + variants.length);
  const [actual, expected] = [ops, reference].map((library) => logprobsOf(library, small, variants, types));
  const mean = expected!.reduce((a, b) => a + b, 0) / expected!.length;
  const squares = (of: (x: number, i: number) => number) => expected!.reduce((sum, x, i) => sum + of(x, i) ** 2, 0);
  const error = Math.sqrt(squares((x, i) => x - actual![i]!) / squares((x) => x - mean));
  if (error <= LIMIT) return error;
  throw new KernelError(
    `Cannot give a figure: the log-probabilities of a small model differ from the reference by ${error.toPrecision(2)} ` +
      `of their spread, expected at most ${LIMIT}`,
  );
}

/** The same heads to a group and of the same size, and little else. */
function smallConfig(config: ModelConfig, numLayers: number): ModelConfig {
  const numKvHeads = Math.min(2, config.numKvHeads);
  return parseModelConfig({
    ...config.raw,
    hidden_size: HIDDEN,
    intermediate_size: 2 * HIDDEN,
    num_hidden_layers: numLayers,
    num_attention_heads: numKvHeads * (config.numHeads / config.numKvHeads),
    num_key_value_heads: numKvHeads,
    head_dim: config.headDim,
    vocab_size: 512,
    max_position_embeddings: 256,
  });
}

/** Of a given continuation, in chunks of 64 rows. */
function logprobsOf(
  ops: Ops,
  config: ModelConfig,
  variants: readonly Variant[],
  { weightType, kvDtype, stateDtype }: CacheTypes & { readonly weightType: WeightType },
): number[] {
  const model = createRandomModel(ops, config, { dtype: weightType });
  const pools = variants.map((variant) => createRandomPool(ops, model, variant, { dtype: weightType }));
  const engine = createEngine(ops, model, {
    ...{ maxSequences: 2, prefixCacheBytes: 0, maxBatchTokens: 64, kvDtype, stateDtype },
    ...{ kvBytes: 1 << 24, stateBytes: 1 << 25 },
  });
  try {
    for (const pool of pools) engine.addPool(pool);
    const layers = [null, ...variants, null];
    const hybrid = variants.length === 0 ? "base" : engine.registerHybrid({ name: "small", layers }).name;
    const [contextIds, continuationIds] = randomPrompts(config.vocabSize, 2, CONTEXT);
    const score = { hybrid, contextIds: contextIds!, continuationIds: continuationIds!.subarray(0, CONTINUATION) };
    return [...engine.score([score])[0]!.logprobs];
  } finally {
    engine.close();
    for (const pool of pools) pool.free();
    model.free();
  }
}
