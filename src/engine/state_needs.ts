// What the recurrent states of one sequence may come to, before it is known which hybrids there will be.
import { convStateFloats, linearShapeFor, linearSizes, VARIANTS } from "../../models/attention/shape.ts";
import type { ModelConfig } from "../../models/config.ts";
import { RequestError } from "../errors.ts";
import type { Ops, StateDtype } from "../ops/ops.ts";

/** Counterparts may be wider than those that match the attention they replace. */
const WIDER = 2;

/** Bytes of one sequence where every layer has the counterpart that keeps most; Infinity where none matches the model. */
export function plausibleStateBytes(ops: Ops, config: ModelConfig, dtype: StateDtype): number {
  try {
    const floats = VARIANTS.map((variant) => {
      const shape = linearShapeFor(config, variant);
      const sizes = linearSizes(shape);
      const recurrent =
        variant === "gla"
          ? ops.glaStateFloats(sizes, shape.block, dtype)
          : ops.gdnStateFloats(sizes, shape.block, dtype);
      return recurrent + convStateFloats(shape);
    });
    return 4 * WIDER * config.numLayers * Math.max(...floats);
  } catch (error) {
    if (error instanceof RequestError) return Number.POSITIVE_INFINITY;
    throw error;
  }
}
