// One step of a gated delta rule layer (graft_gdn_step) with blocks of 16 rows: what its kernels share. With r the row
// in its block, b the sum of log decays up to a row and S0 the state at the block's beginning:
//   w_r = v_r - e^{b_r} k_rᵀ S0 - sum_{s<r} A_rs u_s,   A_rs = e^{b_r - b_s} k_r·k_s,   u_r = beta_r w_r
//   o_r = e^{b_r} q_rᵀ S0 + sum_{s<=r} P_rs u_s,        P_rs = e^{b_r - b_s} q_r·k_s    (q scaled)
//   S0 <- e^{b_15} S0 + sum_s k_s (e^{b_15 - b_s} u_s)ᵀ  when row 15 is there
// gdn_decode.cu takes few rows of a sequence in one launch, gdn_prefill.cu many in three. Both do the same operations
// for a row, in the same order.
#pragma once
#include "gdn_slot.h"
#include "step_rows.h"

namespace graft::gpu {

struct GdnStep {
  Sequences sequences;
  GdnShape shape;
  graft_gdn_layer layer;
  float *y, *conv_state;
  const float *q, *k, *v, *kernels, *za, *zb, *gate;
  /// By sequence and key head: how many value heads have read its windows. Zero between launches.
  int32_t* readers;

  __device__ float* window(int32_t s, int64_t offset) const {
    if (conv_state == nullptr) return nullptr;
    return conv_state + static_cast<uint64_t>(sequences.slots[s]) * sequences.stride + offset;
  }
  __device__ StepConv q_conv(int32_t s, int64_t first) const { return key_conv(layer.q_conv, q, s, first, 0); }
  __device__ StepConv k_conv(int32_t s, int64_t first) const {
    return key_conv(layer.k_conv, k, s, first, static_cast<int64_t>(layer.W - 1) * shape.Hk * shape.Dk);
  }
  __device__ StepConv v_conv(int32_t s, int64_t first) const {
    const int32_t C = shape.Hv * shape.Dv;
    const int64_t offset = kernels != nullptr ? 0 : 2 * static_cast<int64_t>(layer.W - 1) * shape.Hk * shape.Dk;
    const bool there = kernels != nullptr || layer.v_conv.weight != nullptr;
    return {layer.v_conv.weight,
            kernels != nullptr ? nullptr : layer.v_conv.bias,
            v + first * C,
            kernels == nullptr ? nullptr : kernels + first * C * layer.W,
            there ? window(s, offset) : nullptr,
            C,
            layer.W};
  }
  /// Log decay and write strength of value head j at a row of the call.
  __device__ float log_decay(int64_t row, int32_t j) const {
    return mul(-expf(layer.A_log[j]), softplus(za[row * shape.Hv + j] + layer.dt_bias[j]));
  }
  __device__ float strength(int64_t row, int32_t j) const {
    return mul(layer.beta_scale, sigmoid(zb[row * shape.Hv + j]));
  }

 private:
  __device__ StepConv key_conv(const graft_conv& conv, const float* u, int32_t s, int64_t first, int64_t offset) const {
    const int32_t C = shape.Hk * shape.Dk;
    return {conv.weight, conv.bias, u + first * C, nullptr, conv.weight != nullptr ? window(s, offset) : nullptr,
            C,           layer.W};
  }
};

/// One launch; for calls with about as many rows as sequences.
int32_t gdn_decode(const GdnStep& step);
/// Any rows.
int32_t gdn_prefill(const GdnStep& step);
/// Shared memory of a block of threads at most, in either.
size_t gdn_decode_bytes(const GdnStep& step);
size_t gdn_prefill_bytes(const GdnStep& step);

}  // namespace graft::gpu
