// The norm of a few rows by one block, on their way into products: the same partition and order of each sum as in
// norm.cu, so the same bits. The gains are weights and may be fetched before depend_wait().
#pragma once
#include "device.h"
#include "host.h"

namespace graft::gpu {

/// What happens to rows before they are multiplied: rms norm; layer norm where there is a bias; nothing where there is
/// no weight.
struct RowNorm {
  const float* weight;
  const float* bias;
  float eps;
};

/// Rows up to this length take one warp.
constexpr int32_t kShortRow = 256;

/// Up to Most rows x[N, in], read by all kThreads threads of a block. Inputs from `in` to `padded` are zero.
template <int32_t Most>
struct NormedRows {
  /// Inputs that a thread has under way of each row.
  static constexpr int32_t kBatch = 16 / Most;
  static constexpr int32_t kScratch = 2 * Most * (kThreads / kWarp);

  const float* x;
  RowNorm norm;
  int32_t N, in, padded;
  float mean[Most], scale[Most];
  float gain[kBatch];

  /// Fetches the first gains.
  __device__ __forceinline__ void prefetch() {
    if (norm.weight == nullptr) return;
#pragma unroll
    for (int32_t j = 0; j < kBatch; j++) {
      const int32_t c = threadIdx.x + j * static_cast<int32_t>(kThreads);
      gain[j] = c < in ? norm.weight[c] : 0.0f;
    }
  }

  /// Runs body(r, c, x[r, c], j, first) for the c of this thread, `width` apart, in ascending order: the j-th of the
  /// first batch or of a later one.
  template <class Body>
  __device__ __forceinline__ void for_each(int32_t at, int32_t width, int32_t end, Body&& body) const {
    for (int32_t base = at; base < end; base += kBatch * width) {
      float values[kBatch][Most];
#pragma unroll
      for (int32_t j = 0; j < kBatch; j++)
#pragma unroll
        for (int32_t r = 0; r < Most; r++) {
          const int32_t c = base + j * width;
          values[j][r] = c < in && r < N ? x[static_cast<int64_t>(r) * in + c] : 0.0f;
        }
#pragma unroll
      for (int32_t j = 0; j < kBatch; j++)
#pragma unroll
        for (int32_t r = 0; r < Most; r++)
          if (base + j * width < end && r < N) body(r, base + j * width, values[j][r], j, base == at);
    }
  }

  /// The sums over the threads of `width`; scratch: Most * kThreads / kWarp floats.
  __device__ __forceinline__ void reduce(float (&sums)[Most], bool one_warp, float* scratch) const {
    constexpr int32_t kWarps = kThreads / kWarp;
#pragma unroll
    for (int32_t r = 0; r < Most; r++)
      if (r < N) sums[r] = warp_sum(sums[r]);
    if (one_warp) return;
#pragma unroll
    for (int32_t r = 0; r < Most; r++)
      if (r < N && threadIdx.x % kWarp == 0) scratch[r * kWarps + threadIdx.x / kWarp] = sums[r];
    __syncthreads();
#pragma unroll
    for (int32_t r = 0; r < Most; r++) {
      if (r >= N) break;
      sums[r] = 0;
      for (int32_t w = 0; w < kWarps; w++) sums[r] += scratch[r * kWarps + w];
    }
  }

  /// Finds means and scales; scratch: kScratch floats, free again after the next barrier.
  __device__ __forceinline__ void measure(float* scratch) {
#pragma unroll
    for (int32_t r = 0; r < Most; r++) mean[r] = 0, scale[r] = 1;
    if (norm.weight == nullptr) return;
    const bool one_warp = in <= kShortRow && norm.bias == nullptr;
    const int32_t width = one_warp ? kWarp : kThreads, at = static_cast<int32_t>(threadIdx.x) % width;
    if (norm.bias != nullptr) {
      for_each(at, width, in, [&](int32_t r, int32_t, float value, int32_t, bool) { mean[r] += value; });
      reduce(mean, one_warp, scratch);
#pragma unroll
      for (int32_t r = 0; r < Most; r++) mean[r] = mean[r] / static_cast<float>(in);
    }
    float squares[Most] = {};
    for_each(at, width, in, [&](int32_t r, int32_t, float value, int32_t, bool) {
      const float d = value - mean[r];
      squares[r] = fmaf(d, d, squares[r]);
    });
    reduce(squares, one_warp, scratch + kScratch / 2);
#pragma unroll
    for (int32_t r = 0; r < Most; r++) scale[r] = 1.0f / sqrtf(squares[r] / static_cast<float>(in) + norm.eps);
  }

  /// Runs put(r, c, value) for every normed value.
  template <class Put>
  __device__ __forceinline__ void put_each(Put&& put) const {
    for_each(threadIdx.x, kThreads, padded, [&](int32_t r, int32_t c, float value, int32_t j, bool first) {
      if (norm.weight != nullptr && c < in) {
        const float w = first ? gain[j] : norm.weight[c];
        value = norm.bias != nullptr ? fmaf((value - mean[r]) * scale[r], w, norm.bias[c]) : value * scale[r] * w;
      }
      put(r, c, value);
    });
  }
};

}  // namespace graft::gpu
