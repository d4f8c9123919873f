// A set of named float32 parameters in one block of memory, with their gradients in a second block of the same layout.
// Knows names, shapes and which tensors decay; not what they mean.
import type { Ops } from "../src/ops/ops.ts";
import { type Tensor, view } from "../src/tensor/tensor.ts";

/** Name and shape of one parameter, as a checkpoint spells them. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** GPT-2's Conv1D: the checkpoint holds [in, out], memory holds [out, in]. */
  readonly conv1d?: boolean;
}

/** A parameter and its gradient, [out, in] where it is a matrix. */
export interface Parameter {
  readonly value: Tensor;
  readonly grad: Tensor;
}

/** Named parameters with gradients; `values` and `grads` are the flat float32 blocks an optimiser steps over. */
export interface ParameterSet {
  names(): readonly string[];
  has(name: string): boolean;
  spec(name: string): ParameterSpec;
  /** In memory's orientation. @throws RangeError if there is no parameter of that name. */
  value(name: string): Tensor;
  grad(name: string): Tensor;
  /** Whether weight decay applies: matrices only (no norms, biases, A_log, dt_bias). */
  decays(name: string): boolean;
  /** A copy in the checkpoint's orientation. */
  read(name: string): Float32Array;
  readGrad(name: string): Float32Array;
  /** @param values in the checkpoint's orientation. */
  write(name: string, values: Float32Array): void;
  /** The parameters whose names begin with `prefix`, under the rest of their names. They lie in one piece. */
  scope(prefix: string): ParameterSet;
  readonly values: Tensor;
  readonly grads: Tensor;
  zeroGrads(): void;
  free(): void;
}

/** Floats that a parameter starts at a multiple of, so that every one is aligned to 64 bytes. */
const ALIGN = 16;

interface Slot {
  readonly spec: ParameterSpec;
  readonly offset: number;
  readonly count: number;
}

/** Rows of [rows, columns] turned into columns. */
export function transpose<T extends Float32Array | Uint16Array>(values: T, rows: number, columns: number): T {
  const out = values.slice() as T;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c]!;
  }
  return out;
}

/** Memory's shape of a parameter. */
function storedShape(spec: ParameterSpec): readonly number[] {
  return spec.conv1d ? [spec.shape[1]!, spec.shape[0]!] : spec.shape;
}

class ParameterView implements ParameterSet {
  readonly values: Tensor;
  readonly grads: Tensor;
  protected readonly ops: Ops;
  readonly #slots: ReadonlyMap<string, Slot>;

  constructor(ops: Ops, slots: ReadonlyMap<string, Slot>, values: Tensor, grads: Tensor) {
    this.ops = ops;
    this.#slots = slots;
    this.values = values;
    this.grads = grads;
  }

  names(): readonly string[] {
    return [...this.#slots.keys()];
  }

  has(name: string): boolean {
    return this.#slots.has(name);
  }

  spec(name: string): ParameterSpec {
    return this.#slot(name).spec;
  }

  value(name: string): Tensor {
    return this.#part(this.values, name);
  }

  grad(name: string): Tensor {
    return this.#part(this.grads, name);
  }

  decays(name: string): boolean {
    return this.#slot(name).spec.shape.length >= 2;
  }

  read(name: string): Float32Array {
    return this.#fetch(this.values, name);
  }

  readGrad(name: string): Float32Array {
    return this.#fetch(this.grads, name);
  }

  write(name: string, values: Float32Array): void {
    const { spec } = this.#slot(name);
    const stored = spec.conv1d ? transpose(values, spec.shape[0]!, spec.shape[1]!) : values;
    this.ops.upload(this.value(name), stored);
  }

  scope(prefix: string): ParameterSet {
    const inside = [...this.#slots].filter(([name]) => name.startsWith(prefix));
    const first = inside[0]?.[1];
    const last = inside.at(-1)?.[1];
    if (!first || !last) throw new RangeError(`Cannot find parameters: no name begins with "${prefix}"`);
    const slots = new Map(
      inside.map(([name, slot]) => [name.slice(prefix.length), { ...slot, offset: slot.offset - first.offset }]),
    );
    const shape = [last.offset + padded(last.count) - first.offset];
    const [values, grads] = [view(this.values, first.offset, shape), view(this.grads, first.offset, shape)];
    return new ParameterView(this.ops, slots, values, grads);
  }

  zeroGrads(): void {
    this.ops.zero(this.grads);
  }

  /** Views own nothing. */
  free(): void {}

  #slot(name: string): Slot {
    const slot = this.#slots.get(name);
    if (!slot) throw new RangeError(`Cannot find parameter "${name}"`);
    return slot;
  }

  #part(block: Tensor, name: string): Tensor {
    const { offset, spec } = this.#slot(name);
    return view(block, offset, storedShape(spec));
  }

  #fetch(block: Tensor, name: string): Float32Array {
    const { spec } = this.#slot(name);
    const stored = this.ops.toFloat32(this.#part(block, name));
    return spec.conv1d ? transpose(stored, spec.shape[1]!, spec.shape[0]!) : stored;
  }
}

function padded(count: number): number {
  return Math.ceil(count / ALIGN) * ALIGN;
}

/** Parameters that own their memory; all values and gradients begin as zero. */
export class ParameterBlock extends ParameterView {
  constructor(ops: Ops, specs: readonly ParameterSpec[]) {
    const slots = new Map<string, Slot>();
    let total = 0;
    for (const spec of specs) {
      const count = spec.shape.reduce((a, b) => a * b, 1);
      slots.set(spec.name, { spec, offset: total, count });
      total += padded(count);
    }
    super(ops, slots, ops.empty([total]), ops.empty([total]));
  }

  override free(): void {
    this.ops.free(this.values);
    this.ops.free(this.grads);
  }
}

/** Value and gradient of a parameter. @throws RangeError if there is no parameter of that name. */
export function parameter(set: ParameterSet, name: string): Parameter {
  return { value: set.value(name), grad: set.grad(name) };
}

/** Value and gradient of a parameter, or null where the set has none of that name. */
export function optionalParameter(set: ParameterSet, name: string): Parameter | null {
  return set.has(name) ? parameter(set, name) : null;
}

/** Elements start..start+count-1 along the first dimension of a parameter, with their gradient. */
export function parameterRows(p: Parameter, start: number, count: number): Parameter {
  const inner = p.value.shape.slice(1);
  const stride = inner.reduce((a, b) => a * b, 1);
  const shape = [count, ...inner];
  return { value: view(p.value, start * stride, shape), grad: view(p.grad, start * stride, shape) };
}
