// Losses and scores over rows, in double:
//   cross entropy: loss = log sum exp(x) - x[label];  gradient = softmax(x) - onehot(label);  label -100 = no loss
//   mse: stats = {sum (y - t)², sum t²};  dy = 2 (y - t) / n, or / stats[1] when normalised
// A NaN logit makes the probabilities of its row NaN.
#include <cmath>
#include <limits>

#include "graft.h"
#include "logit_row.h"
#include "status.h"

namespace {

constexpr int32_t kIgnored = -100;

struct Row {
  double max, sum;  // sum of exp(x - max)
};

Row measure(const float* x, int32_t V) {
  Row row{-INFINITY, 0};
  for (int32_t i = 0; i < V; i++)
    if (x[i] > row.max) row.max = x[i];
  for (int32_t i = 0; i < V; i++) row.sum += std::exp(x[i] - row.max);
  return row;
}

}  // namespace

extern "C" {

int32_t graft_cross_entropy(float* loss, float* dlogits, const float* logits, const int32_t* labels, int32_t N,
                            int32_t V, float grad_scale) {
  GRAFT_CHECK(loss && logits && labels, "cross_entropy: null pointer");
  GRAFT_CHECK(N >= 0 && V > 0, "cross_entropy: N is %d and V is %d, expected N >= 0 and V > 0", N, V);
  for (int32_t i = 0; i < N; i++)
    GRAFT_CHECK(labels[i] == kIgnored || (labels[i] >= 0 && labels[i] < V),
                "cross_entropy: label %d of row %d is outside 0..%d", labels[i], i, V - 1);
  for (int64_t i = 0; i < N; i++) {
    const float* x = logits + i * V;
    const Row row = measure(x, V);
    const double log_sum = row.max + std::log(row.sum);
    loss[i] = labels[i] == kIgnored ? 0 : float(log_sum - x[labels[i]]);
    if (!dlogits) continue;
    for (int32_t c = 0; c < V; c++) {
      const double p = std::exp(x[c] - log_sum);
      dlogits[i * V + c] = labels[i] == kIgnored ? 0 : float((p - (c == labels[i])) * grad_scale);
    }
  }
  return GRAFT_OK;
}

int32_t graft_log_prob(float* logprob, int32_t* argmax, const float* logits, const int32_t* ids, int32_t N, int32_t V) {
  GRAFT_CHECK(logits && (ids || !logprob), "log_prob: null pointer");
  GRAFT_CHECK(N >= 0 && V > 0, "log_prob: N is %d and V is %d, expected N >= 0 and V > 0", N, V);
  for (int32_t i = 0; logprob && i < N; i++)
    GRAFT_CHECK(ids[i] >= 0 && ids[i] < V, "log_prob: id %d of row %d is outside 0..%d", ids[i], i, V - 1);
  for (int64_t i = 0; i < N; i++) {
    const float* x = logits + i * V;
    const int32_t best = graft::best_of(x, V);
    if (logprob)
      logprob[i] = best < 0 ? std::numeric_limits<float>::quiet_NaN() : float(x[ids[i]] - graft::log_sum_exp(x, V));
    if (argmax) argmax[i] = best;
  }
  return GRAFT_OK;
}

int32_t graft_mse(double* stats, float* dy, const float* y, const float* target, uint64_t n, int32_t normalized) {
  GRAFT_CHECK(stats && y && target, "mse: null pointer");
  GRAFT_CHECK(n > 0, "mse: no elements");
  double error = 0, power = 0;
  for (uint64_t i = 0; i < n; i++) {
    const double e = double(y[i]) - target[i];
    error += e * e;
    power += double(target[i]) * target[i];
  }
  GRAFT_CHECK(!normalized || power != 0, "mse: the target is all zeros, there is nothing to normalise by");
  for (uint64_t i = 0; dy && i < n; i++)
    dy[i] = float(2 * (double(y[i]) - target[i]) / (normalized ? power : double(n)));
  stats[0] = error;
  stats[1] = power;
  return GRAFT_OK;
}

}  // extern "C"
