// Online softmax of a set of query rows that share one key/value head, over keys cut into blocks and spans at absolute
// positions. One update per block in ascending order, a fresh start per span, spans merged in ascending order: what a
// row gets does not depend on the rows beside it, on how a prompt was cut, or on the threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "rows.h"
#include "tile_product.h"

namespace graft {

constexpr int kBlock = 64;  // keys per softmax update
constexpr int kSpan = 512;  // keys per part that a thread may take alone
constexpr int kKeyVectors = kBlock / VL;

/// Where one block of keys lies: vectors of VL keys with `key_depth` elements from one channel to the next, and runs of
/// value rows.
template <class T>
struct Block {
  const T* keys[kKeyVectors];
  const T* next_keys[kKeyVectors];  // those of the next block, or the same again
  int64_t key_depth;
  struct Run {
    const T* values;  // [count, D]
    int count;
    int64_t ahead;  // elements from here to the next block's run, or 0
  } runs[kBlock];
  int num_runs;
};

/// Rows [position, head of the group], positions ascending. q is already scaled.
struct QueryRows {
  int count, group, D;
  int64_t first_position;
  float *q, *o;      // [count, D]; o = sum of p v of the span so far
  float *max, *sum;  // [count]
  int64_t position(int row) const { return first_position + row / group; }
};

/// o[rows, D] = o * scale (if given) + p values, `depth` of the run's rows.
template <bool AHEAD, class Run>
void add_values(float* o, Operand p, const Run& run, int rows, int D, int depth, const float* scale) {
  using T = std::remove_cvref_t<decltype(*run.values)>;
  const auto product = [&](auto values) {
    if (scale)
      tile_product<Start::kScale>(o, D, p, values, D, rows, D, depth, scale);
    else
      tile_product<Start::kAdd>(o, D, p, values, D, rows, D, depth);
  };
  if constexpr (AHEAD)
    product(DenseAhead<T>{run.values, run.ahead});
  else
    product(Dense<T>{run.values});
}

/// One more block for `rows` <= kTileRows rows from `first`, whose visible keys of the block are the first
/// visible[row].
/// `AHEAD` fetches the next block meanwhile.
template <bool AHEAD, class T>
void update_tile(const QueryRows& all, int first, int rows, const int* visible, const Block<T>& block) {
  alignas(64) float p[kTileRows][kBlock];
  alignas(64) float change[VL] = {}, fresh[VL] = {};
  const int fewest = *std::min_element(visible, visible + rows), most = *std::max_element(visible, visible + rows);
  const int vectors = (most + VL - 1) / VL;
  const int64_t D = all.D;
  const Operand q{all.q + first * D, D, 1};
  if constexpr (AHEAD)
    tile_product<Start::kZero>(p[0], kBlock, q, ScatteredAhead<T>{block.keys, block.next_keys}, block.key_depth, rows,
                               vectors * VL, all.D);
  else
    tile_product<Start::kZero>(p[0], kBlock, q, Scattered<T>{block.keys}, block.key_depth, rows, vectors * VL, all.D);
  for (int r = 0; r < rows; r++) {
    vf max = vset(-INFINITY);
    for (int v = 0; v < vectors; v++) {
      const int left = visible[r] - v * VL;
      vf s = vload(p[r] + v * VL);
      if (left < VL) s = vselect(vfirst(std::max(left, 0)), s, vset(-INFINITY));
      max = vmax(s, max);
    }
    fresh[r] = std::max(all.max[first + r], vmax_lanes(max));
    change[r] = all.max[first + r] - fresh[r];
  }
  vstore(change, vexp(vload(change)));
  for (int r = 0; r < rows; r++) {
    const vf max = vset(fresh[r]);
    vf sum = vzero();
    for (int v = 0; v < vectors; v++) {
      const int left = visible[r] - v * VL;
      vf e = vexp(vsub(vload(p[r] + v * VL), max));
      if (left < VL) e = vselect(vfirst(std::max(left, 0)), e, vzero());
      vstore(p[r] + v * VL, e);
      sum = vadd(sum, e);
    }
    all.max[first + r] = fresh[r];
    all.sum[first + r] = all.sum[first + r] * change[r] + vsum(sum);
  }
  float* o = all.o + first * D;
  for (int i = 0, at = 0; i < block.num_runs && (i == 0 || at < fewest); at += block.runs[i++].count) {
    const int depth = std::clamp(fewest - at, 0, block.runs[i].count);
    add_values<AHEAD>(o, Operand{p[0] + at, kBlock, 1}, block.runs[i], rows, all.D, depth, i == 0 ? change : nullptr);
  }
  if (fewest == most) return;
  for (int r = 0; r < rows; r++)  // the keys that only later rows of the tile see
    for (int i = 0, at = 0; i < block.num_runs && at < visible[r]; at += block.runs[i++].count) {
      const int from = std::max(at, fewest), to = std::min(at + block.runs[i].count, visible[r]);
      if (from >= to) continue;
      const Dense<T> values{block.runs[i].values + (from - at) * D};
      tile_product<Start::kAdd>(o + r * D, D, Operand{p[r] + from, kBlock, 1}, values, D, 1, all.D, to - from);
    }
}

/// All blocks of the span that starts at key `begin`, for all rows. block_at(first key, number of visible keys, the
/// same of the block after it).
template <class BlockAt>
void attend_span(const QueryRows& rows, int64_t begin, BlockAt&& block_at) {
  std::fill(rows.max, rows.max + rows.count, -INFINITY);
  std::fill(rows.sum, rows.sum + rows.count, 0.f);
  std::fill(rows.o, rows.o + int64_t(rows.count) * rows.D, 0.f);
  const int64_t end = std::min<int64_t>(begin + kSpan, rows.position(rows.count - 1) + 1);
  const auto visible_of = [&](int row, int64_t key) {
    return int(std::clamp<int64_t>(rows.position(row) - key + 1, 0, kBlock));
  };
  // Tiles of nearly equal height: 8 rows go as 4 + 4.
  const int tiles = (rows.count + kTileRows - 1) / kTileRows, height = (rows.count + tiles - 1) / tiles;
  const bool fetches = tiles == 1 || rows.count == rows.group;  // decode waits for memory, prefill for arithmetic
  for (int64_t key = begin; key < end; key += kBlock) {
    const int after = key + kBlock < end ? visible_of(rows.count - 1, key + kBlock) : 0;
    const auto& block = block_at(key, visible_of(rows.count - 1, key), after);
    for (int first = 0; first < rows.count; first += height) {
      const int count = std::min(height, rows.count - first);
      int visible[kTileRows];
      for (int r = 0; r < count; r++) visible[r] = visible_of(first + r, key);
      if (fetches && first == 0)
        update_tile<true>(rows, first, count, visible, block);
      else if (visible[count - 1] > 0)
        update_tile<false>(rows, first, count, visible, block);
    }
  }
}

/// One row's softmax so far: o is relative to max and not yet divided by sum. A sum of 0 is a row without keys.
struct Partial {
  float *max, *sum, *o;
};

inline void merge(const Partial& total, const Partial& part, int D) {
  if (*part.sum == 0) return;
  if (*total.sum == 0) {
    *total.max = *part.max;
    *total.sum = *part.sum;
    std::copy(part.o, part.o + D, total.o);
    return;
  }
  const float max = std::max(*total.max, *part.max);
  const vf keep = vexp(vset(*total.max - max)), add = vexp(vset(*part.max - max));
  vloop(D, [&](int64_t d, int n) {
    store_part(total.o + d, vfma(load_part(part.o + d, n), add, vmul(load_part(total.o + d, n), keep)), n);
  });
  alignas(64) float factors[2][VL];
  vstore(factors[0], keep);
  vstore(factors[1], add);
  *total.sum = *total.sum * factors[0][0] + *part.sum * factors[1][0];
  *total.max = max;
}

}  // namespace graft
