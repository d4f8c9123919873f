// One step of a gated linear attention layer (graft_gla_step) with blocks of 16 rows: what its kernels share. With r
// the row in its block, b the sums of log decays up to a row (by channel) and S0 the state at the block's beginning:
//   o_r = (q_r ⊙ e^{b_r})ᵀ S0 + sum_{s<=r} P_rs v_s,   P_rs = sum_c q_r k_s e^{b_r - b_s}    (q scaled)
//   S0 <- e^{b_15} ⊙ S0 + sum_s (k_s ⊙ e^{b_15 - b_s}) v_sᵀ when row 15 is there; no exponent is above 0
// gla_decode.cu takes few rows of a sequence in one launch, gla_prefill.cu many in three. Both do the same operations
// for a row, in the same order.
#pragma once
#include "gla_slot.h"
#include "step_rows.h"

namespace graft::gpu {

struct GlaStep {
  Sequences sequences;
  GlaShape shape;
  graft_gla_layer layer;
  float *y, *conv_state;
  const float *q, *k, *v, *z, *gate;

  __device__ StepConv q_conv(int32_t s, int64_t first) const {
    return conv(layer.q_conv, q, shape.Hq * shape.Dk, s, first, 0);
  }
  __device__ StepConv k_conv(int32_t s, int64_t first) const {
    return conv(layer.k_conv, k, shape.Hkv * shape.Dk, s, first, shape.Hq * shape.Dk);
  }
  __device__ StepConv v_conv(int32_t s, int64_t first) const {
    return conv(layer.v_conv, v, shape.Hkv * shape.Dv, s, first, (shape.Hq + shape.Hkv) * shape.Dk);
  }
  /// Log decay of channel c (over all heads) at a row of the call.
  __device__ float log_decay(int64_t row, int32_t c) const {
    return -softplus(-z[row * shape.Hkv * shape.Dk + c]) / layer.gate_normalizer;
  }

 private:
  /// `before`: channels of the windows that lie before this one's.
  __device__ StepConv conv(const graft_conv& weights, const float* u, int32_t C, int32_t s, int64_t first,
                           int32_t before) const {
    float* window = nullptr;
    if (weights.weight != nullptr)
      window = conv_state + static_cast<uint64_t>(sequences.slots[s]) * sequences.stride +
               static_cast<int64_t>(layer.W - 1) * before;
    return {weights.weight, weights.bias, u + first * C, nullptr, window, C, layer.W};
  }
};

/// One launch; for calls with about as many rows as sequences.
int32_t gla_decode(const GlaStep& step);
/// Any rows.
int32_t gla_prefill(const GlaStep& step);
/// Shared memory of a block of threads at most, in either.
size_t gla_decode_bytes(const GlaStep& step);
size_t gla_prefill_bytes(const GlaStep& step);

/// sum += x[c] (k[c] e^{b[c] - before[c]}) over 16 channels or to the end, for several rows x: a part of P.
template <int32_t Rows>
__device__ __forceinline__ void decayed_part(float (&sums)[Rows], const float* x, int32_t stride, int32_t rows,
                                             const float* k, const float* b, const float* before, int32_t channels) {
#pragma unroll 4
  for (int32_t c = 0; c < kDotPart; c++) {
    if (c >= channels) break;
    const float key = mul(k[c], expf(b[c] - before[c]));
#pragma unroll
    for (int32_t i = 0; i < Rows; i++)
      if (i < rows) sums[i] = fmaf(x[i * stride + c], key, sums[i]);
  }
}
/// Query heads that go over a block's keys together.
constexpr int32_t kTogether = 4;

}  // namespace graft::gpu
