// Losses and scores over rows of logits or over elements:
//   cross entropy: loss = log sum exp(x) - x[label];  gradient = softmax(x) - onehot(label);  label -100 = no loss
//   mse: stats = {sum (y - t)², sum t²};  dy = 2 (y - t) / n, or / stats[1] when normalised
// Exponentials are float32, their sums double, cut at fixed places. A NaN logit makes the probabilities of its row NaN.
// Cross entropy reads the logits twice and writes the gradient once.
#include "graft.h"
#include "softmax_row.h"
#include "status.h"

namespace graft {
namespace {

constexpr int32_t kIgnored = -100;
constexpr int64_t kChunk = 16384;

struct Measured {
  RowStats* rows;
  explicit Measured(const float* logits, int64_t N, int64_t V, bool with_sum) {
    const int64_t chunks = (V + kLogitChunk - 1) / kLogitChunk;
    rows = static_cast<RowStats*>(thread_scratch(0, 3, size_t(N * (chunks + 1) + 1) * sizeof(RowStats)));
    row_stats(rows, rows + N, logits, N, V, with_sum);
  }
};

/// out = (softmax(x) - onehot) * scale over n logits; target is relative to x and may lie outside.
void softmax_gradient(float* out, const float* x, int64_t n, const RowStats& row, int64_t target, float scale) {
  const vf max = vset(row.max), factor = vset(float(scale / row.sum));
  vloop(n, [&](int64_t i, int lanes) {
    store_part(out + i, vmul(vexp(vsub(load_part(x + i, lanes), max)), factor), lanes);
  });
  if (target >= 0 && target < n) out[target] -= scale;
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" {

int32_t graft_cross_entropy(float* loss, float* dlogits, const float* logits, const int32_t* labels, int32_t N,
                            int32_t V, float grad_scale) {
  GRAFT_CHECK(loss && logits && labels, "cross_entropy: null pointer");
  GRAFT_CHECK(N >= 0 && V > 0, "cross_entropy: N is %d and V is %d, expected N >= 0 and V > 0", N, V);
  for (int32_t i = 0; i < N; i++)
    GRAFT_CHECK(labels[i] == kIgnored || (labels[i] >= 0 && labels[i] < V),
                "cross_entropy: label %d of row %d is outside 0..%d", labels[i], i, V - 1);
  const Measured measured(logits, N, V, true);
  for (int64_t i = 0; i < N; i++) {
    const RowStats& row = measured.rows[i];
    loss[i] = labels[i] == kIgnored ? 0.f : float(std::log(row.sum) + row.max - logits[i * V + labels[i]]);
  }
  if (!dlogits) return GRAFT_OK;
  const int64_t chunks = (V + kLogitChunk - 1) / kLogitChunk;
  parallel_ranges(N * chunks, row_grain(std::min<int64_t>(V, kLogitChunk)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = i / chunks, first = i % chunks * kLogitChunk, n = std::min(kLogitChunk, V - first);
      float* out = dlogits + row * V + first;
      if (labels[row] == kIgnored)
        std::fill(out, out + n, 0.f);
      else
        softmax_gradient(out, logits + row * V + first, n, measured.rows[row], labels[row] - first, grad_scale);
    }
  });
  return GRAFT_OK;
}

int32_t graft_log_prob(float* logprob, int32_t* argmax, const float* logits, const int32_t* ids, int32_t N, int32_t V) {
  GRAFT_CHECK(logits && (ids || !logprob), "log_prob: null pointer");
  GRAFT_CHECK(N >= 0 && V > 0, "log_prob: N is %d and V is %d, expected N >= 0 and V > 0", N, V);
  for (int32_t i = 0; logprob && i < N; i++)
    GRAFT_CHECK(ids[i] >= 0 && ids[i] < V, "log_prob: id %d of row %d is outside 0..%d", ids[i], i, V - 1);
  const Measured measured(logits, N, V, logprob != nullptr);
  for (int64_t i = 0; i < N; i++) {
    const RowStats& row = measured.rows[i];
    if (logprob) logprob[i] = row.log_prob(logits[i * V + ids[i]]);
    if (argmax) argmax[i] = row.answer();
  }
  return GRAFT_OK;
}

int32_t graft_mse(double* stats, float* dy, const float* y, const float* target, uint64_t n, int32_t normalized) {
  GRAFT_CHECK(stats && y && target, "mse: null pointer");
  GRAFT_CHECK(n > 0, "mse: no elements");
  const int64_t count = int64_t(n), chunks = (count + kChunk - 1) / kChunk;
  double* sums = static_cast<double*>(thread_scratch(0, 3, size_t(2 * chunks) * sizeof(double)));
  parallel(chunks, [&](int64_t chunk) {
    double error = 0, power = 0;
    for (int64_t i = chunk * kChunk; i < std::min(count, (chunk + 1) * kChunk); i += kExactRun) {
      const int run = int(std::min(kExactRun, count - i));
      error += row_sum(run, [&](vf a, int at, int lanes) {
        const vf e = vsub(load_part(y + i + at, lanes), load_part(target + i + at, lanes));
        return vfma(e, e, a);
      });
      power += row_sum(run, [&](vf a, int at, int lanes) {
        const vf t = load_part(target + i + at, lanes);
        return vfma(t, t, a);
      });
    }
    sums[2 * chunk] = error;
    sums[2 * chunk + 1] = power;
  });
  double error = 0, power = 0;
  for (int64_t chunk = 0; chunk < chunks; chunk++) error += sums[2 * chunk], power += sums[2 * chunk + 1];
  GRAFT_CHECK(!normalized || power != 0, "mse: the target is all zeros, there is nothing to normalise by");
  stats[0] = error;
  stats[1] = power;
  if (!dy) return GRAFT_OK;
  const vf factor = vset(float(2 / (normalized ? power : double(n))));
  parallel_ranges(count, kChunk, [&](int64_t begin, int64_t end) {
    vloop(end - begin, [&](int64_t i, int lanes) {
      const int64_t at = begin + i;
      store_part(dy + at, vmul(vsub(load_part(y + at, lanes), load_part(target + at, lanes)), factor), lanes);
    });
  });
  return GRAFT_OK;
}

}  // extern "C"
