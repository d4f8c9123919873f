// How a linear layer finds its recurrent and convolution state in a batch.
import { KernelError } from "../../src/errors.ts";
import type { RecurrentSlots, StateSlots } from "../../src/ops/ops.ts";
import { numel, view } from "../../src/tensor/tensor.ts";
import type { MixerBatch, StateBatch } from "./mixer.ts";

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
