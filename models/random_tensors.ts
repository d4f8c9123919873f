// Tensors with random values under a model's names: uniform bfloat16 matrices of deviation 0.02, the rest as a fresh model
// has them. The same seed gives the same values, in whatever order and pieces they are read, and wherever they are drawn.
import type { Draw, StoredTensor, TensorReader } from "../src/checkpoint/tensors.ts";
import { CheckpointError } from "../src/errors.ts";
import { CounterRandom, streamOf } from "../src/tensor/random.ts";
import { createTensor } from "./attention/init_draw.ts";
import type { LinearShape } from "./attention/mixer.ts";
import type { ModelConfig } from "./config.ts";
import { modelTensors } from "./load.ts";
import type { ParameterSpec } from "./parameters.ts";
import { poolTensors } from "./pool.ts";
import { fillRandomBf16 } from "./random_numbers.ts";

const DEVIATION = 0.02;
/** Uniform numbers in [-scale, scale) have this deviation. */
const SCALE = DEVIATION * Math.sqrt(3);

/** Draws every tensor of a list; what is no matrix by `vector`. */
class RandomTensors implements TensorReader {
  readonly #specs: ReadonlyMap<string, ParameterSpec>;
  readonly #seed: number;
  readonly #vector: (spec: ParameterSpec, random: CounterRandom) => Float32Array;

  constructor(
    specs: readonly ParameterSpec[],
    seed: number,
    vector: (spec: ParameterSpec, random: CounterRandom) => Float32Array,
  ) {
    this.#specs = new Map(specs.map((spec) => [spec.name, spec]));
    this.#seed = seed;
    this.#vector = vector;
  }

  names(): Iterable<string> {
    return this.#specs.keys();
  }

  find(name: string): StoredTensor | undefined {
    const spec = this.#specs.get(name);
    return spec && { dtype: spec.shape.length === 2 ? "BF16" : "F32", shape: spec.shape };
  }

  draw(name: string): Draw | null {
    return this.find(name)?.dtype === "BF16" ? { seed: streamOf(`${this.#seed}.${name}`), scale: SCALE } : null;
  }

  readInto(name: string, offset: number, out: Uint8Array): void {
    const draw = this.draw(name);
    if (draw === null) throw new CheckpointError(`Cannot draw tensor "${name}": it is no matrix`);
    const values = new Uint16Array(out.buffer, out.byteOffset, out.length / 2);
    fillRandomBf16(values, offset / 2, draw.seed, draw.scale);
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
