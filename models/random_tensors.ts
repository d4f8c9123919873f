// Tensors with random values under a model's names: matrices N(0, 0.02²) in bfloat16, the rest as a fresh model has them.
// The same seed gives the same values, in whatever order and pieces they are read.
import type { StoredTensor, TensorReader } from "../src/checkpoint/tensors.ts";
import { CheckpointError } from "../src/errors.ts";
import { CounterRandom, streamOf } from "../src/tensor/random.ts";
import { createTensor } from "./attention/init_draw.ts";
import type { LinearShape } from "./attention/mixer.ts";
import type { ModelConfig } from "./config.ts";
import { modelTensors } from "./load.ts";
import type { ParameterSpec } from "./parameters.ts";
import { poolTensors } from "./pool.ts";

const DEVIATION = 0.02;
const TABLE_BITS = 12;

/** Draws every tensor of a list; what is no matrix by `vector`. */
class RandomTensors implements TensorReader {
  readonly #specs: ReadonlyMap<string, ParameterSpec>;
  readonly #seed: number;
  readonly #vector: (spec: ParameterSpec, random: CounterRandom) => Float32Array;
  /** Normal values to choose from; drawing each anew would take minutes for a billion. */
  readonly #normals: Uint16Array;

  constructor(
    specs: readonly ParameterSpec[],
    seed: number,
    vector: (spec: ParameterSpec, random: CounterRandom) => Float32Array,
  ) {
    this.#specs = new Map(specs.map((spec) => [spec.name, spec]));
    this.#seed = seed;
    this.#vector = vector;
    const bits = new Uint32Array(new CounterRandom(seed).normals(1 << TABLE_BITS, DEVIATION).buffer);
    this.#normals = Uint16Array.from(bits, (word) => word >>> 16);
  }

  names(): Iterable<string> {
    return this.#specs.keys();
  }

  find(name: string): StoredTensor | undefined {
    const spec = this.#specs.get(name);
    return spec && { dtype: spec.shape.length === 2 ? "BF16" : "F32", shape: spec.shape };
  }

  readInto(name: string, offset: number, out: Uint8Array): void {
    if (this.find(name)?.dtype !== "BF16") throw new CheckpointError(`Cannot draw tensor "${name}": it is no matrix`);
    const values = new Uint16Array(out.buffer, out.byteOffset, out.length / 2);
    const stream = streamOf(`${this.#seed}.${name}`);
    const normals = this.#normals;
    let index = offset / 2;
    for (let i = 0; i < values.length; i++) {
      // The finaliser of MurmurHash3: a value depends on its index alone, so that pieces fit together.
      let h = Math.imul((index++ + stream) | 0, 0x9e3779b1);
      h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
      h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
      values[i] = normals[h >>> (32 - TABLE_BITS)]!;
    }
  }

  float32(name: string): Float32Array {
    const spec = this.#specs.get(name);
    if (spec === undefined) throw new CheckpointError(`Cannot draw tensor "${name}": there is none of that name`);
    return this.#vector(spec, new CounterRandom(this.#seed, streamOf(name)));
  }
}

/** Norms are 1, biases small. */
function backboneVector({ name, shape }: ParameterSpec, random: CounterRandom): Float32Array {
  const count = shape.reduce((a, b) => a * b, 1);
  return name.endsWith("norm.weight") ? new Float32Array(count).fill(1) : random.normals(count, DEVIATION);
}

/** Tensors of a backbone. */
export function randomBackbone(config: ModelConfig, seed: number): TensorReader {
  return new RandomTensors(modelTensors(config), seed, backboneVector);
}

/** Tensors of counterparts of every layer; gates and decays begin as a conversion's do. */
export function randomCounterparts(shape: LinearShape, numLayers: number, seed: number): TensorReader {
  return new RandomTensors(poolTensors({ shape, numLayers }), seed, (spec, random) => {
    return createTensor({ ...spec, name: spec.name.replace(/^linear\.\d+\./, "") }, shape, random);
  });
}
