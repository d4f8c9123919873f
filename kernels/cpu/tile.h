// Small matrix products whose operands lie in the L1/L2 cache, the building block of the linear-attention kernels.
//   C[i, j] = init(C)[i, j] + sum_k A(i, k) B[k, j]       A(i, k) = a[i*am + k*ak],  B row-major with stride ldb
// Every element is one chain of fused multiply-adds in ascending k, whatever the blocking, the number of rows in the
// call or the columns beside it: computing one row or many gives the same bits. Lanes run along j; rows of B can be
// read up to the next multiple of VL columns, C is written for `columns` columns only. B and C are float32 or bfloat16;
// sums are float32 and rounded once, when they are stored.
#pragma once
#include <algorithm>

#include "simd.h"

namespace graft {

/// Columns padded to whole vectors.
inline int padded(int columns) { return (columns + VL - 1) / VL * VL; }

enum class Init {
  kZero,
  kAdd,           // the old C
  kScaleRows,     // the old C, row i times scale[i]
  kScaleColumns,  // the old C, column j times scale[j] (readable up to whole vectors)
};

template <class C = float, class B = float, class Old = C>
struct Product {
  C* c;
  int64_t ldc;
  const float* a;
  int64_t am, ak;
  const B* b;
  int64_t ldb;
  int rows, columns, depth;
  Init init = Init::kZero;
  const float* scale = nullptr;
  bool growing = false;      // row i takes depth + i terms (causal rows)
  const Old* old = nullptr;  // where the old C lies, rows ld_old apart; NULL: in C itself
  int64_t ld_old = 0;
  int64_t ahead = 0;  // bytes from B to what is read next and fetched meanwhile; 0: nothing
};

namespace tile {

/// Fetches NV vectors' worth of cache lines into the L2 cache: the L1 cache holds one state, not two.
template <int NV, class T>
inline void fetch(const T* p, int64_t ahead) {
  const char* at = reinterpret_cast<const char*>(p) + ahead;
#pragma GCC unroll 8
  for (int line = 0; line < NV * VL * static_cast<int>(sizeof(T)); line += 64) _mm_prefetch(at + line, _MM_HINT_T1);
}

/// Vector v of a row of C, whose last vector holds `lanes` columns.
template <int NV, class T>
inline vf load_c(const T* from, int v, int lanes) {
  return v + 1 < NV || lanes == VL ? load_wide(from + v * VL) : load_wide_n(from + v * VL, lanes);
}

/// Rows from `c` on, scaled where the product says so.
template <int MR, int NV, class P, class T>
inline void start_from(vf (&acc)[MR][NV], const P& p, const T* c, int64_t ld, int i, int j, int lanes) {
#pragma GCC unroll 32
  for (int e = 0; e < MR * NV; e++) acc[e / NV][e % NV] = load_c<NV>(c + e / NV * ld, e % NV, lanes);
  if (p.init == Init::kScaleRows) {
#pragma GCC unroll 32
    for (int e = 0; e < MR * NV; e++) acc[e / NV][e % NV] = vmul(acc[e / NV][e % NV], vset(p.scale[i + e / NV]));
  } else if (p.init == Init::kScaleColumns) {
#pragma GCC unroll 32
    for (int e = 0; e < MR * NV; e++) acc[e / NV][e % NV] = vmul(acc[e / NV][e % NV], vload(p.scale + j + e % NV * VL));
  }
}

template <int MR, int NV, class P>
inline void start(vf (&acc)[MR][NV], const P& p, int i, int j, int lanes) {
  if (p.init == Init::kZero) {
#pragma GCC unroll 32
    for (int e = 0; e < MR * NV; e++) acc[e / NV][e % NV] = vzero();
    return;
  }
  if (p.old != nullptr)
    start_from(acc, p, p.old + i * p.ld_old + j, p.ld_old, i, j, lanes);
  else
    start_from(acc, p, p.c + i * p.ldc + j, p.ldc, i, j, lanes);
}

/// MR rows from row i and NV vectors of columns from column j; `lanes` are left in the last one.
template <int MR, int NV, class P>
void block(const P& p, int i, int j, int lanes) {
  vf acc[MR][NV];
  start(acc, p, i, j, lanes);
  const int64_t am = p.am, ak = p.ak, ldb = p.ldb;
  const float* a = p.a + i * am;
  const auto* b = p.b + j;
  const int depth = p.depth + (p.growing ? i : 0);
#pragma GCC unroll 2
  for (int k = 0; k < depth; k++, a += ak, b += ldb) {
    if (p.ahead != 0) fetch<NV>(b, p.ahead);
    vf row[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) row[v] = load_wide(b + v * VL);
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++) {
      const vf x = vset(a[r * am]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++) acc[r][v] = vfma(x, row[v], acc[r][v]);
    }
  }
  if (p.growing) {
#pragma GCC unroll 8
    for (int e = 1; e < MR; e++, a += ak, b += ldb)
#pragma GCC unroll 8
      for (int r = e; r < MR; r++)
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) acc[r][v] = vfma(vset(a[r * am]), load_wide(b + v * VL), acc[r][v]);
  }
  auto* c = p.c + i * p.ldc + j;
#pragma GCC unroll 8
  for (int r = 0; r < MR; r++, c += p.ldc) {
#pragma GCC unroll 8
    for (int v = 0; v + 1 < NV; v++) store_narrow(c + v * VL, acc[r][v]);
    if (lanes == VL)
      store_narrow(c + (NV - 1) * VL, acc[r][NV - 1]);
    else
      store_narrow_n(c + (NV - 1) * VL, acc[r][NV - 1], lanes);
  }
}

/// All rows of NV vectors of columns, MR at a time.
template <int MR, int NV, class P>
void column_panel(const P& p, int j, int lanes) {
  int i = 0;
  for (; i + MR <= p.rows; i += MR) block<MR, NV>(p, i, j, lanes);
  if constexpr (MR > 4)
    for (; i + 4 <= p.rows; i += 4) block<4, NV>(p, i, j, lanes);
  if constexpr (MR > 2)
    for (; i + 2 <= p.rows; i += 2) block<2, NV>(p, i, j, lanes);
  if constexpr (MR > 1)
    if (i < p.rows) block<1, NV>(p, i, j, lanes);
}

template <int MR, int NV, class P>
void last_panel(const P& p, int v, int vectors) {
  if (vectors - v == NV) return column_panel<MR, NV>(p, v * VL, p.columns - (vectors - 1) * VL);
  if constexpr (NV > 1) last_panel<MR, NV - 1>(p, v, vectors);
}

template <int MR, int NV, class P>
void panels(const P& p) {
  const int vectors = (p.columns + VL - 1) / VL;
  int v = 0;
  for (; v + NV < vectors; v += NV) column_panel<MR, NV>(p, v * VL, VL);
  last_panel<MR, NV>(p, v, vectors);
}

}  // namespace tile

/// A multiply-add takes about four cycles and two can start in each: eight sums must be under way, so that few rows
/// take wide panels of columns.
template <class C, class B, class Old>
void multiply(const Product<C, B, Old>& p) {
#if defined(__AVX512F__)
  if (p.rows <= 2) return tile::panels<2, 8>(p);
  tile::panels<6, 4>(p);
#else
  if (p.rows == 1) return tile::panels<1, 8>(p);
  if (p.rows == 2) return tile::panels<2, 4>(p);
  tile::panels<6, 2>(p);
#endif
}

inline void multiply(const Product<>& p) { multiply<float, float, float>(p); }

/// The sums of four vectors, each over the same tree of lanes.
inline __m128 vsum4(vf a, vf b, vf c, vf d) {
#if defined(__AVX512F__)
  const __m256 a8 = _mm256_add_ps(vhalf_low(a), vhalf_high(a)), b8 = _mm256_add_ps(vhalf_low(b), vhalf_high(b));
  const __m256 c8 = _mm256_add_ps(vhalf_low(c), vhalf_high(c)), d8 = _mm256_add_ps(vhalf_low(d), vhalf_high(d));
#else
  const __m256 a8 = a, b8 = b, c8 = c, d8 = d;
#endif
  const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a8, b8), _mm256_hadd_ps(c8, d8));
  return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

/// out[s] = sum_c x[c] rows[s, c] for s < count; `width` whole vectors of floats, zeros in the padding.
template <class T>
inline void dots(float* out, const float* x, const T* rows, int64_t ld, int count, int width, int64_t ahead = 0) {
  for (int s = 0; s < count; s += 4) {
    const int many = count - s < 4 ? count - s : 4;
    const T* r0 = rows + s * ld;
    const T *r1 = many > 1 ? r0 + ld : r0, *r2 = many > 2 ? r1 + ld : r0, *r3 = many > 3 ? r2 + ld : r0;
    vf a = vzero(), b = vzero(), c = vzero(), d = vzero();
    for (int i = 0; i < width; i += VL) {
      if (ahead != 0)
        for (const T* r : {r0, r1, r2, r3}) tile::fetch<1>(r + i, ahead);
      const vf y = vload(x + i);
      a = vfma(y, load_wide(r0 + i), a);
      b = vfma(y, load_wide(r1 + i), b);
      c = vfma(y, load_wide(r2 + i), c);
      d = vfma(y, load_wide(r3 + i), d);
    }
    alignas(16) float sums[4];
    _mm_store_ps(sums, vsum4(a, b, c, d));
    for (int j = 0; j < many; j++) out[s + j] = sums[j];
  }
}

namespace tile {
/// Transposes a VL x VL block: dst[j*ld_dst + i] = src[i*ld_src + j].
inline void transpose_block(float* dst, int64_t ld_dst, const float* src, int64_t ld_src) {
#if defined(__AVX512F__)
  __m512 r[16], t[16];
  for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(src + i * ld_src);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    _mm512_storeu_ps(dst + i * ld_dst, _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88));
    _mm512_storeu_ps(dst + (4 + i) * ld_dst, _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88));
    _mm512_storeu_ps(dst + (8 + i) * ld_dst, _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd));
    _mm512_storeu_ps(dst + (12 + i) * ld_dst, _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd));
  }
#else
  __m256 r[8], t[8];
  for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(src + i * ld_src);
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    _mm256_storeu_ps(dst + i * ld_dst, _mm256_permute2f128_ps(r[i], r[4 + i], 0x20));
    _mm256_storeu_ps(dst + (4 + i) * ld_dst, _mm256_permute2f128_ps(r[i], r[4 + i], 0x31));
  }
#endif
}
}  // namespace tile

/// dst[j, i] = src[i, j] for i < rows, j < columns, both rounded up to whole vectors: both buffers are padded to that.
inline void transpose(float* dst, int64_t ld_dst, const float* src, int64_t ld_src, int rows, int columns) {
  for (int i = 0; i < rows; i += VL)
    for (int j = 0; j < columns; j += VL)
      tile::transpose_block(dst + j * ld_dst + i, ld_dst, src + i * ld_src + j, ld_src);
}

/// `rows` rows of `columns` floats into rows of padded(columns), zeros behind.
template <class T>
inline void copy_padded(T* dst, const float* src, int64_t ld_src, int rows, int columns) {
  const int width = padded(columns);
  for (int i = 0; i < rows; i++, dst += width, src += ld_src) {
    int j = 0;
    for (; j + VL <= columns; j += VL) store_narrow(dst + j, vload(src + j));
    if (j < columns) store_narrow(dst + j, vload_n(src + j, columns - j));
  }
}

/// Floats that hold n numbers of type T, in whole cache lines.
template <class T>
int64_t line_floats(int64_t n) {
  return (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 16;
}

/// Bump allocation inside one scratch buffer; every piece starts on a 64-byte line. A null base only counts.
class Scratch {
 public:
  explicit Scratch(float* base) : base_(base) {}
  float* floats(int64_t n) {
    float* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (n + 15) / 16 * 16;
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

}  // namespace graft
