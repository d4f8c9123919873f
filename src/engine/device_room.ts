// What a device has for an engine's pages and states: its free memory before anything is loaded, and what the largest steps
// take beside them, found by running these over pools that are given back.
import type { TokenMixer } from "../../models/attention/mixer.ts";
import { VARIANTS } from "../../models/attention/shape.ts";
import type { LinearPool, LoadedModel } from "../../models/model.ts";
import { createRandomPool } from "../../models/random_model.ts";
import { KernelError, RequestError } from "../errors.ts";
import type { Ops } from "../ops/ops.ts";
import { SAMPLING_WORDS } from "../ops/repeat_ops.ts";
import { MAX_PROGRAMS } from "./decode_programs.ts";
import { slotShape } from "./hybrid.ts";
import { EngineMemory, type MemorySizes } from "./memory.ts";
import type { DeviceRoom } from "./memory_plan.ts";
import { Runner } from "./runner.ts";
import { tableIntegers } from "./step_plan.ts";
import { type StepLimits, warmUp, warmUpPages } from "./warm_up.ts";

/** Part of a device's free memory that an engine takes where nothing is said. */
const MEMORY_FRACTION = 0.9;

/** What a driver takes for the recording of one step, with room to spare. */
const RECORDING_BYTES = 2 ** 20;

/** A device's memory before anything was loaded into it. */
export interface DeviceAtStart {
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** Part of what was free to use. */
  readonly fraction: number;
}

/** To be asked before a model is loaded. null for the processor, and for a device without bounds. */
export function deviceAtStart(ops: Ops, fraction = MEMORY_FRACTION): DeviceAtStart | null {
  if (ops.kind === "cpu") return null;
  const { memory, free } = memoryOf(ops);
  return memory === 0 ? null : { totalBytes: memory, freeBytes: free, fraction };
}

/** Calls `use` with one mixer of every kind that a layer may be: the checkpoint's own, and counterparts with random weights. */
function withMixerKinds<T>(ops: Ops, model: LoadedModel, use: (mixers: readonly TokenMixer[]) => T): T {
  const own = model.mixers.map((mixer, i) => mixer ?? model.backbone.fullAttention(i));
  const mixers = [...new Map(own.map((mixer) => [mixer.kind, mixer])).values()];
  const pools: LinearPool[] = [];
  try {
    for (const variant of VARIANTS) {
      if (mixers.some(({ kind }) => kind === variant)) continue;
      const pool = counterpart(ops, model, variant);
      if (pool === null) continue;
      pools.push(pool);
      mixers.push(pool.mixers[0]!);
    }
    return use(mixers);
  } finally {
    for (const pool of pools) pool.free();
  }
}

/** null where no counterpart matches the model. */
function counterpart(ops: Ops, model: LoadedModel, variant: (typeof VARIANTS)[number]): LinearPool | null {
  try {
    return createRandomPool(ops, { ...model, config: { ...model.config, numLayers: 1 } }, variant);
  } catch (error) {
    if (error instanceof RequestError) return null;
    throw error;
  }
}

/**
 * Runs the largest steps over pools of their own and counts what they took.
 * @throws RequestError "device_memory" where they do not fit
 */
export function measureRoom(
  ops: Ops,
  model: LoadedModel,
  start: DeviceAtStart,
  limits: StepLimits,
  sizes: Omit<MemorySizes, "numPages" | "numStateFloats">,
): DeviceRoom {
  // Others use the device too: what they give back meanwhile is not the model's.
  const ownBytes = Math.max(weightBytes(model), start.freeBytes - memoryOf(ops).free);
  const workspaceBytes = orRefuse(limits, () =>
    withMixerKinds(ops, model, (mixers) => {
      const floats = Math.max(0, ...mixers.map((mixer) => slotFloats(mixer, limits)));
      const pools = { numPages: warmUpPages(limits), numStateFloats: limits.maxSequences * floats };
      const memory = new EngineMemory(ops, { ...sizes, ...pools });
      const withPools = memoryOf(ops).free;
      const runner = new Runner(ops, model.backbone, memory, limits.maxBatchTokens, limits.maxSequences);
      try {
        warmUp(runner, mixers, limits);
        return Math.max(0, withPools - memoryOf(ops).free) + recordedBytes(limits);
      } finally {
        runner.close();
      }
    }),
  );
  return { ...start, weightBytes: ownBytes, workspaceBytes };
}

/** Of a model, its own linear layers included. */
export function weightBytes({ backbone, mixers }: LoadedModel): number {
  return mixers.reduce((sum, mixer) => sum + (mixer?.weightBytes() ?? 0), backbone.weightBytes());
}

/**
 * The same over the pools that serve, so that scratch and tables have grown in the engine itself. What grows with the
 * context is the library's own and has grown when the room was measured, so that the shortest that will do is enough.
 * @throws RequestError "device_memory"
 */
export function growToLargestSteps(
  ops: Ops,
  model: LoadedModel,
  runner: Runner,
  limits: StepLimits,
  { numPages, numStateFloats }: { readonly numPages: number; readonly numStateFloats: number },
): void {
  orRefuse(limits, () =>
    withMixerKinds(ops, model, (mixers) => {
      for (const mixer of mixers) {
        const floats = slotFloats(mixer, limits);
        const places = floats === 0 ? limits.maxSequences : Math.floor(numStateFloats / floats);
        const maxSequences = Math.min(limits.maxSequences, places);
        if (maxSequences === 0) continue;
        const maxContext = Math.min(limits.maxContext, Math.max(limits.maxBatchTokens, limits.pageSize));
        const bySlots = { ...limits, maxSequences, maxContext };
        const within = mixer.kind === "full_attention" ? withinPages(bySlots, numPages) : bySlots;
        if (within !== null) warmUp(runner, [mixer], within);
      }
    }),
  );
}

/** What steps keep that are repeated, at most: they come as structures of batches do, and are few and small. */
export function recordedBytes({ maxSequences, maxBatchTokens, numLayers }: StepLimits): number {
  const N = Math.min(maxSequences, maxBatchTokens);
  const integers = 2 * tableIntegers(N, N, numLayers) + N * (SAMPLING_WORDS + 1);
  return MAX_PROGRAMS * (4 * integers + RECORDING_BYTES);
}

/** Limits whose steps find their pages; null where there are too few for any. */
function withinPages(limits: StepLimits, numPages: number): StepLimits | null {
  const { maxContext, maxSequences, maxBatchTokens, pageSize } = limits;
  if (warmUpPages(limits) <= numPages) return limits;
  if (maxContext > pageSize) return withinPages({ ...limits, maxContext: Math.ceil(maxContext / 2) }, numPages);
  const half = { maxSequences: Math.ceil(maxSequences / 2), maxBatchTokens: Math.ceil(maxBatchTokens / 2) };
  return maxSequences + maxBatchTokens === 2 ? null : withinPages({ ...limits, ...half }, numPages);
}

/** Of one sequence in one layer. */
function slotFloats(mixer: TokenMixer, { stateDtype }: StepLimits): number {
  return mixer.kind === "full_attention" ? 0 : slotShape(mixer, stateDtype).floats;
}

function orRefuse<T>({ maxBatchTokens, maxSequences, maxContext }: StepLimits, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof KernelError) || error.code !== "out_of_memory") throw error;
    const largest = `steps of ${maxBatchTokens} tokens, ${maxSequences} sequences and a context of ${maxContext}`;
    throw new RequestError(
      "device_memory",
      `Cannot divide the device's memory: ${largest} do not fit beside the weights (${error.message}); take a smaller ` +
        "--max-batch-tokens, --max-sequences or --max-context",
      { cause: error },
    );
  }
}

function memoryOf(ops: Ops): { memory: number; free: number } {
  const { memory, free } = ops.info() as { memory: number; free?: number };
  return { memory, free: free ?? 0 };
}
