// Plans an engine for a loaded model: limits, pool sizes, device memory. The one place where defaults are decided.
import { totalmem } from "node:os";
import type { TokenMixer } from "../../models/attention/mixer.ts";
import type { ModelConfig } from "../../models/config.ts";
import type { LoadedModel } from "../../models/model.ts";
import { RequestError } from "../errors.ts";
import type { Ops, StateDtype } from "../ops/ops.ts";
import type { ConstraintFactory } from "./constraint.ts";
import { type DeviceAtStart, growToLargestSteps, measureRoom, weightBytes } from "./device_room.ts";
import { Engine, type EngineParts } from "./engine.ts";
import { slotShape } from "./hybrid.ts";
import { HybridRegistry } from "./hybrid_registry.ts";
import { EngineMemory } from "./memory.ts";
import { type MemoryNeeds, memoryInfo, planByMachine, planByRoom } from "./memory_plan.ts";
import { type LogitsTap, Runner } from "./runner.ts";
import { Scheduler } from "./scheduler.ts";
import { SessionStore } from "./sessions/session_store.ts";
import { plausibleStateBytes } from "./state_needs.ts";
import type { DeviceDescription, EngineInfo, EngineOptions } from "./types.ts";

/** What is plugged into an engine besides its settings. */
export interface EngineHooks {
  /** Makes constraints of what requests carry; without it such requests are refused. */
  readonly constraints?: ConstraintFactory;
  /** Sees every row of logits that a request needs, before anything is drawn from it; for tests. */
  readonly tap?: LogitsTap;
  /** What the device had before the model was loaded: its memory is divided then. Absent: shares of the machine's. */
  readonly deviceAtStart?: DeviceAtStart | null;
  /** Seed of random numbers that pages and states begin with, for measuring with Engine.addAssumed(). */
  readonly randomPools?: number;
}

/**
 * An engine over a model; the model stays the caller's to free, after close().
 * @throws RequestError for options outside their range, KernelError where memory is out
 */
export function createEngine(
  ops: Ops,
  model: LoadedModel,
  options: EngineOptions = {},
  hooks: EngineHooks = {},
): Engine {
  return ops.allOrNothing(() => assemble(ops, model, options, hooks));
}

function assemble(ops: Ops, model: LoadedModel, options: EngineOptions, hooks: EngineHooks): Engine {
  const { config } = model;
  const own: TokenMixer[] = model.mixers.map((mixer, i) => mixer ?? model.backbone.fullAttention(i));
  const limits = engineLimits(model, own, options);
  const kvDtype = options.kvDtype ?? "f32";
  const stateDtype = options.stateDtype ?? "f32";
  const kvChannels = config.numKvHeads * config.headDim;
  const kvBytesPerToken = 2 * kvChannels * (kvDtype === "f32" ? 4 : 2);
  const pageBytes = limits.pageSize * kvBytesPerToken;
  const needs = memoryNeeds(ops, config, own, limits, options, { pageBytes, stateDtype });
  const sizes = { ...limits, kvChannels, kvDtype, stateDtype };
  const start = hooks.deviceAtStart ?? null;
  const plan =
    start === null
      ? planByMachine(needs, totalmem())
      : planByRoom(needs, measureRoom(ops, model, start, { ...limits, stateDtype }, sizes));
  const info: EngineInfo = {
    ...limits,
    maxContext: plan.maxContext,
    device: describeDevice(ops),
    ...(plan.room === null ? {} : { memory: memoryInfo(plan) }),
  };
  const numPages = needs.numFull === 0 ? 0 : Math.max(1, Math.floor(plan.kvBytes / pageBytes));
  const numStateFloats = Math.floor(plan.stateBytes / 4);
  const snapshotTokens = bounded("snapshotTokens", options.snapshotTokens ?? 512, 1, 2 ** 24);
  const sharing = {
    pageBytes,
    cacheBytes: bounded(
      "prefixCacheBytes",
      options.prefixCacheBytes ?? Math.floor((numPages * pageBytes + 4 * numStateFloats) / 2),
      0,
      2 ** 46,
    ),
    snapshotTokens: Math.ceil(snapshotTokens / info.pageSize) * info.pageSize,
  };
  const { prefillInterference = 2 } = options;
  if (prefillInterference !== 0 && !(prefillInterference >= 1 && prefillInterference <= 1000)) {
    throw new RequestError(
      "invalid_option",
      `Cannot use prefillInterference ${prefillInterference}: expected 0, or 1 to 1000`,
    );
  }
  const registry = new HybridRegistry(own, model.identity, { numFloats: numStateFloats, dtype: stateDtype });
  const memory = new EngineMemory(ops, { ...sizes, maxContext: info.maxContext, numPages, numStateFloats });
  if (hooks.randomPools !== undefined) memory.fillRandom(hooks.randomPools);
  const runner = new Runner(ops, model.backbone, memory, info.maxBatchTokens, info.maxSequences, options.recordSteps);
  try {
    if (start !== null) {
      const stepLimits = { ...limits, maxContext: info.maxContext, stateDtype };
      growToLargestSteps(ops, model, runner, stepLimits, { numPages, numStateFloats });
    }
    runner.tap = hooks.tap ?? null;
    return new Engine({
      info,
      scheduler: new Scheduler({ ...info, ...sharing, numPages, numStateFloats, prefillInterference }),
      backend: runner,
      registry,
      constraints: hooks.constraints ?? null,
      kvBytesPerToken,
      weightBytes: () => weightBytes(model),
      kernelClock: ops.clock,
      close: () => runner.close(),
      clock: () => performance.now(),
      runAhead: options.runAhead ?? (ops.kind === "cuda" && process.env.GRAFT_RUN_AHEAD !== "0"),
      residency: { maxBytes: plan.poolBytes, keepAliveMs: keepAliveMs(options.keepAliveSeconds ?? -1) },
      ...savedSessions(ops, model, memory, options, { kvDtype, stateDtype, pageSize: info.pageSize }),
    });
  } catch (error) {
    // With it what it has recorded.
    runner.close();
    throw error;
  }
}

type Limits = Omit<EngineInfo, "device" | "memory">;

function engineLimits({ config }: LoadedModel, own: readonly TokenMixer[], options: EngineOptions): Limits {
  return {
    vocabSize: config.vocabSize,
    maxContext: Math.min(
      config.maxPositions,
      bounded("--max-context", options.maxContext ?? config.maxPositions, 1, 2 ** 24),
    ),
    numLayers: config.numLayers,
    layerTypes: own.map((mixer) => mixer.kind),
    maxBatchTokens: bounded("--max-batch-tokens", options.maxBatchTokens ?? 512, 1, 65_536),
    maxSequences: bounded("--max-sequences", options.maxSequences ?? 64, 1, 4096),
    maxWaiting: bounded("--max-waiting", options.maxWaiting ?? 256, 1, 1_000_000),
    pageSize: bounded("pageSize", options.pageSize ?? 32, 1, 1024),
  };
}

function memoryNeeds(
  ops: Ops,
  config: ModelConfig,
  own: readonly TokenMixer[],
  limits: Limits,
  options: EngineOptions,
  { pageBytes, stateDtype }: { pageBytes: number; stateDtype: StateDtype },
): MemoryNeeds {
  const { kvBytes, stateBytes, poolBytes } = options;
  const linear = own.filter((mixer) => mixer.kind !== "full_attention");
  const numFull = own.length - linear.length;
  return {
    ...limits,
    contextAsked: options.maxContext !== undefined,
    pageBytes,
    numFull,
    stateBytes: 4 * sum(linear.map((mixer) => slotShape(mixer, stateDtype).floats)),
    plausibleStateBytes: plausibleStateBytes(ops, config, stateDtype),
    asked: {
      ...(kvBytes === undefined ? {} : { kvBytes: bounded("--kv-memory", kvBytes, numFull * pageBytes, 2 ** 46) }),
      ...(stateBytes === undefined ? {} : { stateBytes: bounded("--state-memory", stateBytes, 0, 2 ** 42) }),
      ...(poolBytes === undefined ? {} : { poolBytes: bounded("--pool-memory", poolBytes, 0, 2 ** 46) }),
    },
  };
}

/** What an engine says of its device. */
function describeDevice(ops: Ops): DeviceDescription {
  const { name, isa, threads } = ops.info() as { name: string; isa: string; threads: number };
  return { kind: ops.kind, name, isa: ops.kind === "cpu" ? ops.isa : isa, threads, passedOver: ops.passedOver };
}

/** What saved states must have in common with this engine to the bit, but for the mixers: see SessionHeader. */
function savedSessions(
  ops: Ops,
  model: LoadedModel,
  memory: EngineMemory,
  { sessions }: EngineOptions,
  { kvDtype, stateDtype, pageSize }: { kvDtype: string; stateDtype: string; pageSize: number },
): Pick<EngineParts, "sessions"> {
  if (sessions === undefined) return {};
  const identity = {
    backbone: model.identity,
    weights: String(model.backbone.weightBytes()),
    kernels: ops.digest,
    isa: ops.isa,
    kv_dtype: kvDtype,
    state_dtype: stateDtype,
    page_size: String(pageSize),
  };
  return { sessions: { store: new SessionStore(sessions.directory, sessions.maxBytes), memory, identity } };
}

/** Seconds as a request or a flag gives them, -1 meaning for ever. @throws RequestError */
export function keepAliveMs(seconds: number): number {
  if (seconds === -1) return Number.POSITIVE_INFINITY;
  return 1000 * bounded("--keep-alive", seconds, 0, 2 ** 31);
}

function bounded(name: string, value: number, min: number, max: number): number {
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw new RequestError("invalid_option", `Cannot use ${name} ${value}: expected an integer from ${min} to ${max}`);
  }
  return value;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
