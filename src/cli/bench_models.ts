// What graft bench decode and graft bench prefill share: flags, the model they open, the hybrids they go through, and the
// records they print. The measuring is in src/bench.
import type { Variant } from "../../models/attention/mixer.ts";
import { VARIANTS } from "../../models/attention/shape.ts";
import { loadPool } from "../../models/pool.ts";
import { createRandomPool } from "../../models/random_model.ts";
import { shapeConfig, shapeNames } from "../../models/shapes.ts";
import type { CacheTypes } from "../bench/costs.ts";
import { createSubject, loadSubject, type Mask, maskCosts, type Subject, type WeightType } from "../bench/subject.ts";
import { uniformReplacement } from "../bench/uniform.ts";
import { typesFor } from "../engine/default_types.ts";
import { BASE_HYBRID } from "../engine/types.ts";
import { RequestError } from "../errors.ts";
import { Ops } from "../ops/ops.ts";
import { Store } from "../store/database.ts";
import { DATA_DIR_FLAG, type Flags, UsageError } from "./config.ts";
import { KERNEL_FLAGS, kernelOptions } from "./kernel_flags.ts";
import { type ModelArgument, resolveModel } from "./model_argument.ts";

export const MODEL_BENCH_FLAGS = {
  shape: {
    type: "string",
    choices: shapeNames,
    value: "NAME",
    help: `random weights: ${shapeNames.join(", ")}`,
    env: false,
  },
  contexts: { type: "string", value: "N,N,...", default: "512", help: "tokens of each prompt", env: false },
  batch: { type: "string", value: "N,N,...", default: "1", help: "sequences at once", env: false },
  repeats: { type: "integer", min: 1, max: 1000, default: 3, help: "samples per figure", env: false },
  variant: { type: "string", choices: VARIANTS, help: "counterparts for --replaced, with random weights", env: false },
  replaced: {
    type: "string",
    value: "K,K,...|all",
    help: "numbers of layers to replace, spread evenly; all = a curve from none to every layer",
    env: false,
  },
  dtype: {
    type: "string",
    choices: ["bf16", "f32"],
    help: "linear weights (default: as stored; shapes bf16)",
    env: false,
  },
  "kv-dtype": {
    type: "string",
    choices: ["f32", "bf16"],
    help: "KV cache (default: f32; on a CUDA device bf16)",
    env: false,
  },
  "state-dtype": { type: "string", choices: ["f32", "bf16"], default: "f32", help: "recurrent states", env: false },
  chunk: { type: "integer", min: 1, max: 65_536, help: "token rows of one step (default: 512)", env: false },
  ...KERNEL_FLAGS,
  output: {
    type: "string",
    short: "o",
    choices: ["md", "csv", "json", "jsonl"],
    default: "md",
    help: "format",
    env: false,
  },
  "data-dir": DATA_DIR_FLAG,
} as const;

export type ModelBenchFlags = Flags<typeof MODEL_BENCH_FLAGS>;

/** What every row says of its case, whatever was measured. */
export interface CaseRow extends CacheTypes {
  readonly model: string;
  readonly weightBytes: number;
  readonly numParams: number;
  readonly backend: string;
  /** What the library calls what it runs on. */
  readonly device: string;
  readonly threads: number;
  readonly weightType: WeightType;
  readonly hybrid: string;
  readonly numLinear: number;
  readonly batch: number;
  /** As llama-bench names tests: "tg32 @ d512", "pp512". */
  readonly test: string;
  /** Of one sequence at its longest, and of its states. */
  readonly kvBytes: number;
  readonly stateBytes: number;
}

/** A subject with the hybrids to measure and the settings that rows repeat. */
export interface OpenedSubject {
  readonly subject: Subject;
  readonly masks: readonly Mask[];
  readonly weightType: WeightType;
  /** The columns that do not come out of measuring. */
  describe(mask: Mask, batch: number, test: string, tokens: number): CaseRow;
}

/** Types of KV cache and states. */
export function cacheTypes(flags: ModelBenchFlags, ops: Ops): CacheTypes {
  const kvDtype = flags["kv-dtype"];
  const { kv } = typesFor(ops, kvDtype === undefined ? {} : { kvDtype });
  return { kvDtype: kv, stateDtype: flags["state-dtype"] };
}

/** Sequences at once; "max" stands for as many as fit. @throws UsageError */
export function batchesIn(text: string): (number | "max")[] {
  const example = "8 or max";
  return text.split(",").map((part) => (part.trim() === "max" ? "max" : countsIn("batch", part, 1, example)[0]!));
}

/** Variants that any of these hybrids has. */
export function variantsOf(masks: readonly Mask[]): Variant[] {
  return [...new Set(masks.flatMap(({ layers }) => layers.filter((variant) => variant !== null)))];
}

/** Positive whole numbers with commas between. @throws UsageError */
export function countsIn(flag: string, text: string, min = 1, example = "512,2048"): number[] {
  return text.split(",").map((part) => {
    const value = /^\s*\d+\s*$/.test(part) ? Number(part) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= min && value <= 2 ** 24) return value;
    throw new UsageError(
      `Invalid value for --${flag}: "${part}", expected whole numbers of at least ${min}, e.g. ${example}`,
    );
  });
}

/** @throws UsageError, RequestError, CheckpointError, CapacityError before anything is measured */
export async function openSubject(
  argument: string | undefined,
  flags: ModelBenchFlags,
  maxTokens: number,
  timeKernels = false,
): Promise<OpenedSubject> {
  if ((argument === undefined) === (flags.shape === undefined)) {
    throw new UsageError("Name one model to measure: either MODEL or --shape NAME");
  }
  if (flags.variant !== undefined && flags.replaced === undefined) {
    throw new UsageError("--variant says what --replaced puts in place: add --replaced K or --replaced all");
  }
  const counts =
    flags.replaced === undefined || flags.replaced === "all" ? [] : countsIn("replaced", flags.replaced, 0);
  const ops = await Ops.load({ ...kernelOptions(flags), timeKernels });
  const opened =
    flags.shape === undefined
      ? openCheckpoint(ops, argument!, flags, maxTokens)
      : openShape(ops, flags.shape, flags, maxTokens);
  const { config } = opened.subject.model;
  if (flags.replaced === undefined) return withRows(opened.subject, opened.masks, flags);
  if (opened.masks.some(({ name }) => name !== BASE_HYBRID) || config.linearLayers.some((linear) => linear !== null)) {
    throw new UsageError("--replaced begins with the full model: name a model without a hybrid");
  }
  const variant = flags.variant ?? "gdn";
  const dtype = weightTypeOf(opened.subject);
  const pool = createRandomPool(ops, opened.subject.model, variant, { dtype });
  const masks = replacements(config.numLayers, counts).map((k) => replacedMask(variant, k, config.numLayers));
  return withRows({ ...opened.subject, pools: [pool] }, masks, flags);
}

function openShape(ops: Ops, name: string, flags: ModelBenchFlags, maxTokens: number) {
  const config = shapeConfig(name);
  const subject = createSubject(ops, name, config, { dtype: flags.dtype ?? "bf16", maxTokens });
  return { subject, masks: [baseMask(config.numLayers)] };
}

function openCheckpoint(ops: Ops, argument: string, flags: ModelBenchFlags, maxTokens: number) {
  const store = Store.open(flags["data-dir"]);
  try {
    const target = resolveModel(store, argument);
    const dtype = flags.dtype === undefined ? {} : { dtype: flags.dtype };
    const plain = loadSubject(ops, target.name, target.path, { maxTokens, ...dtype });
    const { numLayers } = plain.model.config;
    if (target.hybrid === null || target.hybrid === BASE_HYBRID)
      return { subject: plain, masks: [baseMask(numLayers)] };
    const mask = registeredMask(store, target, target.hybrid);
    const pools = variantsOf([mask]).map((variant) => loadPool(ops, poolPath(store, target.name, variant), dtype));
    return { subject: { ...plain, name: argument, pools }, masks: [mask] };
  } finally {
    store.close();
  }
}

function registeredMask(store: Store, target: ModelArgument, hybrid: string): Mask {
  const alias = store.hybrids.findByAlias(hybrid);
  const record = store.hybrids.get(target.name, hybrid) ?? (alias?.backbone === target.name ? alias : null);
  if (record === null) {
    throw new RequestError(
      "unknown_hybrid",
      `Cannot find hybrid "${hybrid}" of "${target.name}"; see graft hybrids list`,
    );
  }
  return { name: hybrid, layers: record.layers as (Variant | null)[] };
}

function poolPath(store: Store, model: string, variant: Variant): string {
  const path = store.pools.get(model, variant)?.path;
  if (path === undefined) throw new RequestError("no_pool", `Cannot find a ${variant} pool of "${model}"`);
  return path;
}

function baseMask(numLayers: number): Mask {
  return { name: BASE_HYBRID, layers: new Array<null>(numLayers).fill(null) };
}

function replacedMask(variant: Variant, count: number, numLayers: number): Mask {
  if (count === 0) return baseMask(numLayers);
  const replaced = uniformReplacement(numLayers, count);
  return { name: `${variant}-${count}`, layers: replaced.map((linear) => (linear ? variant : null)) };
}

/** The given counts, or a curve of about eight points. @throws UsageError */
function replacements(numLayers: number, counts: readonly number[]): number[] {
  const tooMany = counts.find((count) => count > numLayers);
  if (tooMany !== undefined) {
    throw new UsageError(`Invalid value for --replaced: "${tooMany}", the model has ${numLayers} layers`);
  }
  if (counts.length > 0) return [...new Set(counts)].sort((a, b) => a - b);
  const step = Math.max(1, Math.round(numLayers / 7));
  const curve = Array.from({ length: Math.ceil(numLayers / step) }, (_, i) => i * step);
  return [...curve, numLayers];
}

/** Linear weights of a checkpoint are all of one type: by their bytes. */
function weightTypeOf(subject: Subject): WeightType {
  const { numParams, weightBytes } = maskCosts(subject, baseMask(subject.model.config.numLayers), {
    kvDtype: "f32",
    stateDtype: "f32",
  });
  return weightBytes / numParams < 3 ? "bf16" : "f32";
}

function withRows(subject: Subject, masks: readonly Mask[], flags: ModelBenchFlags): OpenedSubject {
  const weightType = weightTypeOf(subject);
  const { name: device, threads } = subject.ops.info() as { name: string; threads: number };
  process.stderr.write(`${device}, ${subject.ops.isa} kernels, ${threads} threads\n`);
  const types = cacheTypes(flags, subject.ops);
  return {
    subject,
    masks,
    weightType,
    describe(mask, batch, test, tokens) {
      const costs = maskCosts(subject, mask, types);
      return {
        model: subject.name,
        weightBytes: costs.weightBytes,
        numParams: costs.numParams,
        backend: subject.ops.kind === "cuda" ? subject.ops.isa : `cpu ${subject.ops.isa}`,
        device,
        threads,
        weightType,
        ...types,
        hybrid: mask.name,
        numLinear: mask.layers.filter((variant) => variant !== null).length,
        batch,
        test,
        kvBytes: costs.kvBytesPerToken * tokens,
        stateBytes: costs.stateBytes,
      };
    },
  };
}
