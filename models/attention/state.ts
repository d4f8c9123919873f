// What state a linear layer keeps of a sequence, and how it finds it in a batch.
import { KernelError } from "../../src/errors.ts";
import type { Ops, RecurrentSlots, StateDtype, StateSlots } from "../../src/ops/ops.ts";
import { numel, view } from "../../src/tensor/tensor.ts";
import type { LinearShape, MixerBatch, StateBatch, StateSpec } from "./mixer.ts";
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

function stateOf(batch: MixerBatch): StateBatch {
  if (!batch.state) throw new KernelError("Cannot run linear attention: the batch has no state slots");
  return batch.state;
}

/** The recurrent state of every sequence. */
export function recurrentSlots(batch: MixerBatch): RecurrentSlots {
  const { recurrent, recurrentStride, slots, dtype } = stateOf(batch);
  return { state: recurrent, stride: recurrentStride, slots, dtype };
}

/** The convolution state that begins `offset` floats into every sequence's region. */
export function convSlots(batch: MixerBatch, offset: number): StateSlots {
  const { conv, convStride, slots } = stateOf(batch);
  if (!conv) throw new KernelError("Cannot run linear attention: the batch has no convolution state");
  return { state: view(conv, offset, [numel(conv) - offset]), stride: convStride, slots };
}
