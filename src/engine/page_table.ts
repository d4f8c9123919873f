// The page table on the device, written a few entries at a time: all of a step's new ones with one copy and one kernel.
// Knows rows and pages, not whose they are.
import { Staging } from "../ops/device.ts";
import type { Ops } from "../ops/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Entries on their way at once. */
const MAX_PENDING = 1 << 13;

/** Rows of page numbers, `stride` entries each. */
export class PageTable {
  readonly tensor: Tensor;
  readonly stride: number;
  readonly #ops: Ops;
  /** Pairs of a place in the table and what goes there. */
  readonly #entries: Staging<Int32Array>;
  #numPending = 0;

  constructor(ops: Ops, numRows: number, stride: number) {
    this.#ops = ops;
    this.stride = stride;
    this.tensor = ops.empty([numRows * stride], "i32");
    this.#entries = Staging.int32(ops, 2 * MAX_PENDING);
  }

  /** Takes effect with send(), or before. */
  set(row: number, column: number, page: number): void {
    if (this.#numPending === MAX_PENDING) this.send();
    const at = 2 * this.#numPending++;
    this.#entries.view[at] = row * this.stride + column;
    this.#entries.view[at + 1] = page;
  }

  /** Whatever is queued from now on sees all that was set. */
  send(): void {
    const n = this.#numPending;
    if (n === 0) return;
    this.#numPending = 0;
    const { ptr, dtype } = this.#entries.upload(2 * n);
    this.#ops.put(this.tensor, { ptr, dtype, shape: [n, 2] });
  }

  close(): void {
    this.#ops.free(this.tensor);
    this.#entries.close();
  }
}
