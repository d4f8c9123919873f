// One token per row. Weights w = exp((x - max) / temperature); then, in this order: top_k keeps the k largest; top_p
// keeps the shortest prefix of them, largest first, that holds at least top_p of their sum; min_p keeps w >= min_p (the
// largest w is 1). Equal logits rank by lower index. The token is the first, by index, whose running sum of kept
// weights exceeds u times their total. Temperatures under 1e-5 mean argmax. Nothing is sorted in full: cuts look only
// at candidates near the maximum (more of them if those do not suffice) and find their last member by selection. A task
// owns a row. Logits are read two or three times.
#include <vector>

#include "decimal.h"
#include "graft.h"
#include "philox.h"
#include "sampling_checks.h"
#include "softmax_row.h"

namespace graft {
namespace {

constexpr float kGreedy = 1e-5f;

struct Item {
  float x, w;
  int32_t id;
};
bool before(const Item& a, const Item& b) { return a.x > b.x || (a.x == b.x && a.id < b.id); }

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

/// f(index) for every logit >= least, ascending.
template <class F>
void each_from(const float* x, int64_t V, float least, F&& f) {
  const vf bound = vset(least);
  vloop(V, [&](int64_t i, int lanes) {
    uint32_t bits = ~vbits(vless(load_part(x + i, lanes), bound)) & ((1u << lanes) - 1);
    for (; bits; bits &= bits - 1) f(i + __builtin_ctz(bits));
  });
}

/// The first of a few ever lower logits such that those from it on satisfy `enough(their number, their weight)`.
template <class F>
float lower_until(const float* x, const float* w, int64_t V, float max, float temperature, F&& enough) {
  for (const float depth : {5.f, 10.f, 18.f}) {
    const float least = max - depth * temperature;
    int64_t count = 0;
    double weight = 0;
    each_from(x, V, least, [&](int64_t i) { count++, weight += w[i]; });
    if (enough(count, weight)) return least;
  }
  return std::numeric_limits<float>::lowest();
}

/// Reorders the items so that the shortest prefix, largest first, with at least `target` of weight comes first, its
/// last member at its end; returns its length.
size_t select_mass(std::vector<Item>& items, double target) {
  size_t low = 0, high = items.size();  // the answer's last member is in [low, high)
  double sum = 0;                       // weight before low
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(items.begin() + low, items.begin() + middle, items.begin() + high, before);
    double upper = sum;
    for (size_t i = low; i < middle; i++) upper += items[i].w;
    if (upper >= target) {
      high = middle;
    } else {
      sum = upper;
      low = middle;
    }
  }
  return low + 1;
}

/// The last item that top_p keeps: weights are summed in bins of equal width, only the bin it falls into is ordered.
Item nucleus_end(const float* x, const float* w, int64_t V, float max, float temperature, double target,
                 std::vector<Item>& items) {
  constexpr int kBins = 1024;
  const float least = lower_until(x, w, V, max, temperature, [&](int64_t, double weight) { return weight >= target; });
  const float range = std::min(max - least, 40 * temperature);  // 0 where the maximum is huge: everything in bin 0
  const float by = range > 0 ? kBins / range : 0;
  const auto bin_of = [&](int64_t i) { return int(std::min((max - x[i]) * by, float(kBins - 1))); };
  double bins[kBins] = {};
  each_from(x, V, least, [&](int64_t i) { bins[bin_of(i)] += w[i]; });
  int last = 0;
  double sum = 0;
  while (last < kBins - 1 && sum + bins[last] < target) sum += bins[last++];
  while (last > 0 && bins[last] == 0) sum -= bins[--last];  // the target is the total, but for rounding
  items.clear();
  each_from(x, V, least, [&](int64_t i) {
    if (bin_of(i) == last) items.push_back({x[i], w[i], int32_t(i)});
  });
  return items[select_mass(items, target - sum) - 1];
}

/// The last item that top_k, and of its survivors top_p, keep.
Item top_k_end(const float* x, const float* w, int64_t V, float max, const graft_sampling& s,
               std::vector<Item>& items) {
  const int64_t k = s.top_k;
  const float least = lower_until(x, w, V, max, s.temperature, [&](int64_t count, double) { return count >= k; });
  items.clear();
  each_from(x, V, least, [&](int64_t i) { items.push_back({x[i], w[i], int32_t(i)}); });
  const size_t kept = std::min(items.size(), size_t(k));
  std::nth_element(items.begin(), items.begin() + (kept - 1), items.end(), before);
  items.resize(kept);
  if (s.top_p == 1) return items.back();
  double total = 0;
  for (const Item& item : items) total += item.w;
  return items[select_mass(items, decimal(s.top_p) * total) - 1];
}

/// Sets the weights of everything that ranks behind `last` to 0 and sums what is left. Returns the total.
double cut_behind(float* w, double* sums, const float* x, int64_t V, const Item& last, float min_w) {
  const vf bound = vset(last.x), least = vset(min_w);
  double total = 0;
  for (int64_t i = 0; i < V; i += kExactRun) {
    const int64_t end = std::min(V, i + kExactRun);
    each_from(x + i, end - i, last.x, [&](int64_t at) {  // ties with the last one go by index
      if (x[i + at] == last.x && i + at > last.id) w[i + at] = 0;
    });
    sums[i / kExactRun] = row_sum(int(end - i), [&](vf a, int at, int lanes) {
      const vf old = load_part(w + i + at, lanes);
      const vf ranked = vselect(vless(load_part(x + i + at, lanes), bound), vzero(), old);
      const vf kept = vselect(vless(old, least), vzero(), ranked);
      store_part(w + i + at, kept, lanes);
      return vadd(a, lanes == VL ? kept : vselect(vfirst(lanes), kept, vzero()));
    });
    total += sums[i / kExactRun];
  }
  return total;
}

int32_t draw(const float* x, int64_t V, const graft_sampling& s, const RowStats& row, int thread) {
  static thread_local std::vector<Item> items;
  const bool top_k = s.top_k > 0 && s.top_k < V, cuts = top_k || s.top_p < 1;
  const int64_t chunks = (V + kExactRun - 1) / kExactRun;
  double* sums = static_cast<double*>(thread_scratch(thread, 0, size_t(chunks) * sizeof(double)));
  float* w = static_cast<float*>(thread_scratch(thread, 1, size_t(V) * sizeof(float)));
  const float min_w = float(decimal(s.min_p));
  double total = weigh(w, sums, x, V, row.max, s.temperature, cuts ? 0.f : min_w);
  if (cuts) {
    const Item last = top_k ? top_k_end(x, w, V, row.max, s, items)
                            : nucleus_end(x, w, V, row.max, s.temperature, decimal(s.top_p) * total, items);
    total = cut_behind(w, sums, x, V, last, min_w);
  }
  const double target = total * uniform(s.seed_lo, s.seed_hi, s.choice, s.position);
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; sum += sums[chunk++]) {
    if (sum + sums[chunk] <= target) continue;
    double inside = sum;
    for (int64_t i = chunk * kExactRun; i < std::min(V, (chunk + 1) * kExactRun); i++)
      if ((inside += w[i]) > target) return int32_t(i);
  }
  return row.argmax;
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
