// One span of keys by a block that decodes: its shared memory, queries and new keys on their way in, scores of a warp's
// block of keys, and sums over all four blocks for a warp's quarter of the channels.
#pragma once
#include "attention_rows.h"
#include "attention_units.h"
#include "softmax_tile.h"

namespace graft::gpu::decoding {

constexpr int32_t kThreadsOfSpan = kSpanBlocks * kWarp, kWeightStride = kSpan + 8;

/// Shared memory of a block.
template <int32_t D>
struct Room {
  static constexpr size_t kTiles = kSpanBlocks * kTileElements<D> * sizeof(uint16_t);
  static constexpr size_t kQueries = kQueryTile * kRowStride<D> * sizeof(uint16_t);
  static constexpr size_t kWeights = kQueryTile * kWeightStride * sizeof(uint16_t);
  static constexpr size_t kFresh = 2 * D * sizeof(uint16_t);
  static constexpr size_t kRows = kSpanBlocks * kQueryTile * sizeof(float);
  static constexpr size_t kFixed = 2 * kTiles + kQueries + kWeights + kFresh + 2 * kRows + (kStretch + 8) * 4;

  uint16_t *keys, *values, *queries, *weights, *fresh;
  float *maxima, *sums;
  int32_t *places, *scratch, *table_rows, *first;

  static constexpr size_t bytes(int32_t sequences) { return kFixed + (2 * sequences + 1) * sizeof(int32_t); }

  __device__ __forceinline__ explicit Room(int32_t sequences) {
    unsigned char* at = shared<unsigned char>();
    const auto take = [&](size_t bytes) { return (at += bytes) - bytes; };
    keys = reinterpret_cast<uint16_t*>(take(kTiles));
    values = reinterpret_cast<uint16_t*>(take(kTiles));
    queries = reinterpret_cast<uint16_t*>(take(kQueries));
    weights = reinterpret_cast<uint16_t*>(take(kWeights));
    fresh = reinterpret_cast<uint16_t*>(take(kFresh));
    maxima = reinterpret_cast<float*>(take(kRows));
    sums = reinterpret_cast<float*>(take(kRows));
    places = reinterpret_cast<int32_t*>(take(kStretch * 4));
    scratch = reinterpret_cast<int32_t*>(take(8 * 4));
    table_rows = reinterpret_cast<int32_t*>(take(sequences * 4));
    first = reinterpret_cast<int32_t*>(at);
  }
};

/// The unit's rows of q, normed and turned, into shared memory.
template <int32_t D>
__device__ __forceinline__ void load_queries(const Attention& a, const Room<D>& room, const Unit& unit,
                                             const QueryRows& rows) {
#pragma unroll
  for (int32_t i = 0; i < kQueryTile / kSpanBlocks; i++) {
    const int32_t at = threadIdx.x / kWarp + i * kSpanBlocks, r = unit.tile * kQueryTile + at;
    float x[D / 32] = {};
    if (rows.holds(r))
      load_head<D>(x, a.q + rows.at(r, a.Hq, D), a.q_norm, a.rope_row(rows.position(r), D), a.norm_eps);
    store_head<D>(room.queries + at * kRowStride<D>, x);
  }
}

/// The new key and value into shared memory, and by one block of those that need them into their page.
template <int32_t D>
__device__ __forceinline__ void load_fresh(const Attention& a, const Room<D>& room, const Unit& unit,
                                           const QueryRows& rows) {
  const int32_t warp = threadIdx.x / kWarp;
  if (warp < 2) return;
  const bool key = warp == 2;
  const int64_t from = (static_cast<int64_t>(rows.first) * a.Hkv + unit.h) * D;
  float x[D / 32];
  if (key)
    load_head<D>(x, a.k + from, a.k_norm, a.rope_row(rows.start, D), a.norm_eps);
  else
    load_head<D>(x, a.v + from, nullptr, nullptr, 0);
  store_head<D>(room.fresh + (key ? 0 : D), x);
  if (unit.tile != 0) return;
  const int32_t to = a.cache_row(a.table(unit.s), rows.start, unit.h);
  if (to >= 0) store_head<D>(static_cast<uint16_t*>(key ? a.k_cache : a.v_cache) + static_cast<int64_t>(to) * D, x);
}

/// One row of a tile by its warp.
template <int32_t D>
__device__ __forceinline__ void put_fresh(uint16_t* row, const uint16_t* fresh) {
  const int32_t lane = threadIdx.x % kWarp;
  if (lane < D / 8) reinterpret_cast<uint4*>(row)[lane] = reinterpret_cast<const uint4*>(fresh)[lane];
}

/// Scores of this warp's block of keys.
template <int32_t D>
__device__ __forceinline__ void score_keys(Scores& scores, const uint32_t (&queries)[D / 16][4], const uint16_t* keys) {
#pragma unroll
  for (int32_t n = 0; n < kKeyBlock / 8; n++)
#pragma unroll
    for (int32_t e = 0; e < 4; e++) scores[n][e] = 0;
#pragma unroll
  for (int32_t k = 0; k < D / 16; k++)
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n += 2) {
      uint32_t even[2], odd[2];
      load_keys(even, odd, keys + n * 8 * kRowStride<D> + k * 16, kRowStride<D>);
      mma(scores[n], queries[k], even);
      mma(scores[n + 1], queries[k], odd);
    }
}

/// Masks this warp's block, which begins at key `first`; its greatest scores for all warps to read.
template <int32_t D>
__device__ __forceinline__ void share_maxima(const Room<D>& room, Scores& scores, const Attention& a, const Unit& unit,
                                             const QueryRows& rows, int32_t first) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const int32_t r = lane / 4 + i * 8;
    if (first + kKeyBlock > rows.start + 1) mask_row(scores, i, rows.position(unit.tile * kQueryTile + r), first);
    const float top = block_maximum(scores, i, a.scale);
    if (lane % 4 == 0) room.maxima[threadIdx.x / kWarp * kQueryTile + r] = top;
  }
}

/// The weights of this warp's block against the greatest score up to it, for all warps to read.
template <int32_t D>
__device__ __forceinline__ void share_weights(const Room<D>& room, Scores& scores, float scale) {
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const int32_t r = lane / 4 + i * 8;
    float top = -INFINITY;
    for (int32_t w = 0; w <= warp; w++) top = fmaxf(top, room.maxima[w * kQueryTile + r]);
    const float sum = weigh_row(scores, i, scale, top);
    if (lane % 4 == 0) room.sums[warp * kQueryTile + r] = sum;
    uint16_t* to = room.weights + r * kWeightStride + warp * kKeyBlock + lane % 4 * 2;
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n++)
      *reinterpret_cast<uint32_t*>(to + n * 8) = to_bf16_pair(scores[n][2 * i], scores[n][2 * i + 1]);
  }
}

/// Sums over the span for this warp's quarter of the channels, block after block.
template <int32_t D>
__device__ __forceinline__ void sum_values(Sums<D / 32>& part, const Room<D>& room, int32_t key_blocks) {
  const int32_t lane = threadIdx.x % kWarp, channel = threadIdx.x / kWarp * (D / kSpanBlocks);
  part.clear();
  for (int32_t j = 0; j < key_blocks; j++) {
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
      const int32_t at = j * kQueryTile + lane / 4 + i * 8;
      part.rescale(i, fmaxf(part.maximum[i], room.maxima[at]), room.sums[at]);
    }
#pragma unroll
    for (int32_t k = 0; k < kKeyBlock; k += 32) {
      uint32_t low[4], high[4];
      load_left(low, room.weights + j * kKeyBlock + k, kWeightStride);
      load_left(high, room.weights + j * kKeyBlock + k + 16, kWeightStride);
      const uint16_t* values = room.values + j * kTileElements<D> + (k + lane) * kRowStride<D> + channel;
#pragma unroll
      for (int32_t n = 0; n < D / 32; n++) {
        uint32_t r[4];
        load_matrices<true>(r, values + n * 8);
        const uint32_t first[2] = {r[0], r[1]}, second[2] = {r[2], r[3]};
        mma(part.values[n], low, first);
        mma(part.values[n], high, second);
      }
    }
  }
}

}  // namespace graft::gpu::decoding
