// The integers that one step's kernels read: ids, positions, sequence borders, page and state slots. Written into one
// piece of host memory, sent with one copy, handed out as tensors. Knows neither layers nor sequences.
import { Staging } from "../ops/device.ts";
import type { Ops } from "../ops/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** A bump allocator of integers, emptied every step. */
export class StepTables {
  readonly #ops: Ops;
  #staging: Staging<Int32Array>;
  #used = 0;

  constructor(ops: Ops, capacity: number) {
    this.#ops = ops;
    this.#staging = Staging.int32(ops, capacity);
  }

  /** Forgets the last step. `capacity` bounds what the next one will ask for. */
  begin(capacity: number): void {
    this.#used = 0;
    if (capacity <= this.#staging.view.length) return;
    this.#staging.close();
    this.#staging = Staging.int32(this.#ops, Math.ceil(capacity * 1.5));
  }

  /** Room for `count` integers: where to write them, and the tensor that holds them after send(). */
  take(count: number): { view: Int32Array; at: number; tensor: Tensor } {
    const at = this.#used;
    const { view, tensor } = this.#staging;
    if (at + count > view.length) throw new Error(`Broken step tables: ${at + count} integers, planned ${view.length}`);
    this.#used = at + count;
    return { view, at, tensor: { ptr: tensor.ptr + 4 * at, shape: [count], dtype: "i32" } };
  }

  /** Everything taken since begin(), as one tensor. */
  get taken(): Tensor {
    return { ptr: this.#staging.tensor.ptr, shape: [this.#used], dtype: "i32" };
  }

  /** Copies everything taken to the device. */
  send(): void {
    this.#staging.upload(this.#used);
  }

  close(): void {
    this.#staging.close();
  }
}
