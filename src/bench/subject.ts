// The model under measurement: backbone, counterparts, and an engine whose memory is sized for one measurement at a time.
// Refuses what does not fit before it allocates.
import type { TokenMixer, Variant } from "../../models/attention/mixer.ts";
import type { ModelConfig } from "../../models/config.ts";
import { loadModel } from "../../models/load.ts";
import type { LinearPool, LoadedModel } from "../../models/model.ts";
import { createRandomModel } from "../../models/random_model.ts";
import { createEngine, type EngineHooks } from "../engine/create.ts";
import type { Engine } from "../engine/engine.ts";
import { slotShape } from "../engine/hybrid.ts";
import { BASE_HYBRID } from "../engine/types.ts";
import { CapacityError, RequestError } from "../errors.ts";
import type { Ops, StateDtype } from "../ops/ops.ts";
import { type CacheTypes, configParams, costsOf, type LayerMixer, type ModelCosts } from "./costs.ts";
import { freeBytes } from "./machine.ts";

export type WeightType = "f32" | "bf16";

/** A hybrid to measure; layers as in HybridSpec. */
export interface Mask {
  /** "base", or a name for a mask with at least one variant. */
  readonly name: string;
  readonly layers: readonly (Variant | null)[];
}

export interface Subject {
  readonly name: string;
  readonly ops: Ops;
  readonly model: LoadedModel;
  readonly pools: readonly LinearPool[];
}

/** One measurement's place in memory. */
export interface EngineSizes extends CacheTypes {
  readonly batch: number;
  /** Most tokens of one sequence, prompt and answer. */
  readonly maxTokens: number;
  /** Token rows of one step. */
  readonly chunk: number;
}

const PAGE_SIZE = 32;
/** Scratch, JavaScript heap and buffers of the measurement itself; scratch of a device is made for longer batches. */
const WORKING_BYTES = { cpu: 512 * 2 ** 20, cuda: 2 * 2 ** 30 };
/** As many sequences as an engine takes. */
const MOST_SEQUENCES = 4096;

/**
 * A model of this shape with random weights.
 * @throws CapacityError where the weights do not fit, RequestError for a context beyond the model's
 */
export function createSubject(
  ops: Ops,
  name: string,
  config: ModelConfig,
  options: { readonly dtype: WeightType; readonly maxTokens: number; readonly seed?: number },
): Subject {
  const width = options.dtype === "f32" ? 4 : 2;
  const largest = config.vocabSize * config.hiddenSize * 2; // while it is packed there are two of it
  const needed = configParams(config) * width + largest + WORKING_BYTES[ops.kind];
  const available = freeBytes(ops);
  if (needed > available) {
    throw new CapacityError(
      `Cannot create "${name}": its ${options.dtype} weights need ${gibibytes(needed)}, ${gibibytes(available)} are free`,
    );
  }
  const own = { ...config, maxPositions: Math.min(config.maxPositions, Math.max(1, options.maxTokens)) };
  const model = createRandomModel(ops, own, { dtype: options.dtype, ...(options.seed ? { seed: options.seed } : {}) });
  return { name, ops, model: { ...model, config }, pools: [] };
}

/** A checkpoint's model. @throws CheckpointError */
export function loadSubject(
  ops: Ops,
  name: string,
  directory: string,
  options: { readonly dtype?: WeightType; readonly maxTokens: number },
): Subject {
  const { dtype, maxTokens } = options;
  return {
    name,
    ops,
    model: loadModel(ops, directory, { maxContext: maxTokens, ...(dtype ? { dtype } : {}) }),
    pools: [],
  };
}

/** The mixers that a mask runs. @throws RequestError where no pool serves it */
export function mixersOf({ model, pools }: Subject, mask: Mask): LayerMixer[] {
  return mask.layers.map((variant, i) => {
    if (variant === null) {
      const own = model.mixers[i];
      return { mixer: own ?? model.backbone.fullAttention(i), shape: own ? model.config.linearLayers[i]! : null };
    }
    const pool = pools.find((candidate) => candidate.variant === variant);
    if (pool === undefined)
      throw new RequestError("no_pool", `Cannot measure "${mask.name}": no ${variant} pool is loaded`);
    return { mixer: pool.mixers[i]!, shape: pool.shape };
  });
}

/** What a mask costs under these settings. */
export function maskCosts(subject: Subject, mask: Mask, types: CacheTypes): ModelCosts {
  return costsOf(subject.model, mixersOf(subject, mask), types);
}

/**
 * Runs `use` with an engine that holds one mask's sequences and nothing more.
 * @throws RequestError for a context beyond the model's, CapacityError for one beyond the memory; both name what fits
 */
export function withEngine<T>(
  subject: Subject,
  mask: Mask,
  sizes: EngineSizes,
  use: (engine: Engine) => T,
  hooks: EngineHooks = {},
): T {
  const { ops, model, pools } = subject;
  const { batch, maxTokens, chunk, kvDtype, stateDtype } = sizes;
  requirePositions(subject, maxTokens);
  const needs = engineNeeds(subject, mask, sizes);
  requireMemory(subject, sizes, needs);
  const options = {
    maxSequences: batch,
    maxWaiting: batch, // all of them, before the first step
    prefixCacheBytes: 0, // every repeat computes its prompts
    prefillInterference: 0, // throughput alone counts
    maxBatchTokens: Math.max(chunk, batch),
    maxContext: maxTokens,
    pageSize: PAGE_SIZE,
    kvDtype,
    stateDtype,
    // The checkpoint's own layers are always a hybrid of the engine, so one sequence of them must fit as well.
    stateBytes: needs.stateBytes + slotBytes(model.mixers, stateDtype),
    kvBytes: Math.max(needs.kvBytes, baseKvBytes(model, kvDtype)),
  };
  const engine = createEngine(ops, model, options, hooks);
  try {
    for (const pool of pools) engine.addPool(pool);
    if (mask.name !== BASE_HYBRID) engine.registerHybrid(mask);
    return use(engine);
  } finally {
    engine.close();
  }
}

/**
 * The most sequences, up to `most`, whose engine fits into the memory that is free and the model's positions.
 * @throws RequestError for a context beyond the model's, CapacityError where not even one fits
 */
export function fittingBatch(
  subject: Subject,
  mask: Mask,
  sizesFor: (batch: number) => EngineSizes,
  most = MOST_SEQUENCES,
): number {
  requirePositions(subject, sizesFor(1).maxTokens);
  const available = freeBytes(subject.ops);
  const fits = (batch: number) =>
    sizesFor(batch).maxTokens <= subject.model.config.maxPositions &&
    engineNeeds(subject, mask, sizesFor(batch)).total <= available;
  if (!fits(1)) requireMemory(subject, sizesFor(1), engineNeeds(subject, mask, sizesFor(1)));
  let [low, high] = [1, Math.min(most, MOST_SEQUENCES)];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Bytes that an engine of these sizes takes. */
interface EngineNeeds {
  readonly kvBytesPerToken: number;
  readonly kvBytes: number;
  readonly stateBytes: number;
  readonly total: number;
}

function engineNeeds(subject: Subject, mask: Mask, sizes: EngineSizes): EngineNeeds {
  const { batch, maxTokens, stateDtype } = sizes;
  const { kvBytesPerToken } = maskCosts(subject, mask, sizes);
  const linear = mixersOf(subject, mask).flatMap(({ mixer, shape }) => (shape ? [mixer] : []));
  const kvBytes = kvBytesPerToken * batch * roundUp(maxTokens);
  const stateBytes = (batch + 1) * slotBytes(linear, stateDtype);
  const tableBytes = kvBytes > 0 ? 4 * batch * mask.layers.length * (roundUp(maxTokens) / PAGE_SIZE) : 0;
  const total = kvBytes + stateBytes + tableBytes + WORKING_BYTES[subject.ops.kind];
  return { kvBytesPerToken, kvBytes, stateBytes, total };
}

function requirePositions({ name, model }: Subject, maxTokens: number): void {
  const longest = model.config.maxPositions;
  if (maxTokens <= longest) return;
  throw new RequestError(
    "context_too_long",
    `Cannot measure ${maxTokens} tokens of context: "${name}" has positions for ${longest}`,
  );
}

/** States of one sequence in these layers. */
function slotBytes(mixers: readonly (TokenMixer | null)[], dtype: StateDtype): number {
  return mixers.reduce((bytes, mixer) => bytes + (mixer ? 4 * slotShape(mixer, dtype).floats : 0), 0);
}

/** One page of every full-attention layer: the least that an engine takes. */
function baseKvBytes({ config }: LoadedModel, kvDtype: "f32" | "bf16"): number {
  const bytes = 2 * config.numKvHeads * config.headDim * (kvDtype === "f32" ? 4 : 2);
  return PAGE_SIZE * bytes * config.linearLayers.filter((linear) => linear === null).length;
}

function requireMemory({ ops, name }: Subject, sizes: EngineSizes, needs: EngineNeeds): void {
  const { batch, maxTokens } = sizes;
  const available = freeBytes(ops);
  if (needs.total <= available) return;
  const left = available - (needs.total - needs.kvBytes);
  const fits = Math.max(0, Math.floor(left / Math.max(1, needs.kvBytesPerToken * batch) / PAGE_SIZE) * PAGE_SIZE);
  throw new CapacityError(
    `Cannot measure "${name}" with ${batch} sequences of ${maxTokens} tokens: that needs ${gibibytes(needs.total)}, ` +
      `${gibibytes(available)} are free; ${left < 0 ? "fewer sequences" : `${fits} tokens each`} would fit`,
  );
}

function roundUp(tokens: number): number {
  return Math.ceil(tokens / PAGE_SIZE) * PAGE_SIZE;
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
