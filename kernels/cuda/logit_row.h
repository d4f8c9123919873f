// One thread block looks at one row of logits: its maximum, its sum of exponentials, its order. All results are the
// same bits in every thread and from run to run: floats are reduced in a fixed order, amounts are integers.
#pragma once
#include "elements.h"

namespace graft::gpu {

constexpr unsigned kRowThreads = 512, kRowWarps = kRowThreads / kWarp;

/// Larger for larger numbers; zeros of either sign are equal.
__device__ __forceinline__ uint32_t order_of(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
/// Larger for what ranks first: the larger number, then the lower index.
__device__ __forceinline__ uint64_t rank_of(float x, int32_t index) {
  return static_cast<uint64_t>(order_of(x)) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}
__device__ __forceinline__ int32_t index_of(uint64_t rank) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(rank));
}

/// Shared memory of the reductions below.
struct RowScratch {
  uint64_t words[kRowWarps];
};

/// combine() over all threads of the block; a barrier on either side.
template <class T, class Combine>
__device__ T block_reduce(T x, RowScratch* scratch, Combine&& combine) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  for (int with = 16; with > 0; with /= 2) x = combine(x, __shfl_xor_sync(kAll, x, with));
  T* all = reinterpret_cast<T*>(scratch->words);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) all[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = all[0];
  for (unsigned w = 1; w < kRowWarps; w++) x = combine(x, all[w]);
  return x;
}

template <class T>
__device__ T block_add(T x, RowScratch* scratch) {
  return block_reduce(x, scratch, [](T a, T b) { return a + b; });
}
__device__ inline uint64_t block_best(uint64_t rank, RowScratch* scratch) {
  return block_reduce(rank, scratch, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
}

/// The best index of a row, or a graft_row, and its logit.
struct RowBest {
  int32_t index;
  float max;
};
__device__ inline RowBest best_of_row(const float* x, int32_t V, RowScratch* scratch) {
  uint64_t best = 0;
  int32_t broken = 0;
  // One block reads a whole row: many loads must be under way at once.
#pragma unroll 8
  for (int32_t i = threadIdx.x; i < V; i += kRowThreads) {
    const float logit = x[i];
    broken |= isnan(logit);
    const uint64_t rank = rank_of(logit, i);
    best = rank > best ? rank : best;
  }
  best = block_best(best, scratch);
  broken = block_reduce(broken, scratch, [](int32_t a, int32_t b) { return a | b; });
  const int32_t index = index_of(best);
  const float max = x[index];
  if (broken || max == INFINITY) return {GRAFT_ROW_BROKEN, max};
  return {max == -INFINITY ? GRAFT_ROW_EMPTY : index, max};
}

/// log sum exp of a row that has an answer.
__device__ inline double log_sum_exp(const float* x, int32_t V, float max, RowScratch* scratch) {
  double sum = 0;
#pragma unroll 8
  for (int32_t i = threadIdx.x; i < V; i += kRowThreads) sum += expf(x[i] - max);
  return max + log(block_add(sum, scratch));
}

}  // namespace graft::gpu
