// The arithmetic of softmax attention on tensor cores for one warp: scores of 16 query rows against a block of 64 keys,
// the step of online softmax, and the merge of what two runs of keys gave. Fragments as in the PTX manual: a lane has
// rows lane / 4 and lane / 4 + 8. Every kernel goes through these functions, so that rows get the same bits.
#pragma once
#include "attention.h"

namespace graft::gpu {

/// 2^x to two units in the last place, denormals as zero; exactly 1 at 0 and 0 at -infinity.
__device__ __forceinline__ float power_of_2(float x) {
#if defined(GRAFT_SIMT)
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

/// What maxima are taken from: a row that has seen no key yet has none.
__device__ __forceinline__ float base_of(float maximum) { return maximum == -INFINITY ? 0 : maximum; }

/// The four lanes that share a row.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAll, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAll, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAll, x, 1);
  return x + __shfl_xor_sync(kAll, x, 2);
}

/// How what was summed up to `earlier` and what came `later` are weighed when they are added.
struct Meeting {
  float top, own, other;
  __device__ __forceinline__ Meeting(float earlier, float later) {
    top = fmaxf(earlier, later);
    own = power_of_2(earlier - base_of(top));
    other = power_of_2(later - base_of(top));
  }
  __device__ __forceinline__ float add(float earlier, float later) const { return fmaf(earlier, own, later * other); }
};

/// What a lane has of its two rows: maximum (scaled, to the base of 2), sum, and `Tiles` times two channels of weighted
/// values. Element e of a tile belongs to row e / 2.
template <int32_t Tiles>
struct Sums {
  float maximum[2], sum[2], values[Tiles][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
      maximum[i] = -INFINITY;
      sum[i] = 0;
    }
#pragma unroll
    for (int32_t n = 0; n < Tiles; n++)
#pragma unroll
      for (int32_t e = 0; e < 4; e++) values[n][e] = 0;
  }

  /// Keys with this maximum and sum of weights join: scales what was there. No bit changes at a factor of 1.
  __device__ __forceinline__ void rescale(int32_t i, float top, float sum_of_block) {
    const float correction = power_of_2(maximum[i] - base_of(top));
    maximum[i] = top;
    sum[i] = fmaf(sum[i], correction, sum_of_block);
#pragma unroll
    for (int32_t n = 0; n < Tiles; n++) {
      values[n][2 * i] *= correction;
      values[n][2 * i + 1] *= correction;
    }
  }

  /// The sums of later keys join; those of no key change no bit.
  __device__ __forceinline__ void merge(const Sums& later) {
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
      const Meeting meeting(maximum[i], later.maximum[i]);
      maximum[i] = meeting.top;
      sum[i] = meeting.add(sum[i], later.sum[i]);
#pragma unroll
      for (int32_t n = 0; n < Tiles; n++)
#pragma unroll
        for (int32_t e = 2 * i; e < 2 * i + 2; e++) values[n][e] = meeting.add(values[n][e], later.values[n][e]);
    }
  }
};

/// A lane's part of 16 rows times 64 keys.
using Scores = float[kKeyBlock / 8][4];

/// 16 rows times 16 elements from shared memory as the left operand.
__device__ __forceinline__ void load_left(uint32_t (&a)[4], const uint16_t* rows, int32_t stride) {
  const int32_t lane = threadIdx.x % kWarp;
  load_matrices<false>(a, rows + lane % 16 * stride + lane / 16 * 8);
}
/// 16 keys times 16 channels as the right operand of two tiles of keys.
__device__ __forceinline__ void load_keys(uint32_t (&even)[2], uint32_t (&odd)[2], const uint16_t* keys,
                                          int32_t stride) {
  const int32_t lane = threadIdx.x % kWarp;
  uint32_t r[4];
  load_matrices<false>(r, keys + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8);
  even[0] = r[0];
  even[1] = r[1];
  odd[0] = r[2];
  odd[1] = r[3];
}

/// Keys first.. that lie beyond a row's position get -infinity.
__device__ __forceinline__ void mask_row(Scores& scores, int32_t i, int32_t position, int32_t first) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t n = 0; n < kKeyBlock / 8; n++)
#pragma unroll
    for (int32_t e = 0; e < 2; e++)
      if (first + n * 8 + lane % 4 * 2 + e > position) scores[n][2 * i + e] = -INFINITY;
}

/// The greatest score of row i, scaled.
__device__ __forceinline__ float block_maximum(const Scores& scores, int32_t i, float scale) {
  float top = -INFINITY;
#pragma unroll
  for (int32_t n = 0; n < kKeyBlock / 8; n++) top = fmaxf(top, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
  return quad_max(top) * scale;
}

/// Scores of row i become weights against the maximum `top`; returns their sum.
__device__ __forceinline__ float weigh_row(Scores& scores, int32_t i, float scale, float top) {
  const float base = base_of(top);
  float sum = 0;
#pragma unroll
  for (int32_t n = 0; n < kKeyBlock / 8; n++)
#pragma unroll
    for (int32_t e = 2 * i; e < 2 * i + 2; e++) {
      scores[n][e] = power_of_2(fmaf(scores[n][e], scale, -base));
      sum += scores[n][e];
    }
  return quad_sum(sum);
}

}  // namespace graft::gpu
