// A set of named float32 parameters in one block of memory, with their gradients in a second block of the same layout.
// Knows names, shapes and which tensors decay; not what they mean.
import type { Ops } from "../src/ops/ops.ts";
import { numel, type Tensor, view } from "../src/tensor/tensor.ts";

/** Name and shape of one parameter, in checkpoint spelling and orientation. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Named parameters with gradients; `values` and `grads` are the flat float32 blocks an optimiser steps over. */
export interface ParameterSet {
  names(): readonly string[];
  /** @throws RangeError if there is no parameter of that name. */
  value(name: string): Tensor;
  /** @throws RangeError if there is no parameter of that name. */
  grad(name: string): Tensor;
  has(name: string): boolean;
  /** Whether weight decay applies: matrices only (no norms, biases, A_log, dt_bias). */
  decays(name: string): boolean;
  readonly values: Tensor;
  readonly grads: Tensor;
  zeroGrads(): void;
  free(): void;
}
