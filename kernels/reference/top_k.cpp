// The most likely ids of a row, lowest first among equals, and their log-probabilities, by sorting the whole row.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "graft.h"
#include "logit_row.h"
#include "sampling_checks.h"

extern "C" int32_t graft_top_k(int32_t* ids, float* logprob, const float* logits, const int32_t* counts, int32_t N,
                               int32_t V, int32_t K) {
  GRAFT_TRY(graft::check_top_k(ids, logprob, logits, counts, N, V, K));
  std::vector<int32_t> order(V);
  for (int64_t i = 0; i < N; i++) {
    if (counts[i] == 0) continue;
    const float* x = logits + i * V;
    const int32_t best = graft::best_of(x, V);
    std::iota(order.begin(), order.end(), 0);
    if (best >= 0) std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return x[a] > x[b]; });
    const double log_sum = best < 0 ? std::numeric_limits<double>::quiet_NaN() : graft::log_sum_exp(x, V);
    for (int32_t j = 0; j < counts[i]; j++) {
      ids[i * K + j] = best < 0 ? best : order[j];
      logprob[i * K + j] = float(x[order[j]] - log_sum);
    }
  }
  return GRAFT_OK;
}
