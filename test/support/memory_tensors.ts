// Tensors in memory that are read as if they came from a checkpoint.
import type { StoredTensor, TensorReader } from "../../src/checkpoint/tensors.ts";

/** Float32 tensors in memory. */
export class MemoryTensors implements TensorReader {
  readonly #tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly values: Float32Array }>;

  constructor(tensors: ReadonlyMap<string, { readonly shape: readonly number[]; readonly values: Float32Array }>) {
    this.#tensors = tensors;
  }

  names(): Iterable<string> {
    return this.#tensors.keys();
  }

  find(name: string): StoredTensor | undefined {
    const tensor = this.#tensors.get(name);
    return tensor && { dtype: "F32", shape: tensor.shape };
  }

  readInto(name: string, offset: number, out: Uint8Array): void {
    const values = this.float32(name);
    out.set(new Uint8Array(values.buffer, values.byteOffset + offset, out.length));
  }

  float32(name: string): Float32Array {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new Error(`Cannot find tensor "${name}"`);
    return tensor.values;
  }
}
