// One pass of the parent over whole rows: every layer shows its mixer's input and output, and the parent's own output
// flows on. Holds one layer's activations at a time; the last layer's MLP, the final norm and the head are not computed.
import type { Context, RaggedRows } from "../../models/attention/mixer.ts";
import type { Backbone } from "../../models/model.ts";
import { numRows, type RowSet, rowIds } from "../data/rows.ts";
import type { Ops } from "../ops/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** A batch of rows on the device. */
export interface RowBatch {
  readonly ids: Tensor;
  readonly rows: RaggedRows;
}

/** Uploads batches of rows into memory that is allocated once. */
export class RowBatcher {
  readonly #ops: Ops;
  readonly #ids: Tensor;
  readonly #positions: Tensor;
  readonly #seqStart: Tensor;

  /** @param capacity most ids of a batch; @param maxRows most rows */
  constructor(ops: Ops, capacity: number, maxRows: number) {
    this.#ops = ops;
    this.#ids = ops.empty([capacity], "i32");
    this.#positions = ops.empty([capacity], "i32");
    this.#seqStart = ops.empty([maxRows + 1], "i32");
  }

  /** Valid until the next call. */
  load(rows: RowSet, chosen: readonly number[]): RowBatch {
    const parts = chosen.map((row) => rowIds(rows, row));
    const count = parts.reduce((sum, part) => sum + part.length, 0);
    const ids = new Int32Array(count);
    const positions = new Int32Array(count);
    const starts = new Int32Array(parts.length + 1);
    let at = 0;
    parts.forEach((part, row) => {
      ids.set(part, at);
      for (let i = 0; i < part.length; i++) positions[at + i] = i;
      at += part.length;
      starts[row + 1] = at;
    });
    return {
      ids: this.#fill(this.#ids, ids),
      rows: {
        numRows: count,
        numSeqs: parts.length,
        positions: this.#fill(this.#positions, positions),
        seqStart: this.#fill(this.#seqStart, starts),
      },
    };
  }

  free(): void {
    for (const tensor of [this.#ids, this.#positions, this.#seqStart]) this.#ops.free(tensor);
  }

  #fill(tensor: Tensor, values: Int32Array): Tensor {
    const part = { ptr: tensor.ptr, shape: [values.length], dtype: tensor.dtype };
    this.#ops.upload(part, values);
    return part;
  }
}

/** One layer of the parent: x[N,C] after the input norm, y[N,C] out of the token mixer. */
export type LayerCapture = (layer: number, x: Tensor, y: Tensor) => void;

/** Runs the parent over a batch and shows each layer's mixer input and output [N,C], valid during the call. */
export function runParent(ctx: Context, backbone: Backbone, batch: RowBatch, onLayer: LayerCapture): void {
  const { hiddenSize, numLayers } = backbone.config;
  const { arena, ops } = ctx;
  arena.scope(() => {
    const h = arena.alloc([batch.rows.numRows, hiddenSize]);
    backbone.embed(ctx, batch.ids, batch.rows.positions, h);
    for (let layer = 0; layer < numLayers; layer++) {
      arena.scope(() => {
        const x = arena.alloc(h.shape);
        const y = arena.alloc(h.shape);
        ops.rowNorm(x, h, backbone.inputNorm(layer));
        backbone.fullAttention(layer).forwardDense(ctx, x, y, batch.rows);
        onLayer(layer, x, y);
        ops.add(h, h, y);
      });
      if (layer < numLayers - 1) backbone.mlpBlock(ctx, layer, h);
    }
  });
}

/** Batches of row numbers of at most `capacity` ids and `maxRows` rows, in order. */
export function batchesInOrder(rows: RowSet, capacity: number, maxRows: number): number[][] {
  const batches: number[][] = [];
  let batch: number[] = [];
  let ids = 0;
  for (let row = 0; row < numRows(rows); row++) {
    const length = rowIds(rows, row).length;
    if (batch.length > 0 && (ids + length > capacity || batch.length === maxRows)) {
      batches.push(batch);
      batch = [];
      ids = 0;
    }
    batch.push(row);
    ids += length;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}
