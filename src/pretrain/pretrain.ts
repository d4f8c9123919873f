// `graft pretrain` as a function: tokenizer, training with checkpoints, held-out loss, and the finished directory. The
// same recipe gives the same tokens everywhere and the same weights on the same kernels.

import { rmSync } from "node:fs";
import { join } from "node:path";
import { requireFree } from "../checkpoint/directory.ts";
import { RequestError } from "../errors.ts";
import type { Ops } from "../ops/ops.ts";
import { tryLock } from "../store/lock.ts";
import { Tokenizer } from "../text/tokenizer.ts";
import { removeCheckpoints } from "../train/checkpoint.ts";
import { noProgress, type Progress } from "../train/progress.ts";
import { heldOutBatches } from "./batches.ts";
import { document } from "./corpus/corpus.ts";
import { tokenizerFiles, writeModel } from "./model_files.ts";
import { type Recipe, specialTokens } from "./recipe.ts";
import { type TrainedTokenizer, trainTokenizer } from "./tokenizer_trainer.ts";
import { Trainer } from "./trainer.ts";

export interface PretrainOptions {
  readonly ops: Ops;
  readonly recipe: Recipe;
  /** The model's directory; must be absent or empty. Checkpoints lie beside it in `<out>.checkpoints`. */
  readonly out: string;
  readonly checkpointSeconds?: number;
  readonly restart?: boolean;
  readonly progress?: Progress;
}

export interface PretrainResult {
  readonly steps: number;
  readonly tokens: number;
  readonly heldOutLoss: number;
  readonly numParameters: number;
  readonly vocabSize: number;
  /** Of this process. */
  readonly seconds: number;
  readonly tokensPerSecond: number;
}

/** The run was told to stop; its state is saved. */
export class PretrainCancelled extends Error {
  override name = "PretrainCancelled";
}

const TOKENIZER_DOCUMENTS = 6000;
const HELD_OUT_DOCUMENTS = 300;
const TASK_DOCUMENTS = 150;
/** Training steps between two measurements on held-out text, and between two reports. */
const MEASURE_STEPS = 500;
const REPORT_STEPS = 10;

/** The tokenizer of a recipe's text. */
export function recipeTokenizer(recipe: Recipe): TrainedTokenizer {
  const texts = Array.from({ length: TOKENIZER_DOCUMENTS }, (_, i) => {
    const { given, learned } = document(recipe.seed, i);
    return `${given} ${learned}`;
  });
  return trainTokenizer(texts, recipe.vocabSize, specialTokens);
}

/**
 * Trains and writes the model. Killed and started again it goes on from its last checkpoint to the same weights.
 * @throws RequestError where the directory is taken; PretrainCancelled when told to stop; CheckpointError where the
 * checkpoints are another recipe's
 */
export async function pretrain(options: PretrainOptions): Promise<PretrainResult> {
  const { out } = options;
  const folder = `${out}.checkpoints`;
  requireFree(out);
  const lock = tryLock(join(folder, "lock"));
  if (lock === null) {
    throw new RequestError("busy", `Cannot train into "${out}": another training is writing there`);
  }
  try {
    // Another training may have ended between the look and the lock.
    requireFree(out);
    const result = await pretrainLocked(options, folder);
    rmSync(folder, { recursive: true, force: true });
    return result;
  } finally {
    lock.release();
  }
}

async function pretrainLocked(options: PretrainOptions, folder: string): Promise<PretrainResult> {
  const { ops, recipe, out } = options;
  if (options.restart === true) removeCheckpoints(folder);
  const tokenizer = recipeTokenizer(recipe);
  const coder = new Tokenizer(tokenizerFiles(tokenizer), out);
  const encode = (text: string) => coder.encode(text, "never");
  const trainer = new Trainer(ops, recipe, tokenizer.vocab.size, encode);
  try {
    trainer.restore(folder);
    const start = { time: performance.now(), tokens: trainer.stream.tokensSeen };
    const heldOutLoss = await train(trainer, options, folder, encode);
    const seconds = (performance.now() - start.time) / 1000;
    if (!Number.isFinite(heldOutLoss)) throw new RangeError(`Training failed: the held-out loss is ${heldOutLoss}`);
    const { tokensSeen } = trainer.stream;
    writeModel(out, trainer.model, tokenizer, { seed: recipe.seed, documents: TASK_DOCUMENTS });
    removeCheckpoints(folder);
    const { params } = trainer.model;
    return {
      steps: trainer.step,
      tokens: tokensSeen,
      heldOutLoss,
      numParameters: params.names().reduce((sum, name) => sum + params.read(name).length, 0),
      vocabSize: tokenizer.vocab.size,
      seconds,
      tokensPerSecond: seconds > 0 ? (tokensSeen - start.tokens) / seconds : 0,
    };
  } finally {
    trainer.free();
  }
}

async function train(
  trainer: Trainer,
  options: PretrainOptions,
  folder: string,
  encode: (text: string) => readonly number[],
): Promise<number> {
  const { recipe } = options;
  const progress = options.progress ?? noProgress;
  const heldOut = heldOutBatches(recipe, encode, HELD_OUT_DOCUMENTS);
  const pause = 1000 * (options.checkpointSeconds ?? 60);
  let nextSave = performance.now() + pause;
  let running = Number.NaN;
  while (!trainer.finished) {
    const loss = trainer.trainStep();
    if (!Number.isFinite(loss)) throw new RangeError(`Training failed: the loss of step ${trainer.step} is ${loss}`);
    running = Number.isNaN(running) ? loss : 0.95 * running + 0.05 * loss;
    if (trainer.step % MEASURE_STEPS === 0 && !trainer.finished) {
      const measured = { step: trainer.step, tokens: trainer.stream.tokensSeen, heldOutLoss: trainer.measure(heldOut) };
      progress.event("measured", measured);
    }
    if (trainer.step % REPORT_STEPS === 0 || trainer.finished) {
      progress.progress(Math.min(trainer.stream.tokensSeen, recipe.tokens), recipe.tokens, "tokens", { loss: running });
      await new Promise<void>((resolve) => setImmediate(resolve));
      if (progress.cancelled()) {
        trainer.save(folder);
        throw new PretrainCancelled("Training cancelled");
      }
    }
    if (performance.now() >= nextSave) {
      trainer.save(folder);
      nextSave = performance.now() + pause;
    }
  }
  return trainer.measure(heldOut);
}
