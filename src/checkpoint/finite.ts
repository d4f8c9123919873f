// Finds NaN and infinity in stored floats without converting them. Knows no file and no tensor.
import type { DType } from "../tensor/dtype.ts";

/** Exponent bits of one element: all set in NaN and infinity, never in a number. */
const EXPONENTS: Partial<Record<DType, number>> = { f32: 0x7f800000, bf16: 0x7f80, f16: 0x7c00 };

/** Index of the first element that is no number, or -1. `bytes` are little-endian f32, bf16 or f16 values. */
export function firstNonFinite(bytes: Uint8Array, dtype: DType): number {
  const exponent = EXPONENTS[dtype];
  if (exponent === undefined) throw new TypeError(`Cannot look for NaN in ${dtype} values`);
  if (bytes.byteOffset % 4 !== 0) return firstNonFinite(bytes.slice(), dtype);
  if (dtype === "f32") {
    const values = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
    for (let i = 0; i < values.length; i++) if ((values[i]! & exponent) === exponent) return i;
    return -1;
  }
  // Two elements at a time, as this runs over every weight of a model.
  const pairs = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
  const upper = exponent << 16;
  for (let i = 0; i < pairs.length; i++) {
    const pair = pairs[i]!;
    if ((pair & exponent) === exponent) return 2 * i;
    if ((pair & upper) === upper) return 2 * i + 1;
  }
  const last = (bytes.byteLength >> 1) - 1;
  const odd = bytes.byteLength % 4 === 2 ? new DataView(bytes.buffer, bytes.byteOffset).getUint16(2 * last, true) : 0;
  return (odd & exponent) === exponent ? last : -1;
}
