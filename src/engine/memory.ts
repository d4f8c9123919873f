// The device memory behind the pools: one KV cache in pages, the page table, and one region of states. All of it is
// allocated at the start. Knows which places a sequence holds, not why.
import type { LayerStates, Ops, PagedKv, StateDtype } from "../ops/ops.ts";
import { dtypeBytes } from "../tensor/dtype.ts";
import { rows, type Tensor, view } from "../tensor/tensor.ts";
import type { Batch, Copy } from "./batch.ts";
import type { StateSlotShape } from "./hybrid.ts";
import { PageTable } from "./page_table.ts";
import type { Sequence } from "./sequence.ts";

/** What the limits of an engine come to in memory. */
export interface MemorySizes {
  readonly numPages: number;
  readonly pageSize: number;
  /** Channels of k (and of v) of one token: kv heads * head size. */
  readonly kvChannels: number;
  readonly kvDtype: "f32" | "bf16";
  readonly numStateFloats: number;
  readonly stateDtype: StateDtype;
  readonly maxSequences: number;
  readonly numLayers: number;
  readonly maxContext: number;
}

/** The KV cache, its page table and the states, on the device. */
export class EngineMemory {
  readonly #ops: Ops;
  readonly #sizes: MemorySizes;
  readonly #kCache: Tensor;
  readonly #vCache: Tensor;
  /** Row slot * numLayers + f: the pages of full layer f of the running sequence in that slot, by token block. */
  readonly #pageTable: PageTable;
  readonly #states: Tensor;

  constructor(ops: Ops, sizes: MemorySizes) {
    this.#ops = ops;
    this.#sizes = sizes;
    const cache = [sizes.numPages, sizes.pageSize * sizes.kvChannels];
    this.#kCache = ops.empty(cache, sizes.kvDtype);
    this.#vCache = ops.empty(cache, sizes.kvDtype);
    // A sequence with any full-attention layer takes at least one page per block.
    const stride = Math.max(1, Math.min(Math.ceil(sizes.maxContext / sizes.pageSize), sizes.numPages));
    this.#pageTable = new PageTable(ops, sizes.maxSequences * sizes.numLayers, stride);
    this.#states = ops.empty([sizes.numStateFloats]);
  }

  /** Row of the page table of a sequence's full layer number `ordinal`. */
  tableRow(sequence: Sequence, ordinal: number): number {
    return sequence.slot * this.#sizes.numLayers + ordinal;
  }

  kvBatch(tableRows: Tensor): PagedKv {
    return {
      kCache: this.#kCache,
      vCache: this.#vCache,
      tableRows,
      pageTable: this.#pageTable.tensor,
      tableStride: this.#pageTable.stride,
      pageSize: this.#sizes.pageSize,
    };
  }

  stateBatch(shape: StateSlotShape, slots: Tensor): LayerStates {
    const { floats, convOffset, convFloats } = shape;
    const rest = this.#sizes.numStateFloats - convOffset;
    const conv = convFloats > 0 ? view(this.#states, convOffset, [rest]) : null;
    const dtype = this.#sizes.stateDtype;
    return { recurrent: this.#states, conv, stride: floats, slots, dtype };
  }

  copy(copy: Copy): void {
    if (copy.kind === "slot") {
      const { from, to, floats } = copy;
      const slot = (at: number) => view(this.#states, at * floats, [floats]);
      this.#ops.copy(slot(to), slot(from));
      return;
    }
    for (const cache of [this.#kCache, this.#vCache]) {
      this.#ops.copy(rows(cache, copy.to, 1), rows(cache, copy.from, 1));
    }
  }

  /** Bytes of one page, k and v. */
  get pageBytes(): number {
    const { pageSize, kvChannels, kvDtype } = this.#sizes;
    return 2 * pageSize * kvChannels * dtypeBytes[kvDtype];
  }

  /** A page's bytes, k before v. */
  readPage(page: number, out: Uint8Array): void {
    this.#halves(page, out, (tensor, half) => this.#ops.download(tensor, half));
  }

  writePage(page: number, bytes: Uint8Array): void {
    this.#halves(page, bytes, (tensor, half) => this.#ops.upload(tensor, half));
  }

  readSlot(slot: number, floats: number, out: Uint8Array): void {
    this.#ops.download(view(this.#states, slot * floats, [floats]), out);
  }

  writeSlot(slot: number, floats: number, bytes: Uint8Array): void {
    this.#ops.upload(view(this.#states, slot * floats, [floats]), bytes);
  }

  #halves(page: number, bytes: Uint8Array, use: (tensor: Tensor, half: Uint8Array) => void): void {
    const half = bytes.length / 2;
    use(rows(this.#kCache, page, 1), bytes.subarray(0, half));
    use(rows(this.#vCache, page, 1), bytes.subarray(half));
  }

  /** Random numbers in all pages and states, for measuring: zeros would not cost what numbers do. */
  fillRandom(seed: number): void {
    this.#ops.fillRandom(this.#kCache, seed, 1);
    this.#ops.fillRandom(this.#vCache, seed + 1, 1);
    // Pairs of small bfloat16 numbers are small numbers in float32 too, so this does for states of either type.
    const { ptr, shape } = this.#states;
    this.#ops.fillRandom({ ptr, shape: [2 * shape[0]!], dtype: "bf16" }, seed + 2, 0.1);
  }

  /** Positions that a row of the page table has room for. */
  get maxPositions(): number {
    return this.#pageTable.stride * this.#sizes.pageSize;
  }

  /** Makes the places of a batch's sequences ready: new pages in the table, and zero windows at a sequence's beginning. */
  prepare({ chunks }: Batch): void {
    for (const { sequence, start } of chunks) this.#prepare(sequence, start);
    this.#pageTable.send();
  }

  #prepare(sequence: Sequence, start: number): void {
    if (start === 0) this.#clearWindows(sequence);
    else if (start === sequence.assumed) this.#assume(sequence);
    const { numFull } = sequence.hybrid;
    const numBlocks = numFull === 0 ? 0 : sequence.pages.length / numFull;
    const first = sequence.tableBlocks;
    if (first === numBlocks) return;
    for (let f = 0; f < numFull; f++) {
      const row = this.tableRow(sequence, f);
      for (let j = first; j < numBlocks; j++) this.#pageTable.set(row, j, sequence.pages[j * numFull + f]!);
    }
    sequence.tableBlocks = numBlocks;
  }

  close(): void {
    this.#ops.free(this.#kCache);
    this.#ops.free(this.#vCache);
    this.#ops.free(this.#states);
    this.#pageTable.close();
  }

  /** What its slots hold becomes the state at the assumed position: their first words say where they stand (graft.h). */
  #assume(sequence: Sequence): void {
    sequence.hybrid.slots.forEach(({ floats }, i) => {
      const word = { ptr: this.#states.ptr + 4 * sequence.stateSlots[i]! * floats, shape: [1], dtype: "i32" } as const;
      this.#ops.upload(word, Int32Array.of(sequence.assumed));
    });
  }

  /** Convolution windows must be zero at position 0; a recurrent state is read as zero there whatever it holds. */
  #clearWindows(sequence: Sequence): void {
    sequence.hybrid.slots.forEach(({ floats, convOffset, convFloats }, i) => {
      if (convFloats === 0) return;
      this.#ops.zero(view(this.#states, sequence.stateSlots[i]! * floats + convOffset, [convFloats]));
    });
  }
}
