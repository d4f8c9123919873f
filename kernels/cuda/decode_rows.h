// Rows of a slot's block in shared memory, as the decode kernels keep them: 16 bytes apart beyond their length.
#pragma once
#include "step_rows.h"

namespace graft::gpu {

constexpr int32_t kDecodeThreads = 256, kDecodeWarps = kDecodeThreads / kWarp;

/// Hands out places in shared memory, in floats, 16 bytes aligned.
struct Placer {
  int32_t floats = 0;
  __host__ __device__ int32_t take(int32_t count) {
    const int32_t from = floats;
    floats += (count + 3) / 4 * 4;
    return from;
  }
};

template <class T>
__host__ __device__ constexpr int32_t kept_row_floats(int32_t n) {
  return static_cast<int32_t>(n * sizeof(T) / 4 + 4);
}
/// Row `row` of rows of n elements.
template <class T>
__device__ __forceinline__ T* row_at(float* rows, int32_t n, int32_t row) {
  return reinterpret_cast<T*>(rows) + row * (n + static_cast<int32_t>(16 / sizeof(T)));
}
/// Sends for `count` rows of n elements.
template <class T>
__device__ void copy_rows(float* to, const T* from, int32_t n, int32_t count) {
  constexpr int32_t kChunk = 16 / sizeof(T);
  const int32_t chunks = n / kChunk;
#pragma unroll 1
  for (int32_t at = threadIdx.x; at < count * chunks; at += kDecodeThreads)
    copy_async(row_at<T>(to, n, at / chunks) + at % chunks * kChunk, from + static_cast<int64_t>(at) * kChunk);
}

/// A step of few sequences is over before memory has answered: states can be on their way to the L2 cache while the
/// kernel before still runs. Only a hint, and no value is read, so it may come before depend_wait(); the slots it needs
/// are no kernel's output but the host's.
constexpr unsigned kFetchedSequences = 8;
template <class T>
__device__ __forceinline__ void fetch_state(const T* state, int32_t elements) {
  constexpr int32_t kLine = 128 / sizeof(T);
  for (int32_t at = threadIdx.x * kLine; at < elements; at += kDecodeThreads * kLine) fetch_line(state + at);
}

}  // namespace graft::gpu
