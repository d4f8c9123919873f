// Loops over one row of C floats: sums whose order depends on C alone, and the rows of a task.
#pragma once
#include <algorithm>

#include "simd.h"

namespace graft {

/// Sum over the row of term(i, lanes) added by fma(accumulator, i, lanes) -> accumulator: four chains, then one tree.
template <class F>
inline float row_sum(int C, F&& fma) {
  vf a = vzero(), b = vzero(), c = vzero(), d = vzero();
  int i = 0;
  for (; i + 4 * VL <= C; i += 4 * VL) {
    a = fma(a, i, VL);
    b = fma(b, i + VL, VL);
    c = fma(c, i + 2 * VL, VL);
    d = fma(d, i + 3 * VL, VL);
  }
  for (; i + VL <= C; i += VL) a = fma(a, i, VL);
  if (i < C) b = fma(b, i, C - i);
  return vsum(vadd(vadd(a, b), vadd(c, d)));
}

/// Rows per task so that a task is worth starting; only speed depends on it.
inline int64_t row_grain(int64_t C, int64_t elements = 16384) {
  return std::max<int64_t>(1, elements / std::max<int64_t>(1, C));
}

}  // namespace graft
