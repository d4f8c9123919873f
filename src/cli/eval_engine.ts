// An engine with everything that evaluation and search need around it: kernels, model, tokenizer, pools. Opened for one
// command and closed after it.

import type { Variant } from "../../models/attention/mixer.ts";
import { loadModel } from "../../models/load.ts";
import type { LinearPool, LoadedModel } from "../../models/model.ts";
import { loadPool } from "../../models/pool.ts";
import { createEngine } from "../engine/create.ts";
import { typesFor } from "../engine/default_types.ts";
import { deviceAtStart } from "../engine/device_room.ts";
import type { Engine } from "../engine/engine.ts";
import type { EngineOptions, EngineWorkerOptions } from "../engine/types.ts";
import { RequestError } from "../errors.ts";
import { taskEncoder } from "../eval/encoder.ts";
import { type BosPolicy, type PreparedTask, prepareTask } from "../eval/requests.ts";
import { readTaskFile } from "../eval/task.ts";
import type { LibraryOptions } from "../ops/library.ts";
import { Ops } from "../ops/ops.ts";
import type { Store } from "../store/database.ts";
import { Tokenizer } from "../text/tokenizer.ts";
import { type ModelArgument, registerModel } from "./model_argument.ts";

export interface OpenedModel {
  readonly model: LoadedModel;
  readonly engine: Engine;
  readonly tokenizer: Tokenizer | null;
  /** Loads a variant's pool, from a folder or from where the store says. @throws RequestError where there is none */
  usePool(variant: Variant, folder?: string): void;
  /** @throws SyntaxError, RangeError naming file, line or document */
  prepare(taskFile: string, bos: BosPolicy): PreparedTask;
  close(): void;
}

/** Loads a model and registers it in the store. */
export async function openModel(
  store: Store,
  target: ModelArgument,
  kernels: LibraryOptions,
  options: EngineOptions & Pick<EngineWorkerOptions, "weightDtype" | "memoryFraction"> = {},
): Promise<OpenedModel> {
  const ops = await Ops.load(kernels);
  const start = deviceAtStart(ops, options.memoryFraction);
  const types = typesFor(ops, options);
  const dtype = types.weights === undefined ? {} : { dtype: types.weights };
  const model = loadModel(ops, target.path, dtype);
  registerModel(store, target, { ...model.config, identity: model.identity });
  const tokenizer = Tokenizer.load(target.path);
  const engine = createEngine(
    ops,
    model,
    { ...options, kvDtype: types.kv, prefillInterference: 0 },
    { deviceAtStart: start },
  );
  const pools = new Map<Variant, LinearPool>();
  return {
    model,
    engine,
    tokenizer,
    usePool(variant, folder) {
      if (pools.has(variant)) return;
      const path = folder ?? store.pools.get(target.name, variant)?.path;
      if (path === undefined) {
        const hint = `make it with: graft convert ${target.name} --variant ${variant} --data FILES`;
        throw new RequestError("no_pool", `Cannot find a ${variant} pool of "${target.name}": ${hint}`);
      }
      const pool = loadPool(ops, path, dtype);
      pools.set(variant, pool);
      engine.addPool(pool);
    },
    prepare(taskFile, bos) {
      const { vocabSize } = model.config;
      const options = { encoder: taskEncoder(tokenizer), vocabSize, maxLength: engine.info.maxContext, bos };
      return prepareTask(readTaskFile(taskFile), options);
    },
    close() {
      engine.close();
      for (const pool of pools.values()) pool.free();
      model.free();
    },
  };
}
