// One token per row. Weights w = exp((x - max) / temperature); then, in this order: top_k keeps the k largest; top_p
// keeps the shortest prefix of them, largest first, that holds at least top_p of their sum; min_p keeps w >= min_p (the
// largest w is 1). Equal logits rank by lower index. The token is the first, by index, whose running sum of kept
// weights exceeds u times their total. Temperatures under 1e-5 mean argmax. A task owns a row; its weights stay in a
// cache. Each cut reads it three times or more (row_cuts.h), the rest three times.
#include <vector>

#include "decimal.h"
#include "graft.h"
#include "philox.h"
#include "row_cuts.h"
#include "sampling_checks.h"
#include "softmax_row.h"

namespace graft {
namespace {

constexpr float kGreedy = 1e-5f;

/// w = exp((x - max) / temperature), 0 under min_w; sums[chunk] over chunks of kExactRun. Returns the total.
double weigh(float* w, double* sums, const float* x, int64_t V, float max, float temperature, float min_w) {
  const vf m = vset(max), by = vset(1.f / temperature), least = vset(min_w);
  double total = 0;
  for (int64_t i = 0; i < V; i += kExactRun) {
    sums[i / kExactRun] = row_sum(int(std::min(kExactRun, V - i)), [&](vf a, int at, int lanes) {
      const vf e = vexp(vmul(vsub(load_part(x + i + at, lanes), m), by));
      const vf kept = vselect(vless(e, least), vzero(), e);
      store_part(w + i + at, kept, lanes);
      return vadd(a, lanes == VL ? kept : vselect(vfirst(lanes), kept, vzero()));
    });
    total += sums[i / kExactRun];
  }
  return total;
}

/// Sets the weights of everything that ranks behind `last` to 0 and sums what is left. Returns the total.
double cut_behind(float* w, double* sums, const CutRow& row, const Item& last) {
  const vf bound = vset(last.x);
  double total = 0;
  for (int64_t first = 0; first < row.V; first += kExactRun) {
    const float* x = row.x + first;
    sums[first / kExactRun] = row_sum(int(std::min(kExactRun, row.V - first)), [&](vf a, int at, int lanes) {
      const vf v = load_part(x + at, lanes);
      const vmask less = vless(v, bound);
      float* to = w + first + at;
      store_part(to, vselect(less, vzero(), load_part(to, lanes)), lanes);
      uint32_t ties = ~(vbits(less) | vbits(vless(bound, v))) & ((1u << lanes) - 1);
      for (; ties; ties &= ties - 1)  // equal ones go by index
        if (const int lane = __builtin_ctz(ties); first + at + lane > last.id) to[lane] = 0;
      return vadd(a, load_part(to, lanes));
    });
    total += sums[first / kExactRun];
  }
  return total;
}

/// Sets weights under min_w to 0. Returns the total.
double drop_below(float* w, double* sums, int64_t V, float min_w) {
  const vf least = vset(min_w);
  double total = 0;
  for (int64_t i = 0; i < V; i += kExactRun) {
    sums[i / kExactRun] = row_sum(int(std::min(kExactRun, V - i)), [&](vf a, int at, int lanes) {
      const vf old = load_part(w + i + at, lanes), kept = vselect(vless(old, least), vzero(), old);
      store_part(w + i + at, kept, lanes);
      return vadd(a, kept);
    });
    total += sums[i / kExactRun];
  }
  return total;
}

int32_t draw(const float* x, int64_t V, const graft_sampling& s, const RowStats& stats, int thread) {
  static thread_local std::vector<Item> items;
  const bool top_k = s.top_k > 0 && s.top_k < V, top_p = s.top_p < 1;
  const int64_t chunks = (V + kExactRun - 1) / kExactRun;
  double* sums = static_cast<double*>(thread_scratch(thread, 0, size_t(chunks) * sizeof(double)));
  float* w = static_cast<float*>(thread_scratch(thread, 1, size_t(V) * sizeof(float)));
  const float min_w = float(decimal(s.min_p));
  const CutRow row{x, w, V, stats.max, s.temperature};
  double total = weigh(w, sums, x, V, stats.max, s.temperature, top_k || top_p ? 0.f : min_w);
  Item last;
  if (top_k && count_end(last, row, s.top_k, items)) total = cut_behind(w, sums, row, last);
  if (top_p && mass_end(last, row, decimal(s.top_p) * total, items)) total = cut_behind(w, sums, row, last);
  if ((top_k || top_p) && min_w > 0) total = drop_below(w, sums, V, min_w);
  const double target = total * uniform(s.seed_lo, s.seed_hi, s.choice, s.position);
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; sum += sums[chunk++]) {
    if (sum + sums[chunk] <= target) continue;
    double inside = sum;
    for (int64_t i = chunk * kExactRun; i < std::min(V, (chunk + 1) * kExactRun); i++)
      if ((inside += w[i]) > target) return int32_t(i);
  }
  return stats.argmax;
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" int32_t graft_sample(int32_t* ids, float* logprob, const float* logits, const graft_sampling* params,
                                int32_t N, int32_t V) {
  GRAFT_TRY(check_sample(ids, logits, params, N, V));
  const int64_t chunks = (V + kLogitChunk - 1) / kLogitChunk;
  RowStats* stats = static_cast<RowStats*>(thread_scratch(0, 3, size_t(N * (chunks + 1) + 1) * sizeof(RowStats)));
  row_stats(stats, stats + N, logits, N, V, logprob != nullptr);
  parallel(N, [&](int64_t i, int thread) {
    const float* x = logits + i * V;
    const int32_t best = stats[i].answer();
    ids[i] = best < 0 || params[i].temperature < kGreedy ? best : draw(x, V, params[i], stats[i], thread);
    if (logprob) logprob[i] = stats[i].log_prob(best < 0 ? 0 : x[ids[i]]);
  });
  return GRAFT_OK;
}
