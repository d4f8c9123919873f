// Memory of a measured step of a layer: everything it allocates is freed together, and weights come in as many copies as no
// cache holds. Knows no step.
import type { Ops, PackedLinear } from "../ops/ops.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Copies beyond these bring nothing: a cache that holds so few bytes of each has lost the first by the last. */
const MOST_COPIES = 512;

/** What is freed when a case has been measured. */
export class LayerOperands {
  readonly ops: Ops;
  readonly #uncachedBytes: number;
  readonly #frees: (() => void)[] = [];
  #seed = 1;

  /** @param uncachedBytes more than any cache holds */
  constructor(ops: Ops, uncachedBytes: number) {
    this.ops = ops;
    this.#uncachedBytes = uncachedBytes;
  }

  /** How many copies of `bytes` are to take turns. */
  copies(bytes: number): number {
    return Math.max(1, Math.min(MOST_COPIES, Math.ceil(this.#uncachedBytes / bytes)));
  }

  random(shape: readonly number[], scale = 1, dtype: DType = "f32"): Tensor {
    const t = this.zeros(shape, dtype);
    this.ops.fillRandom(t, this.#seed++, scale);
    return t;
  }

  ones(count: number): Tensor {
    return this.floats(new Float32Array(count).fill(1));
  }

  floats(values: Float32Array): Tensor {
    return this.#keep(this.ops.fromArray([values.length], values));
  }

  ints(values: ArrayLike<number>): Tensor {
    return this.#keep(this.ops.fromArray([values.length], Int32Array.from(values)));
  }

  zeros(shape: readonly number[], dtype: DType = "f32"): Tensor {
    return this.#keep(this.ops.empty(shape, dtype));
  }

  /** A bfloat16 weight [out, in], packed. */
  weight(out: number, inputs: number): PackedLinear {
    const raw = this.ops.empty([out, inputs], "bf16");
    this.ops.fillRandom(raw, this.#seed++, 0.03);
    const packed = this.ops.linearPack(raw);
    this.ops.free(raw);
    this.#frees.push(() => this.ops.freePacked(packed));
    return packed;
  }

  /** Something else to free. */
  own<T extends { free(): void }>(owned: T): T {
    this.#frees.push(() => owned.free());
    return owned;
  }

  free(): void {
    for (const free of this.#frees.reverse()) free();
    this.#frees.length = 0;
  }

  #keep(t: Tensor): Tensor {
    this.#frees.push(() => this.ops.free(t));
    return t;
  }
}
