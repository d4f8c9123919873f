// What kernel tests share: one test per golden file and library, comparisons of bits, and buffers of random numbers.
import { expect, test } from "bun:test";
import type { Ops } from "../../src/ops/ops.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { type Golden, goldenDir, goldenFiles, relativeError } from "./golden.ts";
import { guarded, isas, opsOf, randomFloats } from "./kernels.ts";

/** Libraries other than the reference. */
export const fastIsas = isas.filter((isa) => isa !== "reference");

/** One test per golden file of the kinds and per library; prints why when there is none. */
export function eachGolden(kinds: string[], body: (ops: Ops, golden: Golden) => void | Promise<void>): void {
  const files = goldenFiles(...kinds);
  if (files.length === 0) test.skip(`no golden file of kind ${kinds.join(", ")} in ${goldenDir}`, () => {});
  for (const golden of files) {
    for (const isa of isas) test(`${golden.name} on ${isa}`, async () => await body(await opsOf(isa), golden));
  }
}

/** Fails unless the tensor is within `limit` of the golden array, and nothing was written behind it. */
export function expectGolden(ops: Ops, actual: Guarded, golden: Golden, name: string, limit: number): void {
  actual.check();
  const error = relativeError(ops.toFloat32(actual), golden.f32(name));
  if (!(error <= limit)) throw new Error(`${golden.name} ${name}: relative error ${error}, limit ${limit}`);
  expect(error).toBeLessThanOrEqual(limit);
}

/** Fails unless two arrays are the same to within `limit` of the larger one's largest element. */
export function expectClose(actual: Float32Array, expected: Float32Array, limit: number, what: string): void {
  const error = relativeError(actual, expected);
  if (!(error <= limit)) throw new Error(`${what}: relative error ${error}, limit ${limit}`);
  expect(error).toBeLessThanOrEqual(limit);
}

/** Fails at the first element whose bits differ. */
export function expectSameBits(actual: Float32Array, expected: Float32Array, what: string): void {
  expect(actual.length).toBe(expected.length);
  const [a, b] = [new Uint32Array(actual.buffer), new Uint32Array(expected.buffer)];
  for (let i = 0; i < a.length; i++) {
    if (a[i] !== b[i]) throw new Error(`${what}: element ${i} is ${actual[i]}, expected the bits of ${expected[i]}`);
  }
}

export type Guarded = Tensor & { check(): void };

/** NaN-filled outputs of the given shapes; `read()` checks their guard words and returns their values in order. */
export function outputs<Name extends string>(ops: Ops, shapes: Readonly<Record<Name, readonly number[]>>) {
  const tensors = {} as Record<Name, Guarded>;
  for (const name in shapes) tensors[name] = guarded(ops, shapes[name]);
  return {
    ...tensors,
    read(): Record<Name, Float32Array> {
      const values = {} as Record<Name, Float32Array>;
      for (const name in shapes) {
        tensors[name].check();
        values[name] = ops.toFloat32(tensors[name]);
      }
      return values;
    },
  };
}

/** A tensor of reproducible numbers in [-scale, scale). */
export function random(ops: Ops, shape: readonly number[], seed: number, scale = 1): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return ops.fromArray(
    shape,
    randomFloats(count, seed).map((x) => x * scale),
  );
}

/** A guarded tensor that starts from zeros, for gradients that kernels add to. */
export function zeros(ops: Ops, shape: readonly number[]): Guarded {
  const t = guarded(ops, shape);
  ops.zero(t);
  return t;
}
