// From stored tensors to device memory, one tensor at a time: packed linear weights in the wanted dtype, everything else in
// float32. Assumes that verify.ts has passed the tensors. Knows no architecture.
import { firstNonFinite } from "../src/checkpoint/finite.ts";
import { printable } from "../src/checkpoint/hf_config.ts";
import type { StoredTensor, TensorReader } from "../src/checkpoint/tensors.ts";
import { CheckpointError } from "../src/errors.ts";
import type { Ops, PackedLinear } from "../src/ops/ops.ts";
import { type DType, dtypeBytes } from "../src/tensor/dtype.ts";
import { numel, rows, type Tensor } from "../src/tensor/tensor.ts";
import { Linear } from "./linear.ts";
import { type ParameterSpec, transpose } from "./parameters.ts";

/** How linear weights and embeddings are held: as stored (F16 as f32), or in one of the two dtypes. */
export type WeightDType = "auto" | "f32" | "bf16";

/** Bytes read from a file at a time. */
const CHUNK_BYTES = 4 << 20;
/** The same where other work waits for its turn after each. */
const SLICE_BYTES = 256 << 10;

/** How weights are read while other work goes on. */
export interface Pace {
  /** Fills `out` with a tensor's bytes from byte `offset` on, in another thread. */
  readonly read: (name: string, offset: number, out: Uint8Array) => Promise<void>;
  /** Awaited before each piece of work that holds up this thread. */
  readonly turn: () => Promise<void>;
  /** Sees all bytes of every tensor, in order. */
  readonly see: (bytes: Uint8Array) => void;
}

const dtypes: Partial<Record<StoredTensor["dtype"], DType>> = { F32: "f32", BF16: "bf16", F16: "f16" };

/** @throws CheckpointError naming a weight that is no number; `first` is the place of bytes[0] in the tensor */
function requireNumbers(name: string, bytes: Uint8Array, dtype: DType, first = 0): void {
  const found = firstNonFinite(bytes, dtype);
  if (found < 0) return;
  throw new CheckpointError(
    `Cannot load tensor "${printable(name)}": value ${first + found} is NaN or infinite, expected numbers`,
  );
}

/** Whether a layer's tensor is the weight of a linear layer, which is packed. */
function isMatrix({ name, shape }: ParameterSpec): boolean {
  return shape.length === 2 && name.endsWith(".weight");
}

/** Loads tensors whose names begin with a prefix. */
export class WeightLoader {
  readonly ops: Ops;
  readonly #reader: TensorReader;
  readonly #dtype: WeightDType;
  readonly #prefix: string;
  /** Matrices that prepare() has packed and nobody has taken yet. */
  readonly #prepared = new Map<string, PackedLinear>();

  constructor(ops: Ops, reader: TensorReader, dtype: WeightDType = "auto", prefix = "") {
    this.ops = ops;
    this.#reader = reader;
    this.#dtype = dtype;
    this.#prefix = prefix;
  }

  /** The same tensors under the rest of their names. */
  scope(prefix: string): WeightLoader {
    return new WeightLoader(this.ops, this.#reader, this.#dtype, this.#prefix + prefix);
  }

  has(name: string): boolean {
    return this.#reader.find(this.#prefix + name) !== undefined;
  }

  /** name.weight [out, in] packed, with name.bias where there is one. */
  linear(name: string): Linear {
    return new Linear(this.packed(`${name}.weight`), this.#optionalVector(`${name}.bias`));
  }

  /** Bytes that a tensor takes once it is loaded. */
  bytesInMemory({ name, shape }: ParameterSpec): number {
    if (!isMatrix({ name, shape })) return shape.reduce((a, b) => a * b, 4);
    return this.ops.packedBytes(shape[0]!, shape[1]!, this.#target(this.#stored(name).device));
  }

  /**
   * Reads a layer's tensors in short turns and packs its matrices, so that linear() and packed() find them done. Free what
   * nobody takes with discard(). @throws CheckpointError; then nothing is kept
   */
  async prepare(tensors: readonly ParameterSpec[], pace: Pace): Promise<void> {
    try {
      for (const spec of tensors) {
        if (isMatrix(spec)) await this.#prepareMatrix(spec.name, pace);
        else await this.#streamInTurns(spec.name, null, pace);
      }
    } catch (error) {
      this.discard();
      throw error;
    }
  }

  /** Frees what prepare() made and nobody took. */
  discard(): void {
    for (const packed of this.#prepared.values()) this.ops.freePacked(packed);
    this.#prepared.clear();
  }

  /** A matrix [out, in] packed. */
  packed(name: string): PackedLinear {
    const prepared = this.#prepared.get(name);
    if (prepared !== undefined) {
      this.#prepared.delete(name);
      return prepared;
    }
    return this.#pack(this.#matrix(name));
  }

  /** GPT-2's Conv1D, stored [in, out], as `parts` layers that share its input: equal parts of its columns. */
  conv1d(name: string, parts = 1): Linear[] {
    const stored = this.#stored(`${name}.weight`).shape;
    const [inputs, outputs] = [stored[0]!, stored[1]! / parts];
    const bias = this.#floats(`${name}.bias`);
    const weight = this.#transposed(`${name}.weight`);
    try {
      return Array.from({ length: parts }, (_, i) => {
        const packed = this.ops.linearPack(rows(weight, i * outputs, outputs));
        if (packed.in !== inputs) throw new CheckpointError(`Cannot split tensor "${this.#prefix}${name}.weight"`);
        return new Linear(packed, this.ops.fromArray([outputs], bias.slice(i * outputs, (i + 1) * outputs)));
      });
    } finally {
      this.ops.free(weight);
    }
  }

  /** A table [rows, columns], not packed, in the wanted dtype. */
  table(name: string): Tensor {
    return this.#matrix(name);
  }

  /** Any tensor in float32: norms, biases, convolutions. */
  vector(name: string): Tensor {
    const { shape } = this.#stored(name);
    return this.ops.fromArray(shape, this.#floats(name));
  }

  #floats(name: string): Float32Array {
    const values = this.#reader.float32(this.#prefix + name);
    requireNumbers(this.#prefix + name, new Uint8Array(values.buffer, values.byteOffset, values.byteLength), "f32");
    return values;
  }

  #optionalVector(name: string): Tensor | null {
    return this.has(name) ? this.vector(name) : null;
  }

  #stored(name: string): StoredTensor & { device: DType } {
    const full = this.#prefix + name;
    const stored = this.#reader.find(full);
    const device = stored && dtypes[stored.dtype];
    if (!stored || !device) throw new CheckpointError(`Cannot load tensor "${full}": it is absent or not of floats`);
    return { ...stored, device };
  }

  /** Dtype in which a stored matrix is held. */
  #target(stored: DType): "f32" | "bf16" {
    if (this.#dtype !== "auto") return this.#dtype;
    return stored === "bf16" ? "bf16" : "f32";
  }

  /** A stored matrix on the device in its target dtype. */
  #matrix(name: string): Tensor {
    const stored = this.#stored(name);
    const raw = this.ops.empty(stored.shape, stored.device);
    try {
      this.#fill(this.#prefix + name, raw);
      return this.#converted(raw);
    } catch (error) {
      this.ops.free(raw);
      throw error;
    }
  }

  /** `raw` itself if it has the target dtype, else a converted copy in its place. */
  #converted(raw: Tensor): Tensor {
    const target = this.#target(raw.dtype);
    if (target === raw.dtype) return raw;
    const tensor = this.ops.empty(raw.shape, target);
    this.ops.convert(tensor, raw);
    this.ops.free(raw);
    return tensor;
  }

  #pack(matrix: Tensor): PackedLinear {
    try {
      return this.ops.linearPack(matrix);
    } finally {
      this.ops.free(matrix);
    }
  }

  async #prepareMatrix(name: string, pace: Pace): Promise<void> {
    const stored = this.#stored(name);
    const raw = this.ops.empty(stored.shape, stored.device);
    let matrix: Tensor;
    try {
      await this.#streamInTurns(name, raw, pace);
      await pace.turn();
      matrix = this.#converted(raw);
    } catch (error) {
      this.ops.free(raw);
      throw error;
    }
    this.#prepared.set(name, this.#pack(matrix));
  }

  /** File to device, or where `dst` is null only past the eyes of whoever checks the bytes. */
  async #streamInTurns(name: string, dst: Tensor | null, pace: Pace): Promise<void> {
    const { shape, device } = this.#stored(name);
    const total = shape.reduce((a, b) => a * b, dtypeBytes[device]);
    const buffer = new Uint8Array(Math.min(total, SLICE_BYTES));
    for (let done = 0; done < total; done += SLICE_BYTES) {
      const chunk = buffer.subarray(0, Math.min(SLICE_BYTES, total - done));
      await pace.read(this.#prefix + name, done, chunk);
      await pace.turn();
      pace.see(chunk);
      if (dst === null) continue;
      requireNumbers(name, chunk, device, done / dtypeBytes[device]);
      const count = chunk.length / dtypeBytes[device];
      this.ops.upload({ ptr: dst.ptr + done, shape: [count], dtype: device }, chunk);
    }
  }

  /** Numbers that are no more than random are made where they lie; a large model's would take minutes on their way. */
  #fill(name: string, dst: Tensor): void {
    const draw = this.#reader.draw?.(name) ?? null;
    if (draw === null) this.#stream(name, dst);
    else this.ops.fillRandom(dst, draw.seed, draw.scale);
  }

  /** File to device in chunks, so that no second copy of a large tensor exists. */
  #stream(name: string, dst: Tensor): void {
    const width = dtypeBytes[dst.dtype];
    const total = numel(dst);
    const step = CHUNK_BYTES / width;
    const buffer = new Uint8Array(Math.min(total, step) * width);
    for (let done = 0; done < total; done += step) {
      const count = Math.min(step, total - done);
      const chunk = buffer.subarray(0, count * width);
      this.#reader.readInto(name, done * width, chunk);
      requireNumbers(name, chunk, dst.dtype, done);
      this.ops.upload({ ptr: dst.ptr + done * width, shape: [count], dtype: dst.dtype }, chunk);
    }
  }

  /** A stored [a, b] matrix as [b, a] in its target dtype. */
  #transposed(name: string): Tensor {
    const { shape, device } = this.#stored(name);
    const [a, b] = [shape[0]!, shape[1]!];
    const bytes = new Uint8Array(a * b * dtypeBytes[device]);
    this.#reader.readInto(this.#prefix + name, 0, bytes);
    requireNumbers(this.#prefix + name, bytes, device);
    const values = device === "f32" ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
    return this.#converted(this.ops.fromArray([b, a], transpose(values, a, b), device));
  }
}
