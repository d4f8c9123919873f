// One training run in memory: the model, its optimiser and where the stream of documents stands. A step is forward,
// loss, backward, update. Knows neither files of the finished model nor the command line.

import type { Context } from "../../models/attention/mixer.ts";
import { createTrainable } from "../../models/load.ts";
import type { TrainableModel } from "../../models/model.ts";
import { parseModelConfig } from "../../models/parse_config.ts";
import { crossEntropyInPlace } from "../../models/train_layers.ts";
import type { Ops } from "../ops/ops.ts";
import { Arena } from "../tensor/arena.ts";
import { CounterRandom, streamOf } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { restoreCheckpoint, saveCheckpoint } from "../train/checkpoint.ts";
import { AdamW } from "../train/optimizer.ts";
import { type Batch, type Encode, nextBatch, type StreamState } from "./batches.ts";
import { configJson, type Recipe } from "./recipe.ts";

/** Rate for the share 0..1 of the tokens seen: a linear rise over the first steps, then a cosine. */
export function rateAt(recipe: Recipe, step: number, tokensSeen: number): number {
  const { peakRate, finalRateShare, warmupSteps, tokens } = recipe;
  const cosine = 0.5 * (1 + Math.cos(Math.PI * Math.min(1, tokensSeen / tokens)));
  return peakRate * Math.min(1, (step + 1) / warmupSteps) * (finalRateShare + (1 - finalRateShare) * cosine);
}

/** Norms one, matrices normal; what adds to the residual stream is smaller the more layers add to it. */
function initialise(model: TrainableModel, recipe: Recipe): void {
  for (const name of model.params.names()) {
    const { shape } = model.params.spec(name);
    const count = shape.reduce((a, b) => a * b, 1);
    if (shape.length === 1) {
      model.params.write(name, new Float32Array(count).fill(1));
      continue;
    }
    const residual = /(o_proj|down_proj)\.weight$/.test(name);
    const scale = residual ? recipe.initScale / Math.sqrt(2 * recipe.numLayers) : recipe.initScale;
    const deviation = name.endsWith("embed_tokens.weight") ? recipe.embeddingScale : scale / Math.sqrt(shape[1]!);
    model.params.write(name, new CounterRandom(recipe.seed, streamOf(name)).normals(count, deviation));
  }
}

export class Trainer {
  readonly model: TrainableModel;
  readonly recipe: Recipe;
  step = 0;
  stream: StreamState = { nextDocument: 0, tokensSeen: 0 };
  readonly #ops: Ops;
  readonly #encode: Encode;
  readonly #optimizer: AdamW;
  readonly #context: Context;
  readonly #arena: Arena;

  constructor(ops: Ops, recipe: Recipe, vocabSize: number, encode: Encode) {
    this.recipe = recipe;
    this.#ops = ops;
    this.#encode = encode;
    this.#arena = new Arena(ops);
    this.#context = { ops, arena: this.#arena };
    this.model = createTrainable(ops, parseModelConfig(configJson(recipe, vocabSize)));
    initialise(this.model, recipe);
    this.#optimizer = new AdamW(ops, this.model.params, {
      beta1: 0.9,
      beta2: 0.95,
      eps: 1e-8,
      weightDecay: recipe.weightDecay,
      maxNorm: recipe.clip,
    });
  }

  get finished(): boolean {
    return this.stream.tokensSeen >= this.recipe.tokens;
  }

  /** One update; the mean loss over the predicted words of its documents. */
  trainStep(): number {
    const { batch, after } = nextBatch(this.recipe, this.#encode, this.stream);
    const loss = this.#run(batch, true);
    this.#optimizer.step(rateAt(this.recipe, this.step, this.stream.tokensSeen));
    this.stream = after;
    this.step++;
    return loss;
  }

  /** Mean loss over the labels of batches, without learning from them. */
  measure(batches: readonly Batch[]): number {
    let total = 0;
    let count = 0;
    for (const batch of batches) {
      const labels = batch.labels.reduce((sum, label) => sum + (label < 0 ? 0 : 1), 0);
      total += this.#run(batch, false) * labels;
      count += labels;
    }
    return count > 0 ? total / count : 0;
  }

  #run(batch: Batch, learn: boolean): number {
    return this.#arena.scope(() => {
      const i32 = (array: Int32Array): Tensor => {
        const tensor = this.#arena.alloc([array.length], "i32");
        this.#ops.upload(tensor, array);
        return tensor;
      };
      const rows = {
        seqStart: i32(batch.seqStart),
        positions: i32(batch.positions),
        numSeqs: batch.seqStart.length - 1,
        numRows: batch.ids.length,
      };
      const saved = this.model.forward(this.#context, i32(batch.ids), rows);
      const { loss } = crossEntropyInPlace(this.#context, saved.logits, batch.labels);
      if (learn) this.model.backward(this.#context, saved, saved.logits);
      return loss;
    });
  }

  /** All that the next step depends on. */
  #tensors(): Map<string, Tensor> {
    const { m, v } = this.#optimizer;
    return new Map([
      ["values", this.model.params.values],
      ["m", m],
      ["v", v],
    ]);
  }

  save(folder: string): void {
    saveCheckpoint(this.#ops, folder, this.#tensors(), { ...this.recipe }, { step: this.step, ...this.stream });
  }

  /** Goes on from the newest checkpoint; false where there is none. @throws CheckpointError for another recipe's. */
  restore(folder: string): boolean {
    const state = restoreCheckpoint(this.#ops, folder, this.#tensors(), { ...this.recipe });
    if (state === null) return false;
    this.step = state.step;
    this.#optimizer.steps = state.step;
    this.stream = { nextDocument: Number(state.nextDocument), tokensSeen: Number(state.tokensSeen) };
    return true;
  }

  free(): void {
    this.#optimizer.free();
    this.#arena.close();
    this.model.free();
  }
}
