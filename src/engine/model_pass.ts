// Walks rows through the model: embedding, layers, head. Knows plans and tensors, neither sequences nor what the logits are
// for.
import type { Context } from "../../models/attention/mixer.ts";
import type { Backbone } from "../../models/model.ts";
import type { RowNorm } from "../ops/ops.ts";
import type { Arena } from "../tensor/arena.ts";
import { rows, type Tensor } from "../tensor/tensor.ts";
import type { LayerGroup, StepPlan } from "./step_plan.ts";

/** Logits in flight at once; scoring long texts over a large vocabulary goes through the head in slices. */
const MAX_LOGITS = 1 << 24;

/** One backbone, and the scratch that a pass through it takes. */
export class ModelPass {
  readonly ctx: Context;
  readonly numLayers: number;
  readonly hiddenSize: number;
  /** Most rows that go through the head at once. */
  readonly sliceRows: number;
  readonly #arena: Arena;
  readonly #backbone: Backbone;

  constructor(ctx: Context, backbone: Backbone, maxBatchTokens: number) {
    const { numLayers, hiddenSize, vocabSize } = backbone.config;
    this.ctx = ctx;
    this.numLayers = numLayers;
    this.hiddenSize = hiddenSize;
    this.sliceRows = Math.max(1, Math.min(maxBatchTokens, Math.floor(MAX_LOGITS / vocabSize)));
    this.#arena = ctx.arena;
    this.#backbone = backbone;
  }

  /** x[N,C] = the embedding of a plan's ids. */
  embed({ ids, positions }: StepPlan, x: Tensor): void {
    this.#backbone.embed(this.ctx, ids, positions, x);
  }

  /** x[N,C] of a plan's rows after the last layer, in the scratch of the scope under way. */
  hidden(plan: StepPlan): Tensor {
    const x = this.#arena.alloc([plan.numRows, this.hiddenSize]);
    this.embed(plan, x);
    for (let layer = 0; layer < this.numLayers; layer++) this.layer(layer, x, plan);
    return x;
  }

  /** x[N,C] += mixer(norm(x)); x += MLP(norm(x)). */
  layer(layer: number, x: Tensor, plan: StepPlan): void {
    const norm = this.#backbone.inputNorm(layer);
    for (const group of plan.layers[layer]!) this.#mix(group, norm, x);
    this.#backbone.mlpBlock(this.ctx, layer, x);
  }

  /** logits[M,V] of x[M,C], at most sliceRows of them, in the scratch of the scope under way. */
  logits(x: Tensor): Tensor {
    const logits = this.#arena.alloc([x.shape[0]!, this.#backbone.config.vocabSize]);
    this.#backbone.head(this.ctx, x, logits);
    return logits;
  }

  /** The rows of one group through their mixer, in place where they follow one another. */
  #mix({ mixer, batch, firstRow, index }: LayerGroup, norm: RowNorm, x: Tensor): void {
    if (index === null) {
      const own = rows(x, firstRow, batch.numRows);
      mixer.forward(this.ctx, { x: own, norm, y: own, residual: own }, batch);
      return;
    }
    this.#arena.scope(() => {
      const own = this.#arena.alloc([batch.numRows, x.shape[1]!]);
      this.ctx.ops.gatherRows(own, x, index);
      mixer.forward(this.ctx, { x: own, norm, y: own, residual: own }, batch);
      this.ctx.ops.scatterRows(x, own, index);
    });
  }
}
