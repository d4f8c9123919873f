// What a self-test case is. A case does the same calls on any library; its named outputs are compared.
import type { Workbench } from "./workbench.ts";

/** One op on fixed input. */
export interface SelftestCase {
  /** Op and what is special, e.g. "linear bf16". */
  readonly name: string;
  /** Largest allowed max|difference| / max|reference| of any output; 0 = every value equal. */
  readonly limit: number;
  /** Calls ops of training, which the processor's libraries alone have. */
  readonly training?: true;
  /** Sizes of real models: for a device, too slow for its emulator. */
  readonly large?: true;
  run(bench: Workbench): void;
}

/**
 * Limits of float32 kernels against double sums. A sum near the middle of two bfloat16 numbers may be rounded to either, so
 * a bf16 state may differ by a unit in its last place, and so may the input of a linear layer that its norm has computed.
 * Tensor cores take the weights of attention as bfloat16, which the reference does not.
 */
export const LIMITS = {
  exact: 0,
  forward: 1e-5,
  recurrent: 5e-5,
  gradient: 1e-4,
  bf16State: 2 ** -7,
  bf16Input: 3e-3,
  bf16Weights: 1e-2,
} as const;

/** seq_start of sequences of the given lengths. */
export function startsOf(lengths: readonly number[]): number[] {
  const starts = [0];
  for (const length of lengths) starts.push(starts.at(-1)! + length);
  return starts;
}

/** 0, 1, ... n-1 */
export function range(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}
