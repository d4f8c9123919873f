// Opens kernels, model and pools and makes an engine of them: for the engine's worker, and for jobs in their own process.
import { loadModel } from "../../models/load.ts";
import type { LinearPool, LoadedModel } from "../../models/model.ts";
import { readModelConfig } from "../../models/parse_config.ts";
import { openPool } from "../../models/pool.ts";
import { RequestError } from "../errors.ts";
import { modelVocabulary } from "../grammar/model_vocabulary.ts";
import { Ops } from "../ops/ops.ts";
import { createEngine, type EngineHooks } from "./create.ts";
import { typesFor } from "./default_types.ts";
import { deviceAtStart } from "./device_room.ts";
import type { Engine } from "./engine.ts";
import { grammarConstraints } from "./grammar_constraints.ts";
import type { EngineWorkerOptions } from "./types.ts";

/** An engine with what it stands on. */
export interface OpenedEngine {
  readonly engine: Engine;
  readonly ops: Ops;
  readonly model: LoadedModel;
  /** Opens a pool directory for this engine's model; not yet added to it. @throws CheckpointError */
  readonly openPool: (directory: string) => LinearPool;
  /** Frees engine, pools and model. */
  readonly close: () => void;
}

/**
 * Without `hooks.constraints` the engine follows compiled grammars, and prepares the model's vocabulary itself at the first.
 * @throws RequestError, CheckpointError, KernelError
 */
export async function openEngine(options: EngineWorkerOptions, hooks: EngineHooks = {}): Promise<OpenedEngine> {
  const { modelDir, device, threads, isa, directory, extractTo, timeKernels, maxContext } = options;
  requirePositions(modelDir, maxContext);
  const ops = await Ops.load(defined({ device, threads, isa, directory, extractTo, timeKernels }));
  const start = deviceAtStart(ops, options.memoryFraction);
  const types = typesFor(ops, options);
  const dtype = defined({ dtype: types.weights });
  const model = loadModel(ops, modelDir, { ...dtype, ...defined({ maxContext }) });
  const constraints = grammarConstraints(() => modelVocabulary(modelDir, model.config.vocabSize));
  const engine = orFree(model, () =>
    createEngine(ops, model, { ...options, kvDtype: types.kv }, { constraints, deviceAtStart: start, ...hooks }),
  );
  const open = (directory: string) => openPool(ops, directory, dtype);
  const close = () => {
    const loaded = engine.loadedPools;
    engine.close();
    for (const pool of loaded) pool.free();
    model.free();
  };
  try {
    for (const directory of options.pools ?? []) engine.addPool(open(directory));
  } catch (error) {
    close();
    throw error;
  }
  return { engine, ops, model, openPool: open, close };
}

/** @throws RequestError where a context is asked for that the model has no positions for */
function requirePositions(modelDir: string, maxContext = 1): void {
  const { maxPositions } = readModelConfig(modelDir);
  if (maxContext <= maxPositions) return;
  throw new RequestError(
    "context_too_long",
    `Cannot use --max-context ${maxContext}: "${modelDir}" has ${maxPositions} positions; give no more, or leave it out`,
  );
}

/** The next start needs the memory of a model that none came of. */
function orFree<T>(model: LoadedModel, make: () => T): T {
  try {
    return make();
  } catch (error) {
    model.free();
    throw error;
  }
}

/** The settings that are given: an absent one leaves the default to whom it concerns. */
function defined<T extends object>(settings: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)) as never;
}
