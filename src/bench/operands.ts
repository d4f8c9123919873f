// Operands of measured kernels and what their results are compared by. Knows no op.
import type { Ops } from "../ops/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Reproducible numbers in [low, high), made fast: a linear congruential generator's high bits. */
export function randomTensor(ops: Ops, shape: readonly number[], seed: number, low = -1, high = 1): Tensor {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  let state = seed;
  for (let i = 0; i < values.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    values[i] = low + (state / 4294967296 + 0.5) * (high - low);
  }
  return ops.fromArray(shape, values);
}

/** max|a - b| / max(1e-6, max|b|) */
export function relativeError(actual: Float32Array, expected: Float32Array): number {
  let [difference, scale] = [0, 1e-6];
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
    scale = Math.max(scale, Math.abs(expected[i]!));
  }
  return difference / scale;
}
