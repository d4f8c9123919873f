// Plans an engine for a loaded model: limits, pool sizes, device memory. The one place where defaults are decided.
import { totalmem } from "node:os";
import type { TokenMixer } from "../../models/attention/mixer.ts";
import type { LoadedModel } from "../../models/model.ts";
import { RequestError } from "../errors.ts";
import type { Ops, StateDtype } from "../ops/ops.ts";
import type { ConstraintFactory } from "./constraint.ts";
import { Engine, type EngineParts } from "./engine.ts";
import { slotShape } from "./hybrid.ts";
import { HybridRegistry } from "./hybrid_registry.ts";
import { EngineMemory } from "./memory.ts";
import type { ResidencyLimits } from "./residency.ts";
import { type LogitsTap, Runner } from "./runner.ts";
import { Scheduler } from "./scheduler.ts";
import { SessionStore } from "./sessions/session_store.ts";
import { plausibleStateBytes } from "./state_needs.ts";
import type { EngineInfo, EngineOptions } from "./types.ts";

const GIB = 2 ** 30;

/** What is plugged into an engine besides its settings. */
export interface EngineHooks {
  /** Makes constraints of what requests carry; without it such requests are refused. */
  readonly constraints?: ConstraintFactory;
  /** Sees every row of logits that a request needs, before anything is drawn from it; for tests. */
  readonly tap?: LogitsTap;
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
  const { config } = model;
  const { numLayers } = config;
  const own: TokenMixer[] = model.mixers.map((mixer, i) => mixer ?? model.backbone.fullAttention(i));
  const info: EngineInfo = {
    vocabSize: config.vocabSize,
    maxContext: Math.min(
      config.maxPositions,
      bounded("maxContext", options.maxContext ?? config.maxPositions, 1, 2 ** 24),
    ),
    numLayers,
    layerTypes: own.map((mixer) => mixer.kind),
    maxBatchTokens: bounded("maxBatchTokens", options.maxBatchTokens ?? 512, 1, 65_536),
    maxSequences: bounded("maxSequences", options.maxSequences ?? 64, 1, 4096),
    maxWaiting: bounded("maxWaiting", options.maxWaiting ?? 256, 1, 1_000_000),
    pageSize: bounded("pageSize", options.pageSize ?? 32, 1, 1024),
  };
  const kvDtype = options.kvDtype ?? "f32";
  const kvChannels = config.numKvHeads * config.headDim;
  const kvBytesPerToken = 2 * kvChannels * (kvDtype === "f32" ? 4 : 2);
  const numFull = own.filter((mixer) => mixer.kind === "full_attention").length;
  const pageBytes = info.pageSize * kvBytesPerToken;
  const numPages = numFull === 0 ? 0 : Math.max(1, Math.floor(kvBytes(options, info, numFull, pageBytes) / pageBytes));
  const stateDtype = options.stateDtype ?? "f32";
  // Room for the states of all sequences, and for as many kept for later requests.
  const plausible = 2 * info.maxSequences * plausibleStateBytes(ops, config, stateDtype);
  const numStateFloats = Math.floor(stateBytes(options, own, stateDtype, plausible) / 4);
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
  const memory = new EngineMemory(ops, { ...info, numPages, kvChannels, kvDtype, numStateFloats, stateDtype });
  if (hooks.randomPools !== undefined) memory.fillRandom(hooks.randomPools);
  const runner = new Runner(ops, model.backbone, memory, info.maxBatchTokens, info.maxSequences);
  runner.tap = hooks.tap ?? null;
  const weightBytes = () => model.backbone.weightBytes() + sum(model.mixers.map((mixer) => mixer?.weightBytes() ?? 0));
  return new Engine({
    info,
    scheduler: new Scheduler({ ...info, ...sharing, numPages, numStateFloats, prefillInterference }),
    backend: runner,
    registry,
    constraints: hooks.constraints ?? null,
    kvBytesPerToken,
    weightBytes,
    kernelClock: ops.clock,
    close: () => runner.close(),
    clock: () => performance.now(),
    residency: residencyLimits(options),
    runAhead: options.runAhead ?? ops.kind === "cuda",
    ...savedSessions(ops, model, memory, options, { kvDtype, stateDtype, pageSize: info.pageSize }),
  });
}

/** Enough for every place to hold a whole context, within a share of the machine. */
function kvBytes(options: EngineOptions, info: EngineInfo, numFull: number, pageBytes: number): number {
  if (options.kvBytes !== undefined) return bounded("kvBytes", options.kvBytes, numFull * pageBytes, 2 ** 46);
  const wanted = info.maxSequences * numFull * Math.ceil(info.maxContext / info.pageSize) * pageBytes;
  return Math.min(wanted, totalmem() / 8, 2 * GIB);
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

function residencyLimits({ poolBytes, keepAliveSeconds = -1 }: EngineOptions): ResidencyLimits {
  return {
    maxBytes: poolBytes === undefined ? Number.POSITIVE_INFINITY : bounded("poolBytes", poolBytes, 0, 2 ** 46),
    keepAliveMs: keepAliveMs(keepAliveSeconds),
  };
}

/** Seconds as a request or a flag gives them, -1 meaning for ever. @throws RequestError */
export function keepAliveMs(seconds: number): number {
  if (seconds === -1) return Number.POSITIVE_INFINITY;
  return 1000 * bounded("keepAliveSeconds", seconds, 0, 2 ** 31);
}

/** Hybrids come later, so what they plausibly need, within a share of the machine; untouched memory costs nothing. */
function stateBytes(options: EngineOptions, own: readonly TokenMixer[], dtype: StateDtype, plausible: number): number {
  if (options.stateBytes !== undefined) return bounded("stateBytes", options.stateBytes, 0, 2 ** 42);
  const linear = own.filter((mixer) => mixer.kind !== "full_attention");
  const one = 4 * sum(linear.map((mixer) => slotShape(mixer, dtype).floats));
  return Math.max(one, Math.min(Math.max(plausible, 2 * one), totalmem() / 16, GIB));
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
