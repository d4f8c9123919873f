// One linear counterpart in training: forward on the parent's input, error against the parent's output, backward, clipped
// AdamW step. Knows one layer; nothing crosses to another.
import type { Context, LinearShape, RaggedRows, TrainableMixer, Variant } from "../../models/attention/mixer.ts";
import type { Ops } from "../ops/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { AdamW } from "../train/optimizer.ts";
import type { Loss } from "./recipe.ts";

/** Sums over all elements seen: ‖error‖², ‖target‖² and ‖output‖². */
export interface ErrorSums {
  error: number;
  target: number;
  output: number;
}

/** A counterpart with its optimiser. */
export class Student {
  readonly layer: number;
  readonly shape: LinearShape;
  readonly mixer: TrainableMixer;
  readonly optimizer: AdamW;
  readonly #ops: Ops;
  readonly #loss: Loss;
  readonly #stats: Tensor;
  readonly #square: Tensor;

  constructor(ops: Ops, layer: number, shape: LinearShape, mixer: TrainableMixer, loss: Loss) {
    this.layer = layer;
    this.shape = shape;
    this.mixer = mixer;
    this.optimizer = new AdamW(ops, mixer.params);
    this.#ops = ops;
    this.#loss = loss;
    this.#stats = ops.empty([2], "f64");
    this.#square = ops.empty([1], "f64");
  }

  get variant(): Variant {
    return this.shape.variant;
  }

  /** One update from x[N,C] and target[N,C]. */
  train(ctx: Context, x: Tensor, target: Tensor, rows: RaggedRows, learningRate: number): void {
    ctx.arena.scope(() => {
      const saved = this.mixer.forward(ctx, x, rows);
      const dy = ctx.arena.alloc(saved.y.shape);
      ctx.ops.mse(this.#stats, dy, saved.y, target, this.#loss === "nmse");
      this.mixer.backward(ctx, dy, saved, null);
    });
    this.optimizer.step(learningRate);
  }

  /** Adds the error on x[N,C] to the sums. */
  measure(ctx: Context, x: Tensor, target: Tensor, rows: RaggedRows, sums: ErrorSums): void {
    ctx.arena.scope(() => {
      const { y } = this.mixer.forward(ctx, x, rows);
      ctx.ops.mse(this.#stats, null, y, target, false);
      ctx.ops.sumSquares(this.#square, y);
    });
    const [error, total] = this.#ops.toFloat64(this.#stats);
    sums.error += error!;
    sums.target += total!;
    sums.output += this.#ops.toFloat64(this.#square)[0]!;
  }

  /** Relative error of the last batch trained on. */
  lastError(): number {
    const [error, total] = this.#ops.toFloat64(this.#stats);
    return error! / total!;
  }

  /** Whether all weights are numbers. */
  isFinite(): boolean {
    this.#ops.sumSquares(this.#square, this.mixer.params.values);
    return Number.isFinite(this.#ops.toFloat64(this.#square)[0]!);
  }

  free(): void {
    this.optimizer.free();
    this.mixer.params.free();
    this.#ops.free(this.#stats);
    this.#ops.free(this.#square);
  }
}
