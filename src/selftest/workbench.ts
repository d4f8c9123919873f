// Operands of one self-test case on one kernel library: reproducible inputs, outputs that start as NaN with guard words
// behind them, and everything freed at the end. Knows no op.
import type { HostArray } from "../ops/device.ts";
import type { Ops, PackedLinear } from "../ops/ops.ts";
import { CounterRandom, streamOf } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";

type OutputType = "f32" | "i32" | "f64";

const GUARD_WORDS = 16;
const GUARD = 0x7fc0dead;
const NOT_A_NUMBER = 0x7fc00000;

const wordsOf = { f32: 1, i32: 1, f64: 2 } as const;
const countOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

interface Output {
  readonly name: string;
  readonly dtype: OutputType;
  readonly words: number;
  readonly whole: Tensor;
}

/** Inputs and outputs of the cases on one library. */
export class Workbench {
  readonly ops: Ops;
  readonly #tensors: Tensor[] = [];
  readonly #packed: PackedLinear[] = [];
  readonly #outputs: Output[] = [];
  readonly #owned: { free(): void }[] = [];

  constructor(ops: Ops) {
    this.ops = ops;
  }

  /** Numbers in (shift - scale, shift + scale) that depend on the name alone. */
  random(name: string, shape: readonly number[], scale = 1, shift = 0): Tensor {
    return this.#keep(this.ops.fromArray(shape, uniform(name, countOf(shape), scale, shift)));
  }

  /** The same numbers rounded to bfloat16. */
  narrow(name: string, shape: readonly number[]): Tensor {
    const t = this.#keep(this.ops.empty(shape, "bf16"));
    this.ops.convert(t, this.random(name, shape));
    return t;
  }

  ints(values: readonly number[]): Tensor {
    return this.#keep(this.ops.fromArray([values.length], Int32Array.from(values)));
  }

  /** Words as they are, for packed records. */
  words(shape: readonly number[], words: HostArray): Tensor {
    return this.#keep(this.ops.fromArray(shape, words));
  }

  zeros(shape: readonly number[], dtype: "f32" | "bf16" = "f32"): Tensor {
    return this.#keep(this.ops.empty(shape, dtype));
  }

  pack(weight: Tensor): PackedLinear {
    const packed = this.ops.linearPack(weight);
    this.#packed.push(packed);
    return packed;
  }

  /** Numbers made where they lie, for sizes that would take long to send: in [-scale, scale], by the seed alone. */
  filled(seed: number, shape: readonly number[], scale = 1, dtype: "f32" | "bf16" = "f32"): Tensor {
    const t = this.zeros(shape, dtype);
    this.ops.fillRandom(t, seed, scale);
    return t;
  }

  /** Frees it with the case. */
  own<T extends { free(): void }>(thing: T): T {
    this.#owned.push(thing);
    return thing;
  }

  /** A result of the case, NaN until a kernel writes it. */
  output(name: string, shape: readonly number[], dtype: OutputType = "f32"): Tensor {
    const words = countOf(shape) * wordsOf[dtype];
    const bits = new Int32Array(words + GUARD_WORDS).fill(dtype === "i32" ? -1 : NOT_A_NUMBER);
    bits.fill(GUARD, words);
    const whole = this.#keep(this.ops.fromArray([bits.length], bits));
    this.#outputs.push({ name, dtype, words, whole });
    return { ptr: whole.ptr, shape, dtype };
  }

  /** A result that kernels add to: it starts from reproducible numbers. */
  sum(name: string, shape: readonly number[]): Tensor {
    const t = this.output(name, shape);
    this.ops.upload(t, uniform(name, countOf(shape), 1, 0));
    return t;
  }

  /** The values of every output by name. @throws Error if a kernel wrote behind one */
  results(): Map<string, Float32Array> {
    const values = new Map<string, Float32Array>();
    for (const { name, dtype, words, whole } of this.#outputs) {
      const bits = this.ops.toInt32(whole);
      if (bits.subarray(words).some((word) => word !== GUARD)) throw new Error(`A kernel wrote behind "${name}"`);
      const own = bits.buffer.slice(0, words * 4);
      if (dtype === "f32") values.set(name, new Float32Array(own));
      else values.set(name, Float32Array.from(dtype === "i32" ? new Int32Array(own) : new Float64Array(own)));
    }
    return values;
  }

  /** Frees everything the case allocated. */
  close(): void {
    for (const thing of this.#owned) thing.free();
    for (const t of this.#tensors) this.ops.free(t);
    for (const w of this.#packed) this.ops.freePacked(w);
  }

  #keep(t: Tensor): Tensor {
    this.#tensors.push(t);
    return t;
  }
}

function uniform(name: string, count: number, scale: number, shift: number): Float32Array {
  const random = new CounterRandom(1, streamOf(name));
  return Float32Array.from({ length: count }, (_, i) => shift + scale * (2 * random.uniform(i) - 1));
}
