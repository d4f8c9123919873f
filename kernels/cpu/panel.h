// Panels and tiles: what the serving linear layer and the training products share.
// A panel holds up to kPanel output channels (SIMD lanes) for all input channels, one "step" after the other: a step is
// one float32 channel, or a pair of bfloat16 channels side by side in each 32-bit lane. A tile is R input rows times
// one panel. Each output element has one accumulator that takes the steps in ascending order, so neither the number of
// rows, nor the cut into tiles, blocks of steps or threads changes a bit: partial sums leave the registers as exact
// float32.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd.h"

namespace graft {

constexpr int kPanelVectors = 4;
constexpr int kPanel = kPanelVectors * VL;  // output channels of a full panel
#if defined(__AVX512F__)
constexpr int kTileRows = 6;  // 24 of 32 registers accumulate
#else
constexpr int kTileRows = 3;  // 12 of 16
#endif
constexpr int64_t kBlockSteps = 128;  // steps that stay in the L1 cache while all rows pass: 32 KiB (AVX2: 16 KiB)

/// Channels of panel `p` padded to whole vectors: all panels are kPanel wide but the last.
inline int panel_width(int64_t channels, int64_t p) {
  const int64_t rest = channels - p * kPanel;
  return rest >= kPanel ? kPanel : static_cast<int>((rest + VL - 1) / VL * VL);
}
inline int64_t num_panels(int64_t channels) { return (channels + kPanel - 1) / kPanel; }

/// One call of a tile kernel. Strides count elements.
struct Tile {
  const void* a;             // input rows: float, or bfloat16 pairs as uint32
  int64_t a_row, a_step;     // from row to row, from step to step
  const void* b;             // first step of the panel
  int64_t b_step;            // panel width
  int64_t steps;             //
  const float* from;         // partial sums to go on from; NULL: zero
  float* to;                 // partial or final sums
  int64_t from_row, to_row;  //
  int cols;                  // columns of `from` and `to` that exist
  const float* bias;         // added at the end; may be NULL
  const float* residual;     // added after the bias, laid out like `to`; may be NULL
  const char* ahead;         // memory that will be needed next, fetched meanwhile
  int64_t ahead_step;        // its bytes from step to step: 0 (nothing to fetch), 64 or 128
};

/// acc[r][v] += a[r * a_row] * weight(v), in the order that keeps the smaller operand in registers.
template <int R, int V, class F>
inline void multiply(vf (&acc)[R][V], const float* a, int64_t a_row, F&& weight) {
  if constexpr (R > V) {
    vf w[V];
    for (int v = 0; v < V; v++) w[v] = weight(v);
    for (int r = 0; r < R; r++) {
      const vf x = vset(a[r * a_row]);
      for (int v = 0; v < V; v++) acc[r][v] = vfma(x, w[v], acc[r][v]);
    }
  } else {
    vf x[R];
    for (int r = 0; r < R; r++) x[r] = vset(a[r * a_row]);
    for (int v = 0; v < V; v++) {
      const vf w = weight(v);
      for (int r = 0; r < R; r++) acc[r][v] = vfma(x[r], w, acc[r][v]);
    }
  }
}

/// float32 rows times float32 weights.
struct Float32 {
  using Input = float;
  using Weight = float;
  template <int R, int V>
  static inline void step(vf (&acc)[R][V], const float* a, int64_t a_row, const float* b) {
    multiply(acc, a, a_row, [b](int v) { return vload(b + v * VL); });
  }
};

#if defined(__AVX512BF16__)
/// Pairs of bfloat16 through the dot-product unit.
struct Bfloat16 {
  using Input = uint32_t;
  using Weight = uint32_t;
  template <int R, int V>
  static inline void step(vf (&acc)[R][V], const uint32_t* a, int64_t a_row, const uint32_t* b) {
    __m512bh w[V];
    for (int v = 0; v < V; v++) w[v] = (__m512bh)_mm512_loadu_si512(b + v * VL);
    for (int r = 0; r < R; r++) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r * a_row]));
      for (int v = 0; v < V; v++) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], x, w[v]);
    }
  }
};
#else
/// bfloat16 weights widened in registers; the input rows are float32 that hold bfloat16 values.
struct Bfloat16 {
  using Input = float;
  using Weight = uint32_t;
  template <int R, int V>
  static inline void step(vf (&acc)[R][V], const float* a, int64_t a_row, const uint32_t* b) {
    multiply(acc, a, a_row, [b](int v) { return low(b + v * VL); });
    asm("" : "+r"(b));  // load the words again: keeping them would take registers from the sums
    multiply(acc, a + 1, a_row, [b](int v) { return high(b + v * VL); });
  }

 private:
#if defined(__AVX512F__)
  static inline vf low(const uint32_t* p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16)); }
  static inline vf high(const uint32_t* p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(-0x10000)));
  }
#else
  static inline vf low(const uint32_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i*)p), 16));
  }
  static inline vf high(const uint32_t* p) {  // the mask stays in memory, again for the sake of registers
    alignas(32) static const int32_t mask[8] = {-65536, -65536, -65536, -65536, -65536, -65536, -65536, -65536};
    const __m256i top = *reinterpret_cast<const volatile __m256i*>(mask);
    return _mm256_castsi256_ps(_mm256_and_si256(top, _mm256_loadu_si256((const __m256i*)p)));
  }
#endif
};
#endif

template <class Kind, int R, int V>
void run_tile(const Tile& t) {
  vf acc[R][V];
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++)
      acc[r][v] = t.from ? load_part(t.from + r * t.from_row + v * VL, t.cols - v * VL) : vzero();
  const auto* a = static_cast<const typename Kind::Input*>(t.a);
  const auto* b = static_cast<const typename Kind::Weight*>(t.b);
  const int64_t a_row = t.a_row, a_step = t.a_step, b_step = t.b_step;
  const char* ahead = t.ahead ? t.ahead : static_cast<const char*>(t.b);
  const int64_t ahead_step = t.ahead_step;
#pragma GCC unroll 4
  for (int64_t i = 0; i < t.steps; i++, a += a_step, b += b_step, ahead += ahead_step) {
    _mm_prefetch(ahead, _MM_HINT_T0);
    _mm_prefetch(ahead + 64, _MM_HINT_T0);
    Kind::template step<R, V>(acc, a, a_row, b);
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) {
      const int lanes = t.cols - v * VL;
      if (t.bias) acc[r][v] = vadd(acc[r][v], load_part(t.bias + v * VL, lanes));
      if (t.residual) acc[r][v] = vadd(acc[r][v], load_part(t.residual + r * t.to_row + v * VL, lanes));
      store_part(t.to + r * t.to_row + v * VL, acc[r][v], lanes);
    }
}

/// The kernel for `rows` 1..kTileRows and a panel of `width` channels.
template <class Kind>
auto tile_kernel(int rows, int width) -> void (*)(const Tile&) {
  static_assert(kPanelVectors == 4 && (kTileRows == 3 || kTileRows == 6));
#define GRAFT_ROW(R) \
  { run_tile<Kind, R, 1>, run_tile<Kind, R, 2>, run_tile<Kind, R, 3>, run_tile<Kind, R, 4> }
  static constexpr void (*table[kTileRows][kPanelVectors])(const Tile&) = {
    GRAFT_ROW(1),
    GRAFT_ROW(2),
    GRAFT_ROW(3),
#if defined(__AVX512F__)
    GRAFT_ROW(4),
    GRAFT_ROW(5),
    GRAFT_ROW(6),
#endif
  };
#undef GRAFT_ROW
  return table[rows - 1][width / VL - 1];
}

/// Calls f(number, first, rows) for `n` rows cut into tiles of nearly equal height.
template <class F>
inline void for_tiles(int64_t n, F&& f) {
  const int64_t tiles = (n + kTileRows - 1) / kTileRows, base = n / tiles, longer = n % tiles;
  for (int64_t i = 0, first = 0; i < tiles; i++) {
    const int rows = static_cast<int>(base + (i < longer));
    f(i, first, rows);
    first += rows;
  }
}

/// Transposes 8 rows of 8 32-bit words.
inline void transpose_8x8(const char* src, int64_t row_bytes, uint32_t* dst, int64_t dst_row) {
  __m256 r[8], s[8];
  for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(src + i * row_bytes));
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      r[i + 2 * j] = _mm256_shuffle_ps(s[i + j], s[i + j + 2], 0x44);
      r[i + 2 * j + 1] = _mm256_shuffle_ps(s[i + j], s[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; i++) {
    _mm256_storeu_ps(reinterpret_cast<float*>(dst + i * dst_row), _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(reinterpret_cast<float*>(dst + (i + 4) * dst_row), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

/// Panel steps from row-major weights: dst[step][width] = 32-bit word `step` of each of `rows` rows, zero beyond them.
inline void pack_words(uint32_t* dst, int width, const void* src, int64_t row_bytes, int rows, int64_t steps) {
  const char* from = static_cast<const char*>(src);
  const int64_t full_steps = steps / 8 * 8;
  const int full_rows = rows / 8 * 8;
  const auto word = [&](int64_t step, int row) {
    std::memcpy(dst + step * width + row, from + row * row_bytes + step * 4, 4);
  };
  for (int64_t step = 0; step < full_steps; step += 8)
    for (int row = 0; row < full_rows; row += 8)
      transpose_8x8(from + row * row_bytes + step * 4, row_bytes, dst + step * width + row, width);
  for (int row = full_rows; row < rows; row++)
    for (int64_t step = 0; step < full_steps; step++) word(step, row);
  for (int64_t step = full_steps; step < steps; step++)
    for (int row = 0; row < rows; row++) word(step, row);
  if (rows < width)
    for (int64_t step = 0; step < steps; step++) std::fill(dst + step * width + rows, dst + (step + 1) * width, 0u);
}

}  // namespace graft
