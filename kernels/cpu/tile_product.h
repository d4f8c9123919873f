// Small matrix products with the accumulators in registers: C[rows, cols] = init + A[rows, depth] B[depth, cols]. Lanes
// run along the columns and an element adds its terms in ascending depth, one fused multiply-add each, so the result
// does not depend on how rows or columns are grouped. A is read one number at a time with any two strides, B in whole
// vectors.
#pragma once
#include "simd.h"

namespace graft {

constexpr int kTileRows = 6;
/// Vectors per row of accumulators: as many as the registers hold beside the operands.
constexpr int tile_vectors(int rows) {
#if defined(__AVX512F__)
  return rows <= 3 ? 8 : 4;
#else
  return rows == 1 ? 8 : rows <= 3 ? 4 : 2;
#endif
}

/// What an accumulator starts from: zero, what C holds, or what C holds times scale[row].
enum class Start { kZero, kAdd, kScale };

/// Columns that lie side by side.
template <class T>
struct Dense {
  const T* first;
  const T* at(int v) const { return first + v * VL; }
  Dense from(int v) const { return {at(v)}; }
};
/// Columns in vectors that lie anywhere (the keys of several cache pages).
template <class T>
struct Scattered {
  const T* const* vectors;
  const T* at(int v) const { return vectors[v]; }
  Scattered from(int v) const { return {vectors + v}; }
};

/// The same, fetching what the next product will read: `ahead` elements on, or the vectors `next`.
template <class T>
struct DenseAhead {
  const T* first;
  int64_t ahead;
  const T* at(int v) const { return first + v * VL; }
  DenseAhead from(int v) const { return {at(v), ahead}; }
  const T* next(int v) const { return at(v) + ahead; }
};
template <class T>
struct ScatteredAhead {
  const T *const *vectors, *const *next_vectors;
  const T* at(int v) const { return vectors[v]; }
  ScatteredAhead from(int v) const { return {vectors + v, next_vectors + v}; }
  const T* next(int v) const { return next_vectors[v]; }
};

struct Operand {
  const float* data;
  int64_t row, depth;  // strides in elements
};

template <Start S, int R, int NV, bool TAIL, class Columns>
__attribute__((always_inline)) inline void register_tile(float* c, int64_t c_row, Operand a, Columns b, int64_t b_depth,
                                                         int depth, const float* scale, int tail) {
  vf sum[R][NV];
  const auto load_c = [&](int r, int v) {
    const float* p = c + r * c_row + v * VL;
    return TAIL && v == NV - 1 ? vload_n(p, tail) : vload(p);
  };
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
      if constexpr (S == Start::kZero)
        sum[r][v] = vzero();
      else if constexpr (S == Start::kAdd)
        sum[r][v] = load_c(r, v);
      else
        sum[r][v] = vmul(load_c(r, v), vset(scale[r]));
    }
  }
  const float* row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) row[r] = a.data + r * a.row;
  decltype(b.at(0)) column[NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; v++) column[v] = b.at(v);
  // Vectors narrower than a cache line are fetched in pairs.
  constexpr int kPair = sizeof(*column[0]) * VL < 64 ? 2 : 1;
  for (int64_t k = 0, ka = 0, kb = 0; k < depth; k++, ka += a.depth, kb += b_depth) {
    if constexpr (requires { b.next(0); }) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; v += kPair) _mm_prefetch(reinterpret_cast<const char*>(b.next(v) + kb), _MM_HINT_T0);
    }
    vf bv[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++)
      bv[v] = TAIL && v == NV - 1 ? load_wide_n(column[v] + kb, tail) : load_wide(column[v] + kb);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const vf av = vset(row[r][ka]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++) sum[r][v] = vfma(av, bv[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
      float* p = c + r * c_row + v * VL;
      if (TAIL && v == NV - 1)
        vstore_n(p, sum[r][v], tail);
      else
        vstore(p, sum[r][v]);
    }
  }
}

template <Start S, int R, int NV, class Columns>
void strips(float*& c, int64_t c_row, Operand a, Columns& b, int64_t b_depth, int& cols, int depth,
            const float* scale) {
  while (cols >= NV * VL) {
    register_tile<S, R, NV, false>(c, c_row, a, b, b_depth, depth, scale, 0);
    c += NV * VL, b = b.from(NV), cols -= NV * VL;
  }
}

template <Start S, int R, class Columns>
void row_tile(float* c, int64_t c_row, Operand a, Columns b, int64_t b_depth, int cols, int depth, const float* scale) {
  constexpr int kMax = tile_vectors(R);
  strips<S, R, kMax>(c, c_row, a, b, b_depth, cols, depth, scale);
  if constexpr (kMax > 4) strips<S, R, 4>(c, c_row, a, b, b_depth, cols, depth, scale);
  if constexpr (kMax > 2) strips<S, R, 2>(c, c_row, a, b, b_depth, cols, depth, scale);
  strips<S, R, 1>(c, c_row, a, b, b_depth, cols, depth, scale);
  if (cols > 0) register_tile<S, R, 1, true>(c, c_row, a, b, b_depth, depth, scale, cols);
}

/// 1 to kTileRows rows of the product; scale[rows] only for Start::kScale.
template <Start S, class Columns>
void tile_product(float* c, int64_t c_row, Operand a, Columns b, int64_t b_depth, int rows, int cols, int depth,
                  const float* scale = nullptr) {
  switch (rows) {
    case 1:
      return row_tile<S, 1>(c, c_row, a, b, b_depth, cols, depth, scale);
    case 2:
      return row_tile<S, 2>(c, c_row, a, b, b_depth, cols, depth, scale);
    case 3:
      return row_tile<S, 3>(c, c_row, a, b, b_depth, cols, depth, scale);
    case 4:
      return row_tile<S, 4>(c, c_row, a, b, b_depth, cols, depth, scale);
    case 5:
      return row_tile<S, 5>(c, c_row, a, b, b_depth, cols, depth, scale);
    default:
      return row_tile<S, 6>(c, c_row, a, b, b_depth, cols, depth, scale);
  }
}

}  // namespace graft
