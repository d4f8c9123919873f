// Rotary frequencies and the table of cosines and sines that all layers of a model share (layers.md section 1).
import type { Ops } from "../src/ops/ops.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import type { RopeConfig, RopeScaling } from "./config.ts";

/** Llama 3: low frequencies are divided by the factor, high ones kept, those between blended. */
function stretched(f: number, { factor, lowFreqFactor, highFreqFactor, originalMaxPositions }: RopeScaling): number {
  const turns = (originalMaxPositions * f) / (2 * Math.PI);
  if (turns < lowFreqFactor) return f / factor;
  if (turns > highFreqFactor) return f;
  const blend = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - blend) * f) / factor + blend * f;
}

/** Angle per position of each of the headDim / 2 pairs: theta^(-2i / headDim), stretched where the model says so. */
export function inverseFrequencies({ theta, scaling }: RopeConfig, headDim: number): Float32Array {
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const f = theta ** ((-2 * i) / headDim);
    return scaling ? stretched(f, scaling) : f;
  });
}

/** A new table [positions, headDim]: cosines, then sines. */
export function createRopeTable(ops: Ops, rope: RopeConfig, headDim: number, positions: number): Tensor {
  const table = ops.empty([positions, headDim]);
  const frequencies = ops.fromArray([headDim / 2], inverseFrequencies(rope, headDim));
  ops.ropeTable(table, frequencies);
  ops.free(frequencies);
  return table;
}
