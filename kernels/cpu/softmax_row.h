// The maximum and the sum of exponentials of rows of logits, chunk by chunk: chunks are cut at fixed places and merged
// in ascending order, so that threads change nothing. NaN never is the maximum; it is reported.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "graft.h"
#include "rows.h"
#include "threads.h"

namespace graft {

constexpr int64_t kLogitChunk = 8192;
constexpr int64_t kExactRun = 1024;  // elements summed in float32 before they join a double

struct RowStats {
  float max = -std::numeric_limits<float>::infinity();
  int32_t argmax = -1;  // lowest index of the maximum; -1: all NaN
  double sum = 0;       // sum of exp(x - max)
  bool nan = false;

  /// The argmax, or why there is none: a graft_row.
  int32_t answer() const {
    if (nan || max == std::numeric_limits<float>::infinity()) return GRAFT_ROW_BROKEN;
    return max == -std::numeric_limits<float>::infinity() ? int32_t(GRAFT_ROW_EMPTY) : argmax;
  }
  /// Of a logit of this row, NaN where the row has no answer.
  float log_prob(float logit) const {
    return answer() < 0 ? std::numeric_limits<float>::quiet_NaN() : float(double(logit) - max - std::log(sum));
  }
};

/// Bit i set where lane i of the mask is.
inline uint32_t vbits(vmask m) {
#if defined(__AVX512F__)
  return m;
#else
  return uint32_t(_mm256_movemask_ps(m));
#endif
}

inline vmask vis_nan(vf a) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
#else
  return _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
#endif
}

/// Sum of exp(x[i] - max) over n elements.
inline double sum_exp(const float* x, int64_t n, float max) {
  double sum = 0;
  const vf m = vset(max);
  for (int64_t i = 0; i < n; i += kExactRun)
    sum += row_sum(int(std::min(kExactRun, n - i)), [&](vf a, int at, int lanes) {
      const vf e = vexp(vsub(load_part(x + i + at, lanes), m));
      return vadd(a, lanes == VL ? e : vselect(vfirst(lanes), e, vzero()));
    });
  return sum;
}

/// The lowest index of a value in n elements; -1: nowhere.
inline int64_t first_equal(const float* x, int64_t n, float value) {
  const vf v = vset(value);
  for (int64_t i = 0; i < n; i += VL) {
    const int lanes = int(std::min<int64_t>(VL, n - i));
    uint32_t bits = ~vbits(vless(load_part(x + i, lanes), v)) & ((1u << lanes) - 1);  // NaN is not less
    for (; bits; bits &= bits - 1)
      if (const int64_t at = i + __builtin_ctz(bits); x[at] == value) return at;
  }
  return -1;
}

inline RowStats chunk_stats(const float* x, int64_t n, bool with_sum) {
  RowStats stats;
  uint32_t nan = 0;
  vf max = vset(stats.max);
  vloop(n, [&](int64_t i, int lanes) {
    const vf loaded = load_part(x + i, lanes);
    const vf v = lanes == VL ? loaded : vselect(vfirst(lanes), loaded, vset(stats.max));
    nan |= vbits(vis_nan(v));
    max = vmax(v, max);  // the second operand where the first is NaN
  });
  stats.max = vmax_lanes(max);
  stats.nan = nan != 0;
  stats.argmax = int32_t(first_equal(x, n, stats.max));
  if (with_sum && stats.argmax >= 0 && !std::isinf(stats.max)) stats.sum = sum_exp(x, n, stats.max);
  return stats;
}

/// Stats of chunk number `chunk` of a row of V.
inline RowStats row_chunk_stats(const float* row, int64_t V, int64_t chunk, bool with_sum) {
  const int64_t first = chunk * kLogitChunk;
  RowStats stats = chunk_stats(row + first, std::min(kLogitChunk, V - first), with_sum);
  if (stats.argmax >= 0) stats.argmax += int32_t(first);
  return stats;
}

/// Stats of a row from those of its chunks.
inline RowStats merged(const RowStats* chunks, int64_t count) {
  RowStats total;
  for (int64_t i = 0; i < count; i++) {
    const RowStats& part = chunks[i];
    total.nan |= part.nan;
    if (part.argmax >= 0 && (total.argmax < 0 || part.max > total.max)) {
      total.max = part.max;
      total.argmax = part.argmax;
    }
  }
  for (int64_t i = 0; i < count; i++)
    if (chunks[i].sum > 0) total.sum += chunks[i].sum * std::exp(double(chunks[i].max) - total.max);
  if (total.nan) total.sum = std::numeric_limits<double>::quiet_NaN();
  return total;
}

/// Stats of every row into stats[N]. `chunks` is room for N * ceil(V / kLogitChunk) more.
inline void row_stats(RowStats* stats, RowStats* chunks, const float* logits, int64_t N, int64_t V, bool with_sum) {
  const int64_t count = (V + kLogitChunk - 1) / kLogitChunk;
  parallel_ranges(N * count, row_grain(std::min(V, kLogitChunk)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) chunks[i] = row_chunk_stats(logits + i / count * V, V, i % count, with_sum);
  });
  for (int64_t row = 0; row < N; row++) stats[row] = merged(chunks + row * count, count);
}

}  // namespace graft
