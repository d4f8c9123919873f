// Element types of tensors, their sizes, and their codes in the C ABI.

/** Element type of a tensor. */
export type DType = "f32" | "bf16" | "f16" | "i32" | "f64";

/** Bytes of one element. */
export const dtypeBytes: Readonly<Record<DType, number>> = { f32: 4, bf16: 2, f16: 2, i32: 4, f64: 8 };

/** `enum graft_dtype` of the header; integer and double tensors have none. */
export function dtypeCode(dtype: DType): number {
  if (dtype === "f32") return 0;
  if (dtype === "bf16") return 1;
  if (dtype === "f16") return 2;
  throw new TypeError(`Kernels take f32, bf16 or f16 here: dtype is ${dtype}`);
}
