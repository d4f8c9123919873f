// One token per row. Weights w = exp((x - max) / temperature); then, in this order: top_k keeps the k largest; top_p
// keeps the shortest prefix of them, largest first, that holds at least top_p of their sum; min_p keeps w >= min_p (the
// largest w is 1). Equal logits rank by lower index. The token is the first, by index, whose running sum of kept
// weights exceeds u times their total. Temperatures under 1e-5 mean argmax.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "decimal.h"
#include "graft.h"
#include "logit_row.h"
#include "philox.h"
#include "sampling_checks.h"

namespace {

constexpr float kGreedy = 1e-5f;

int32_t draw(const float* x, int32_t V, const graft_sampling& s, int32_t best) {
  std::vector<double> w(V);
  std::vector<int32_t> order(V);
  for (int32_t i = 0; i < V; i++) {
    w[i] = std::exp((double(x[i]) - x[best]) / s.temperature);
    order[i] = i;
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return x[a] > x[b]; });
  if (s.top_k > 0 && s.top_k < V) order.resize(s.top_k);
  if (s.top_p < 1) {
    double total = 0, sum = 0;
    for (int32_t i : order) total += w[i];
    size_t count = 0;
    while (count < order.size() && sum < graft::decimal(s.top_p) * total) sum += w[order[count++]];
    order.resize(std::max<size_t>(count, 1));
  }
  while (order.size() > 1 && w[order.back()] < graft::decimal(s.min_p)) order.pop_back();
  std::sort(order.begin(), order.end());
  double total = 0, sum = 0;
  for (int32_t i : order) total += w[i];
  const double target = total * graft::uniform(s.seed_lo, s.seed_hi, s.choice, s.position);
  for (int32_t i : order) {
    sum += w[i];
    if (sum > target) return i;
  }
  return best;
}

}  // namespace

extern "C" int32_t graft_sample(int32_t* ids, float* logprob, const float* logits, const graft_sampling* params,
                                int32_t N, int32_t V) {
  GRAFT_TRY(graft::check_sample(ids, logits, params, N, V));
  for (int64_t i = 0; i < N; i++) {
    const float* x = logits + i * V;
    const int32_t best = graft::best_of(x, V);
    ids[i] = best < 0 || params[i].temperature < kGreedy ? best : draw(x, V, params[i], best);
    if (!logprob) continue;
    logprob[i] = best < 0 ? std::numeric_limits<float>::quiet_NaN() : float(x[ids[i]] - graft::log_sum_exp(x, V));
  }
  return GRAFT_OK;
}
