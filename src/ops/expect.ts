// Checks of operands before a kernel sees them: dtype, rows and elements per row, with one wording for all ops.
import { KernelError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import { numel, type Tensor } from "../tensor/tensor.ts";

/** @throws KernelError unless `t` has that dtype and `rows` × `inner` elements, `rows` in its first dimension. */
export function expectRows(
  op: string,
  name: string,
  t: Tensor,
  rows: number,
  inner: number,
  dtype: DType = "f32",
): void {
  if (t.dtype !== dtype || t.shape[0] !== rows || numel(t) !== rows * inner) {
    throw new KernelError(
      `Cannot run ${op}: ${name} is ${t.dtype} [${t.shape}], expected ${dtype} with ${rows} rows of ${inner}`,
    );
  }
}

/** @throws KernelError unless `t` has that dtype and exactly `count` elements. */
export function expectCount(op: string, name: string, t: Tensor, count: number, dtype: DType = "f32"): void {
  if (t.dtype !== dtype || numel(t) !== count) {
    throw new KernelError(
      `Cannot run ${op}: ${name} is ${t.dtype} [${t.shape}], expected ${dtype} with ${count} elements`,
    );
  }
}

/** As expectCount, for several f32 operands by name. */
export function expectCounts(op: string, count: number, operands: Readonly<Record<string, Tensor>>): void {
  for (const name in operands) expectCount(op, name, operands[name]!, count);
}

/** @throws KernelError unless `t` has that dtype and at least `count` elements. */
export function expectAtLeast(op: string, name: string, t: Tensor, count: number, dtype: DType = "f32"): void {
  if (t.dtype !== dtype || numel(t) < count) {
    throw new KernelError(
      `Cannot run ${op}: ${name} is ${t.dtype} [${t.shape}], expected ${dtype} with at least ${count} elements`,
    );
  }
}

/** First dimension of a tensor. @throws KernelError for a scalar. */
export function rowsOf(op: string, name: string, t: Tensor): number {
  const rows = t.shape[0];
  if (rows === undefined) throw new KernelError(`Cannot run ${op}: ${name} has no dimensions`);
  return rows;
}

/** Address for a kernel; null where an operand is absent. */
export function at(t: Tensor | null | undefined): never {
  return (t ? t.ptr : null) as never;
}
