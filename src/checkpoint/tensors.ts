// Where named tensors come from: the interface that loading reads, and a view of it under translated names. Knows no
// architecture.
import { CheckpointError } from "../errors.ts";
import type { SafetensorsDType } from "./safetensors.ts";

/** Type and shape of one stored tensor. */
export interface StoredTensor {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
}

/** A tensor that is no more than random numbers: what Device.fillRandom() takes to make them where they are needed. */
export interface Draw {
  readonly seed: number;
  readonly scale: number;
}

/** A set of stored tensors. */
export interface TensorReader {
  names(): Iterable<string>;
  /** undefined where there is no tensor of that name. */
  find(name: string): StoredTensor | undefined;
  /** Fills `out` with little-endian bytes from byte `offset` of the tensor on. */
  readInto(name: string, offset: number, out: Uint8Array): void;
  /** All values as float32. @throws CheckpointError if there is no such tensor of floats. */
  float32(name: string): Float32Array;
  /** How to make a tensor's numbers instead of reading them; null, or absent, where they are stored. */
  draw?(name: string): Draw | null;
}

/** A tensor under the name and shape that the model uses. */
export interface Renamed {
  /** Its name in the source. */
  readonly source: string;
  readonly shape: readonly number[];
}

/** Some of another reader's tensors under other names, and under other shapes of as many elements. */
export class RenamedTensors implements TensorReader {
  readonly #source: TensorReader;
  readonly #names: ReadonlyMap<string, Renamed>;

  constructor(source: TensorReader, names: ReadonlyMap<string, Renamed>) {
    this.#source = source;
    this.#names = names;
  }

  names(): Iterable<string> {
    return this.#names.keys();
  }

  find(name: string): StoredTensor | undefined {
    const renamed = this.#names.get(name);
    const stored = renamed && this.#source.find(renamed.source);
    return stored && { dtype: stored.dtype, shape: renamed.shape };
  }

  readInto(name: string, offset: number, out: Uint8Array): void {
    this.#source.readInto(this.#sourceName(name), offset, out);
  }

  float32(name: string): Float32Array {
    return this.#source.float32(this.#sourceName(name));
  }

  #sourceName(name: string): string {
    const renamed = this.#names.get(name);
    if (!renamed) throw new CheckpointError(`Cannot find tensor "${name}"`);
    return renamed.source;
  }
}
