// A tensor is a shape, a dtype and an address that only kernels may follow. Owns no memory: see Ops.empty and Arena.
import { type DType, dtypeBytes } from "./dtype.ts";

/** A view: whoever allocated the memory frees it. */
export interface Tensor {
  /** Device address (0 is never valid). */
  readonly ptr: number;
  /** Row-major, dense. */
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** Number of elements. */
export function numel(t: Tensor): number {
  let n = 1;
  for (const d of t.shape) n *= d;
  return n;
}

/** Size in bytes. */
export function bytesOf(t: Tensor): number {
  return numel(t) * dtypeBytes[t.dtype];
}

/** The same elements under another shape. @throws RangeError if the counts differ. */
export function reshape(t: Tensor, shape: readonly number[]): Tensor {
  const view = { ptr: t.ptr, shape, dtype: t.dtype };
  if (numel(view) !== numel(t)) throw new RangeError(`Cannot view [${t.shape}] as [${shape}]: element counts differ`);
  return view;
}

/** Elements `offset`.. of a tensor as a tensor of the given shape. @throws RangeError if it would leave the tensor. */
export function view(t: Tensor, offset: number, shape: readonly number[]): Tensor {
  const part = { ptr: t.ptr + offset * dtypeBytes[t.dtype], shape, dtype: t.dtype };
  if (offset < 0 || offset + numel(part) > numel(t)) {
    throw new RangeError(`Cannot view [${shape}] at ${offset} of [${t.shape}]: outside the tensor`);
  }
  return part;
}

/** Rows start..start+count-1 along the first dimension. */
export function rows(t: Tensor, start: number, count: number): Tensor {
  const inner = t.shape.slice(1);
  const stride = inner.reduce((a, b) => a * b, 1);
  return view(t, start * stride, [count, ...inner]);
}
