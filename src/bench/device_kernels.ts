// Speed of a layer's steps on a device, as shares of what a large copy and matrix products show there. Prints nothing.
import type { Ops } from "../ops/ops.ts";
import { LayerOperands } from "./layer_operands.ts";
import { type LayerCase, timeRounds } from "./rounds.ts";

/** What the device can do at most. */
export interface DeviceLimits {
  /** Of a copy, read and written. */
  readonly bytesPerSecond: number;
  /** Of bfloat16 products; 0 where unknown. */
  readonly flopsPerSecond: number;
}

export interface DeviceFigure {
  readonly name: string;
  readonly bestSeconds: number;
  readonly medianSeconds: number;
  readonly bytes: number;
  readonly flops: number;
  readonly bytesPerSecond: number;
  readonly flopsPerSecond: number;
  /** What takes longer at its limit: moving the bytes, or the operations. */
  readonly bound: "copy" | "matrix";
  /** Seconds that takes, over the best time. */
  readonly share: number;
}

/** More than twice the last cache of any device. */
const UNCACHED_BYTES = 192 * 2 ** 20;

/** Measures one case for about `seconds`. @throws KernelError where its operands do not fit */
export function measureLayerCase(
  ops: Ops,
  one: LayerCase,
  limits: DeviceLimits,
  seconds: number,
  uncachedBytes = UNCACHED_BYTES,
): DeviceFigure {
  const operands = new LayerOperands(ops, uncachedBytes);
  try {
    const { best, median } = timeRounds(ops, one.round(operands), seconds);
    const { name, bytes, flops } = one;
    const moving = bytes / limits.bytesPerSecond;
    const multiplying = limits.flopsPerSecond > 0 ? flops / limits.flopsPerSecond : 0;
    return {
      ...{ name, bytes, flops },
      bestSeconds: best,
      medianSeconds: median,
      bytesPerSecond: bytes / best,
      flopsPerSecond: flops / best,
      bound: moving >= multiplying ? "copy" : "matrix",
      share: Math.max(moving, multiplying) / best,
    };
  } finally {
    operands.free();
  }
}
