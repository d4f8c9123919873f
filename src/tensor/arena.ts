// Scratch memory for one forward or backward pass: bump allocation, released by mark. Grows in chunks and then keeps
// them, so that a steady workload stops allocating after its first pass.
import { type DType, dtypeBytes } from "./dtype.ts";
import type { Tensor } from "./tensor.ts";

const ALIGN = 64;
const FIRST_CHUNK = 1 << 20;

/** What an arena needs of the memory of a backend. */
export interface DeviceMemory {
  /** Zeroed, 64-byte aligned. @throws KernelError when there is none. */
  allocBytes(bytes: number): number;
  freeBytes(ptr: number): void;
}

interface Chunk {
  readonly ptr: number;
  readonly bytes: number;
}

/** A place in an arena to go back to. */
export interface Mark {
  readonly chunk: number;
  readonly used: number;
}

/** A stack of device memory. */
export class Arena {
  readonly #memory: DeviceMemory;
  readonly #chunks: Chunk[] = [];
  #chunk = 0;
  #used = 0;
  #peak = 0;

  constructor(memory: DeviceMemory) {
    this.#memory = memory;
  }

  /** An uninitialised tensor, valid until the mark before it is released. */
  alloc(shape: readonly number[], dtype: DType = "f32"): Tensor {
    let bytes = dtypeBytes[dtype];
    for (const d of shape) {
      if (!Number.isInteger(d) || d < 0) throw new RangeError(`Cannot allocate a tensor: shape is [${shape}]`);
      bytes *= d;
    }
    return { ptr: this.#bump(Math.max(bytes, 1)), shape, dtype };
  }

  mark(): Mark {
    return { chunk: this.#chunk, used: this.#used };
  }

  /** Everything allocated since the mark becomes invalid. */
  release(mark: Mark): void {
    this.#chunk = mark.chunk;
    this.#used = mark.used;
  }

  /** Runs `body` and releases what it allocated, also when it throws. */
  scope<T>(body: () => T): T {
    const mark = this.mark();
    try {
      return body();
    } finally {
      this.release(mark);
    }
  }

  reset(): void {
    this.#chunk = 0;
    this.#used = 0;
  }

  /** Bytes held from the backend. */
  get bytes(): number {
    return this.#chunks.reduce((sum, c) => sum + c.bytes, 0);
  }

  /** Most bytes in use at once so far. */
  get peakBytes(): number {
    return this.#peak;
  }

  close(): void {
    for (const chunk of this.#chunks) this.#memory.freeBytes(chunk.ptr);
    this.#chunks.length = 0;
    this.reset();
  }

  #bump(bytes: number): number {
    const size = Math.ceil(bytes / ALIGN) * ALIGN;
    for (;;) {
      const chunk = this.#chunks[this.#chunk];
      if (chunk === undefined) break;
      if (this.#used + size <= chunk.bytes) {
        const ptr = chunk.ptr + this.#used;
        this.#used += size;
        this.#peak = Math.max(this.#peak, this.#before() + this.#used);
        return ptr;
      }
      this.#chunk++;
      this.#used = 0;
    }
    const bytesOfChunk = Math.max(size, FIRST_CHUNK, this.bytes);
    this.#chunks.push({ ptr: this.#memory.allocBytes(bytesOfChunk), bytes: bytesOfChunk });
    return this.#bump(bytes);
  }

  #before(): number {
    let sum = 0;
    for (let i = 0; i < this.#chunk; i++) sum += this.#chunks[i]!.bytes;
    return sum;
  }
}
