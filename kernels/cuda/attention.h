// One warp's part of softmax attention on tensor cores: 16 query rows against blocks of 64 keys. Blocks lie at absolute
// positions, spans of 8 blocks are summed by themselves and merged in ascending order: so a row's result is the same
// bits whether one warp goes over all spans or each span has its own.
#pragma once
#include "device.h"

namespace graft::gpu {

constexpr int32_t kKeyBlock = 64, kSpan = 512, kQueryTile = 16;

/// The paged cache of one layer and the sequences that attend. A page holds [Hkv, page_size, D].
struct Attention {
  float* o;
  const float* q;
  const void* k_cache;
  const void* v_cache;
  const int32_t* seq_start;
  const int32_t* start_pos;
  const int32_t* table_rows;
  const int32_t* page_table;
  int32_t table_stride, S, N, Hq, Hkv, page_size;
  float scale;
  Report* report;

  __device__ const int32_t* table(int32_t s) const {
    return page_table + static_cast<int64_t>(table_rows[s]) * table_stride;
  }
  /// First element of key `position` of head h.
  __device__ int64_t key_at(const int32_t* table, int32_t position, int32_t h, int32_t D) const {
    const int64_t page = table[position / page_size];
    return ((page * Hkv + h) * page_size + position % page_size) * D;
  }
};

/// Rows of a sequence's queries over one kv head: row r is token r / G under the group's head r % G.
struct QueryRows {
  int32_t first, count, start, group, head;  // head: the group's first query head

  __device__ bool holds(int32_t r) const { return r < count * group; }
  __device__ int32_t position(int32_t r) const { return start + r / group; }
  __device__ int64_t at(int32_t r, int32_t Hq, int32_t D) const {
    return (static_cast<int64_t>(first + r / group) * Hq + head + r % group) * D;
  }
};

__device__ inline QueryRows query_rows(const Attention& a, int32_t s, int32_t h) {
  const int32_t first = a.seq_start[s], group = a.Hq / a.Hkv;
  return {first, a.seq_start[s + 1] - first, a.start_pos[s], group, h * group};
}

/// Rows of keys or values in shared memory lie 16 bytes further apart than they are long: no two rows of a matrix then
/// begin in the same bank.
template <int32_t D>
constexpr int32_t kRowStride = D + 8;
template <int32_t D>
constexpr int32_t kTileElements = kKeyBlock * kRowStride<D>;

/// Starts the copies of keys (or values) first..first+63 by `threads` threads; those from `length` on become zeros.
template <int32_t D>
__device__ __forceinline__ void fetch_block(uint16_t* tile, const uint16_t* cache, const Attention& a,
                                            const int32_t* table, int32_t h, int32_t first, int32_t length,
                                            int32_t thread, int32_t threads) {
  constexpr int32_t kChunks = D / 8;
  for (int32_t at = thread; at < kKeyBlock * kChunks; at += threads) {
    const int32_t key = at / kChunks, chunk = at % kChunks * 8, position = first + key;
    const bool there = position < length;
    copy_async(tile + key * kRowStride<D> + chunk, cache + a.key_at(table, there ? position : first, h, D) + chunk,
               there);
  }
}

/// Queries of rows tile*16.. as the left operand.
template <int32_t D>
__device__ __forceinline__ void load_queries(uint32_t (&fragments)[D / 16][4], const Attention& a,
                                             const QueryRows& rows, int32_t tile) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t k = 0; k < D / 16; k++)
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
      const int32_t r = tile * kQueryTile + lane / 4 + i % 2 * 8, d = k * 16 + lane % 4 * 2 + i / 2 * 8;
      float2 pair = make_float2(0, 0);
      if (rows.holds(r)) pair = *reinterpret_cast<const float2*>(a.q + rows.at(r, a.Hq, D) + d);
      fragments[k][i] = to_bf16_pair(pair.x, pair.y);
    }
}

/// What a warp has of its rows lane / 4 and lane / 4 + 8: maximum (in units of log 2), sum and weighted values.
template <int32_t D>
struct Partial {
  float maximum[2], sum[2], values[D / 8][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
      maximum[i] = -INFINITY;
      sum[i] = 0;
    }
#pragma unroll
    for (int32_t n = 0; n < D / 8; n++)
      for (int32_t i = 0; i < 4; i++) values[n][i] = 0;
  }

  /// A later span's result joins; an empty one changes no bit.
  __device__ __forceinline__ void merge(const Partial& later) {
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
      const float top = fmaxf(maximum[i], later.maximum[i]), base = top == -INFINITY ? 0 : top;
      const float own = exp2f(maximum[i] - base), other = exp2f(later.maximum[i] - base);
      maximum[i] = top;
      sum[i] = fmaf(sum[i], own, later.sum[i] * other);
#pragma unroll
      for (int32_t n = 0; n < D / 8; n++)
        for (int32_t e = 2 * i; e < 2 * i + 2; e++) values[n][e] = fmaf(values[n][e], own, later.values[n][e] * other);
    }
  }
};

/// Scores of 64 keys.
template <int32_t D>
__device__ __forceinline__ void score_block(float (&scores)[kKeyBlock / 8][4], const uint32_t (&queries)[D / 16][4],
                                            const uint16_t* keys) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t n = 0; n < kKeyBlock / 8; n++)
    for (int32_t i = 0; i < 4; i++) scores[n][i] = 0;
#pragma unroll
  for (int32_t k = 0; k < D / 16; k++)
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n += 2) {
      uint32_t r[4];
      load_matrices<false>(r, keys + (n * 8 + lane / 16 * 8 + lane % 8) * kRowStride<D> + k * 16 + lane / 8 % 2 * 8);
      const uint32_t even[2] = {r[0], r[1]}, odd[2] = {r[2], r[3]};
      mma(scores[n], queries[k], even);
      mma(scores[n + 1], queries[k], odd);
    }
}

/// Keys first.. that a row may see keep their score times `scale`, the others get -infinity.
__device__ __forceinline__ void mask_block(float (&scores)[kKeyBlock / 8][4], const QueryRows& rows, int32_t tile,
                                           int32_t first, float scale) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const int32_t position = rows.position(tile * kQueryTile + lane / 4 + i * 8);
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n++)
      for (int32_t e = 0; e < 2; e++) {
        float& score = scores[n][2 * i + e];
        score = first + n * 8 + lane % 4 * 2 + e <= position ? score * scale : -INFINITY;
      }
  }
}

/// The four lanes that share a row.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAll, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAll, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(kAll, x, 1);
  return x + __shfl_xor_sync(kAll, x, 2);
}

/// One step of online softmax: scores become weights, what was summed before is scaled to the new maximum.
template <int32_t D>
__device__ __forceinline__ void weigh_block(Partial<D>& part, float (&scores)[kKeyBlock / 8][4]) {
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    float top = -INFINITY;
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n++) top = fmaxf(top, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
    top = fmaxf(part.maximum[i], row_max(top));
    const float base = top == -INFINITY ? 0 : top, correction = exp2f(part.maximum[i] - base);
    float sum = 0;
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n++)
      for (int32_t e = 2 * i; e < 2 * i + 2; e++) {
        scores[n][e] = exp2f(scores[n][e] - base);
        sum += scores[n][e];
      }
    part.maximum[i] = top;
    part.sum[i] = fmaf(part.sum[i], correction, row_sum(sum));
#pragma unroll
    for (int32_t n = 0; n < D / 8; n++)
      for (int32_t e = 2 * i; e < 2 * i + 2; e++) part.values[n][e] *= correction;
  }
}

/// Adds weights times values of 64 keys.
template <int32_t D>
__device__ __forceinline__ void add_values(Partial<D>& part, const float (&weights)[kKeyBlock / 8][4],
                                           const uint16_t* values) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t k = 0; k < kKeyBlock / 16; k++) {
    const float(&w0)[4] = weights[2 * k], (&w1)[4] = weights[2 * k + 1];
    const uint32_t a[4] = {to_bf16_pair(w0[0], w0[1]), to_bf16_pair(w0[2], w0[3]), to_bf16_pair(w1[0], w1[1]),
                           to_bf16_pair(w1[2], w1[3])};
#pragma unroll
    for (int32_t n = 0; n < D / 8; n += 2) {
      uint32_t r[4];
      load_matrices<true>(r, values + (k * 16 + lane / 8 % 2 * 8 + lane % 8) * kRowStride<D> + n * 8 + lane / 16 * 8);
      const uint32_t even[2] = {r[0], r[1]}, odd[2] = {r[2], r[3]};
      mma(part.values[n], a, even);
      mma(part.values[n + 1], a, odd);
    }
  }
}

/// o = values / sum for the rows that exist.
template <int32_t D>
__device__ __forceinline__ void store_rows(const Attention& a, const Partial<D>& part, const QueryRows& rows,
                                           int32_t tile) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const int32_t r = tile * kQueryTile + lane / 4 + i * 8;
    if (!rows.holds(r)) continue;
    float* o = a.o + rows.at(r, a.Hq, D) + lane % 4 * 2;
#pragma unroll
    for (int32_t n = 0; n < D / 8; n++)
      *reinterpret_cast<float2*>(o + n * 8) =
          make_float2(part.values[n][2 * i] / part.sum[i], part.values[n][2 * i + 1] / part.sum[i]);
  }
}

}  // namespace graft::gpu
