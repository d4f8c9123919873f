// A C struct in host memory that a kernel reads during a call. Little-endian, as every processor here. Knows no struct.
import { toArrayBuffer } from "bun:ffi";
import type { Tensor } from "../tensor/tensor.ts";
import type { Device } from "./device.ts";

/** Bytes that stay where they are; fields are written by their offset. */
export class HostStruct {
  readonly ptr: number;
  readonly #device: Device;
  readonly #words: Uint32Array;
  readonly #floats: Float32Array;

  /** @param bytes a multiple of 8 */
  constructor(device: Device, bytes: number) {
    this.#device = device;
    this.ptr = device.hostAlloc(bytes);
    const memory = toArrayBuffer(this.ptr as never, 0, bytes);
    this.#words = new Uint32Array(memory);
    this.#floats = new Float32Array(memory);
    this.#words.fill(0);
  }

  /** A tensor's address, 0 for none. */
  pointer(offset: number, to: { readonly ptr: number } | Tensor | null): void {
    const ptr = to?.ptr ?? 0;
    this.#words[offset / 4] = ptr >>> 0;
    this.#words[offset / 4 + 1] = Math.floor(ptr / 2 ** 32);
  }

  /** Consecutive int32 fields. */
  ints(offset: number, values: readonly number[]): void {
    for (let i = 0; i < values.length; i++) this.#words[offset / 4 + i] = values[i]!;
  }

  /** Consecutive float fields. */
  floats(offset: number, values: readonly number[]): void {
    for (let i = 0; i < values.length; i++) this.#floats[offset / 4 + i] = values[i]!;
  }

  free(): void {
    this.#device.hostFree(this.ptr);
  }
}
