// Gated linear attention, training form (layers.md sections 2 and 9); the serving form is gla.ts.
import type { LinearSizes } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { linearBackward, linearBackwardNew, linearForward } from "../linear.ts";
import { type Parameter, type ParameterSet, parameter } from "../parameters.ts";
import { type SavedQkv, TrainableProjections } from "./conv.ts";
import type { Context, LinearShape, RaggedRows, Saved, TrainableMixer } from "./mixer.ts";
import { type SavedOutput, TrainableOutput } from "./output.ts";
import { linearSizes } from "./shape.ts";

/** What the backward pass needs. */
export interface SavedGla extends Saved {
  readonly x: Tensor;
  readonly rows: RaggedRows;
  readonly qkv: SavedQkv;
  /** Low-rank gate, its logits, and the log decay. */
  readonly low: Tensor;
  readonly z: Tensor;
  readonly a: Tensor;
  readonly workspace: Tensor;
  readonly output: SavedOutput;
}

/** Training form of one gated linear attention layer. */
export class TrainableGla implements TrainableMixer<SavedGla> {
  readonly params: ParameterSet;
  readonly #shape: LinearShape;
  readonly #sizes: LinearSizes;
  readonly #projections: TrainableProjections;
  readonly #gateDown: Parameter;
  readonly #gateUp: Parameter;
  readonly #gateBias: Parameter;
  readonly #output: TrainableOutput;

  constructor(params: ParameterSet, shape: LinearShape) {
    this.params = params;
    this.#shape = shape;
    this.#sizes = linearSizes(shape);
    this.#projections = new TrainableProjections(params);
    this.#gateDown = parameter(params, "gk_proj.0.weight");
    this.#gateUp = parameter(params, "gk_proj.1.weight");
    this.#gateBias = parameter(params, "gk_proj.1.bias");
    this.#output = new TrainableOutput(params, shape.normEps);
  }

  forward(ctx: Context, x: Tensor, rows: RaggedRows): SavedGla {
    const { ops, arena } = ctx;
    const qkv = this.#projections.forward(ctx, x, rows);
    const low = linearForward(ctx, x, this.#gateDown, null); // [N,r]
    const z = linearForward(ctx, low, this.#gateUp, this.#gateBias); // [N,Hkv*Dk]
    const a = arena.alloc(z.shape);
    ops.glaGate(a, z, this.#shape.gateNormalizer);
    const o = arena.alloc([rows.numRows, this.#sizes.numQueryHeads * this.#sizes.valueDim]);
    const workspace = arena.alloc([ops.glaTrainFloats(rows.numRows, rows.numSeqs, this.#sizes)]);
    ops.glaTrain({ o, workspace }, { ...qkv.result, a }, rows.seqStart, this.#sizes);
    const output = this.#output.forward(ctx, o, x);
    return { x, rows, qkv, low, z, a, workspace, output, y: output.y };
  }

  backward(ctx: Context, dy: Tensor, saved: SavedGla, dx: Tensor | null): void {
    const { ops, arena } = ctx;
    arena.scope(() => {
      const { x, rows, qkv, low, z, a, workspace } = saved;
      const dO = this.#output.backward(ctx, dy, saved.output, x, dx);
      const { q, k, v } = qkv.result;
      const grads = {
        dq: arena.alloc(q.shape),
        dk: arena.alloc(k.shape),
        dv: arena.alloc(v.shape),
        da: arena.alloc(a.shape),
      };
      ops.glaBackward(grads, { dO }, { q, k, v, a, workspace }, rows.seqStart, this.#sizes);
      const dz = arena.alloc(z.shape);
      ops.glaGateBackward(dz, grads.da, z, this.#shape.gateNormalizer);
      const dlow = linearBackwardNew(ctx, dz, low, this.#gateUp, this.#gateBias);
      linearBackward(ctx, dlow, x, this.#gateDown, null, dx);
      this.#projections.backward(ctx, { q: grads.dq, k: grads.dk, v: grads.dv }, qkv, x, rows, dx);
    });
  }
}
