// The convolutions before linear attention, and the norm and gate after it.
#pragma once
#include "scratch.h"
#include "status.h"

namespace graft {

/// Buffers of these steps.
enum RecurrentBuffer : int32_t { kConvolvedQ, kConvolvedK, kConvolvedV, kGates, kMixed, kStrengths };

/// A step's sequences and slots.
struct StepBatch {
  float* conv_state;
  const int32_t *slots, *seq_start;
  int32_t S, N;
  uint64_t stride;
};

/// x becomes its convolution with silu; windows go from `offset` on, which moves past them. As it is without weight.
inline int32_t convolve(float*& x, const graft_conv& conv, int32_t buffer, const StepBatch& batch, int32_t C, int32_t W,
                        int64_t& offset) {
  if (conv.weight == nullptr) return GRAFT_OK;
  GRAFT_CHECK(batch.conv_state != nullptr, "linear attention: a convolution without its windows");
  float* y = scratch_floats(buffer, int64_t{batch.N} * C);
  if (y == nullptr) return GRAFT_OUT_OF_MEMORY;
  GRAFT_TRY(graft_short_conv(y, batch.conv_state + offset, x, conv.weight, conv.bias, batch.slots, batch.seq_start,
                             batch.S, batch.N, C, W, batch.stride, 1));
  offset += int64_t{W - 1} * C;
  x = y;
  return GRAFT_OK;
}

/// Every op of a call of no rows would refuse its pointers.
inline bool empty(const StepBatch& batch) { return batch.N == 0 || batch.S == 0; }

}  // namespace graft
