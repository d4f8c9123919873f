// One row of logits: where its maximum is, or why it has no answer, and the logarithm of its sum of exponentials.
#pragma once
#include <cmath>
#include <cstdint>

#include "graft.h"

namespace graft {

/// The lowest index of the maximum, or a graft_row.
inline int32_t best_of(const float* x, int32_t V) {
  int32_t best = 0;
  for (int32_t c = 0; c < V; c++) {
    if (std::isnan(x[c])) return GRAFT_ROW_BROKEN;
    if (x[c] > x[best]) best = c;
  }
  if (std::isfinite(x[best])) return best;
  return x[best] > 0 ? GRAFT_ROW_BROKEN : GRAFT_ROW_EMPTY;
}

/// Of a row that has an answer.
inline double log_sum_exp(const float* x, int32_t V) {
  const double max = x[best_of(x, V)];
  double sum = 0;
  for (int32_t c = 0; c < V; c++) sum += std::exp(x[c] - max);
  return max + std::log(sum);
}

}  // namespace graft
