// One head's row of q or k on its way in: rms norm over the head and rope, by one warp, the same arithmetic as the ops
// rms_norm and rope.
#pragma once
#include "device.h"

namespace graft::gpu {

/// Elements lane, lane + 32, ... of a row of D: x gain / sqrt(mean x² + eps) where there is a gain, turned where there
/// is a row of cosines and sines.
template <int32_t D>
__device__ __forceinline__ void load_head(float (&x)[D / 32], const float* from, const float* gain, const float* turn,
                                          float eps) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t i = 0; i < D / 32; i++) x[i] = from[lane + i * 32];
  if (gain != nullptr) {
    float squares = 0;
#pragma unroll
    for (int32_t i = 0; i < D / 32; i++) squares = fmaf(x[i], x[i], squares);
    const float r = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(D) + eps);
#pragma unroll
    for (int32_t i = 0; i < D / 32; i++) {
      x[i] *= r;
      x[i] *= gain[lane + i * 32];
    }
  }
  if (turn == nullptr) return;
  if constexpr (D == 32) {
    const float other = __shfl_xor_sync(kAll, x[0], 16), c = turn[lane % 16], s = turn[16 + lane % 16];
    x[0] = lane < 16 ? fmaf(x[0], c, -other * s) : fmaf(x[0], c, other * s);
  } else {
#pragma unroll
    for (int32_t i = 0; i < D / 64; i++) {
      const float a = x[i], b = x[i + D / 64], c = turn[lane + i * 32], s = turn[D / 2 + lane + i * 32];
      x[i] = fmaf(a, c, -b * s);
      x[i + D / 64] = fmaf(b, c, a * s);
    }
  }
}

template <int32_t D>
__device__ __forceinline__ void store_head(uint16_t* to, const float (&x)[D / 32]) {
#pragma unroll
  for (int32_t i = 0; i < D / 32; i++) to[threadIdx.x % kWarp + i * 32] = to_bf16(x[i]);
}

}  // namespace graft::gpu
