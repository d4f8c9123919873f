// What state a linear layer keeps of a sequence, and how it finds it in a batch.
import { KernelError } from "../../src/errors.ts";
import type { LayerStates, Ops, StateDtype } from "../../src/ops/ops.ts";
import type { LinearShape, MixerBatch, StateSpec } from "./mixer.ts";
import { convStateFloats, linearSizes } from "./shape.ts";

/** What one sequence costs in a linear layer of this shape. */
export function linearStateSpec(ops: Ops, shape: LinearShape): StateSpec {
  const sizes = linearSizes(shape);
  const floats = (dtype: StateDtype) =>
    shape.variant === "gla"
      ? ops.glaStateFloats(sizes, shape.block, dtype)
      : ops.gdnStateFloats(sizes, shape.block, dtype);
  return {
    kvBytesPerToken: { f32: 0, bf16: 0 },
    recurrentFloats: { f32: floats("f32"), bf16: floats("bf16") },
    convFloats: convStateFloats(shape),
  };
}

/** The states of a batch's sequences. @throws KernelError where the batch has none */
export function layerStates(batch: MixerBatch): LayerStates {
  if (!batch.state) throw new KernelError("Cannot run linear attention: the batch has no state slots");
  return batch.state;
}
