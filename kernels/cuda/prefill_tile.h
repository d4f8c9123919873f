// A block of keys for the query rows of a warp that prefills: where rows and keys lie in shared memory, which rows a
// block has, scores, weights and sums. T: tiles of 16 rows a warp.
#pragma once
#include "attention_rows.h"
#include "softmax_tile.h"

namespace graft::gpu::prefilling {

constexpr int32_t kWarps = 4;
/// Of T tiles a warp.
template <int32_t T>
constexpr int32_t kWarpRows = T * kQueryTile;
template <int32_t T>
constexpr int32_t kBlockRows = kWarps * kWarpRows<T>;
constexpr int32_t kWarpKeys = kKeyBlock / kWarps, kStretchKeys = kStretch * kSpan;

/// Shared memory of a block.
template <int32_t D, int32_t T>
struct Room {
  static constexpr size_t kQueries = kBlockRows<T> * kRowStride<D> * sizeof(uint16_t);
  static constexpr size_t kStage = 2 * kTileElements<D> * sizeof(uint16_t);
  /// Of every row: maximum and sum of the stretch so far, then of the stretches before.
  static constexpr size_t kStates = kBlockRows<T> * 4 * sizeof(float);
  static constexpr size_t kPositions = kBlockRows<T> * sizeof(int32_t);
  static constexpr size_t kBytes = kQueries + 2 * kStage + kStates + kPositions;

  static __device__ __forceinline__ uint16_t* queries() { return shared<uint16_t>(); }
  static __device__ __forceinline__ uint16_t* keys(int32_t block) {
    return shared<uint16_t>() + (kQueries + block % 2 * kStage) / sizeof(uint16_t);
  }
  static __device__ __forceinline__ uint16_t* values(int32_t block) { return keys(block) + kTileElements<D>; }
  static __device__ __forceinline__ float* states() {
    return shared<float>() + (kQueries + 2 * kStage) / sizeof(float);
  }
  static __device__ __forceinline__ int32_t* positions() {
    return shared<int32_t>() + (kQueries + 2 * kStage + kStates) / sizeof(int32_t);
  }
};

/// Which sequence, and which block of its rows, block `index` has: blocks count through the sequences that do not
/// decode. Whole warps ask.
template <int32_t T>
__device__ __forceinline__ bool find_rows(const Attention& a, int32_t index, int32_t& s, int32_t& first_row) {
  const int32_t lane = threadIdx.x % kWarp, group = a.Hq / a.Hkv;
  for (int32_t base = 0; base < a.S; base += kWarp) {
    const int32_t at = base + lane, count = at < a.S ? a.seq_start[at + 1] - a.seq_start[at] : 0;
    const int32_t own = decodes(count, group) ? 0 : (count * group + kBlockRows<T> - 1) / kBlockRows<T>;
    int32_t sum = own;
    for (int32_t by = 1; by < 32; by *= 2) {
      const int32_t lower = __shfl_up_sync(kAll, sum, by);
      if (lane >= by) sum += lower;
    }
    const uint32_t beyond = __ballot_sync(kAll, sum > index);
    if (beyond != 0) {
      const int32_t which = __ffs(static_cast<int>(beyond)) - 1;
      s = base + which;
      // The last rows see most: they go first.
      first_row = (__shfl_sync(kAll, sum, which) - 1 - index) * kBlockRows<T>;
      return true;
    }
    index -= __shfl_sync(kAll, sum, 31);
  }
  return false;
}

template <int32_t D, int32_t T>
__device__ __forceinline__ void load_queries(uint16_t* queries, const Attention& a, const QueryRows& rows,
                                             int32_t first_row) {
#pragma unroll 8
  for (int32_t i = 0; i < kWarpRows<T>; i++) {
    const int32_t r = first_row + i;
    float x[D / 32] = {};
    if (rows.holds(r))
      load_head<D>(x, a.q + rows.at(r, a.Hq, D), a.q_norm, a.rope_row(rows.position(r), D), a.norm_eps);
    store_head<D>(queries + i * kRowStride<D>, x);
  }
}

/// Scores of both tiles of a warp's rows: every key is read from shared memory once for them.
template <int32_t D, int32_t T>
__device__ __forceinline__ void score_block(Scores (&scores)[T], const uint16_t* queries, const uint16_t* keys) {
#pragma unroll
  for (int32_t m = 0; m < T; m++)
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n++)
#pragma unroll
      for (int32_t e = 0; e < 4; e++) scores[m][n][e] = 0;
#pragma unroll 2
  for (int32_t k = 0; k < D / 16; k++) {
    uint32_t left[T][4];
#pragma unroll
    for (int32_t m = 0; m < T; m++)
      load_left(left[m], queries + m * kQueryTile * kRowStride<D> + k * 16, kRowStride<D>);
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n += 2) {
      uint32_t even[2], odd[2];
      load_keys(even, odd, keys + n * 8 * kRowStride<D> + k * 16, kRowStride<D>);
#pragma unroll
      for (int32_t m = 0; m < T; m++) {
        mma(scores[m][n], left[m], even);
        mma(scores[m][n + 1], left[m], odd);
      }
    }
  }
}

/// Keys first.. that lie beyond the rows' positions get -infinity.
template <int32_t T>
__device__ __forceinline__ void mask_block(Scores (&scores)[T], const int32_t* positions, int32_t first) {
#pragma unroll
  for (int32_t m = 0; m < T; m++)
#pragma unroll
    for (int32_t i = 0; i < 2; i++)
      mask_row(scores[m], i, positions[m * kQueryTile + threadIdx.x % kWarp / 4 + i * 8], first);
}

/// Weights of a tile's rows as the left operand.
using Weights = uint32_t[kKeyBlock / 16][4];

/// One step of online softmax: scores become weights, what was summed before is scaled to the new maximum.
template <int32_t D>
__device__ __forceinline__ void weigh_block(Weights& weights, Sums<D / 8>& part, Scores& scores, float scale) {
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const float top = fmaxf(part.maximum[i], block_maximum(scores, i, scale));
    const float sum = weigh_row(scores, i, scale, top);
    // A factor of 1 changes no bit, and most blocks bring no new maximum to any row.
    if (__all_sync(kAll, top == part.maximum[i]))
      part.sum[i] += sum;
    else
      part.rescale(i, top, sum);
  }
#pragma unroll
  for (int32_t k = 0; k < kKeyBlock / 16; k++)
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
      const float* pair = scores[2 * k + i / 2] + i % 2 * 2;
      weights[k][i] = to_bf16_pair(pair[0], pair[1]);
    }
}

template <int32_t D, int32_t T>
__device__ __forceinline__ void add_values(Sums<D / 8> (&part)[T], const Weights (&weights)[T],
                                           const uint16_t* values) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t k = 0; k < kKeyBlock / 16; k++) {
#pragma unroll
    for (int32_t n = 0; n < D / 8; n += 2) {
      uint32_t r[4];
      load_matrices<true>(r, values + (k * 16 + lane / 8 % 2 * 8 + lane % 8) * kRowStride<D> + n * 8 + lane / 16 * 8);
      const uint32_t even[2] = {r[0], r[1]}, odd[2] = {r[2], r[3]};
#pragma unroll
      for (int32_t m = 0; m < T; m++) {
        mma(part[m].values[n], weights[m][k], even);
        mma(part[m].values[n + 1], weights[m][k], odd);
      }
    }
  }
}

}  // namespace graft::gpu::prefilling
