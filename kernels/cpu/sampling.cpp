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
#include "softmax_row.h"
#include "status.h"

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

/// The items with x >= least, by ascending id.
void collect(std::vector<Item>& items, const float* x, const float* w, int64_t V, float least) {
  items.clear();
  const vf bound = vset(least);
  vloop(V, [&](int64_t i, int lanes) {
    uint32_t bits = ~vbits(vless(load_part(x + i, lanes), bound)) & ((1u << lanes) - 1);
    for (; bits; bits &= bits - 1) {
      const int64_t at = i + __builtin_ctz(bits);
      items.push_back({x[at], w[at], int32_t(at)});
    }
  });
}

double mass(const std::vector<Item>& items, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; i++) sum += items[i].w;
  return sum;
}

/// Reorders the items so that the shortest prefix, largest first, with at least `target` of weight comes first; returns
/// its length.
size_t select_mass(std::vector<Item>& items, double target) {
  size_t low = 0, high = items.size();  // the answer's last member is in [low, high)
  double sum = 0;                       // weight before low
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(items.begin() + low, items.begin() + middle, items.begin() + high, before);
    const double upper = mass(items, low, middle);
    if (sum + upper >= target) {
      high = middle;
    } else {
      sum += upper;
      low = middle;
    }
  }
  return low + 1;
}

/// The items that survive top_k, top_p and min_p, by ascending id.
const std::vector<Item>& cut(const float* x, const float* w, int64_t V, float max, double total,
                             const graft_sampling& s) {
  static thread_local std::vector<Item> items;
  const size_t k = s.top_k > 0 && s.top_k < V ? size_t(s.top_k) : 0;
  const double top_p = decimal(s.top_p);
  for (const float depth : {5.f, 10.f, 18.f, std::numeric_limits<float>::infinity()}) {
    const float least = std::max(max - depth * s.temperature, std::numeric_limits<float>::lowest());
    collect(items, x, w, V, least);
    if (k > 0 ? items.size() >= k : mass(items, 0, items.size()) >= top_p * total) break;
  }
  if (k > 0 && k < items.size()) {
    std::nth_element(items.begin(), items.begin() + k, items.end(), before);
    items.resize(k);
  }
  if (s.top_p < 1) items.resize(select_mass(items, top_p * (k > 0 ? mass(items, 0, items.size()) : total)));
  const double min_p = decimal(s.min_p);
  std::erase_if(items, [min_p](const Item& item) { return item.w < min_p; });
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.id < b.id; });
  return items;
}

int32_t draw(const float* x, int64_t V, const graft_sampling& s, const RowStats& row, int thread) {
  const bool cuts = (s.top_k > 0 && s.top_k < V) || s.top_p < 1;
  const int64_t chunks = (V + kExactRun - 1) / kExactRun;
  double* sums = static_cast<double*>(thread_scratch(thread, 0, size_t(chunks) * sizeof(double)));
  float* w = static_cast<float*>(thread_scratch(thread, 1, size_t(V) * sizeof(float)));
  const float min_w = cuts ? 0.f : float(decimal(s.min_p));
  const double total = weigh(w, sums, x, V, row.max, s.temperature, min_w);
  const double u = uniform(s.seed_lo, s.seed_hi, s.choice, s.position);
  double sum = 0;
  if (cuts) {
    const auto& items = cut(x, w, V, row.max, total, s);
    const double target = u * mass(items, 0, items.size());
    for (const Item& item : items)
      if ((sum += item.w) > target) return item.id;
    return row.argmax;
  }
  for (int64_t chunk = 0; chunk < chunks; sum += sums[chunk++]) {
    if (sum + sums[chunk] <= u * total) continue;
    double inside = sum;
    for (int64_t i = chunk * kExactRun; i < std::min(V, (chunk + 1) * kExactRun); i++)
      if ((inside += w[i]) > u * total) return int32_t(i);
  }
  return row.argmax;
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" int32_t graft_sample(int32_t* ids, float* logprob, const float* logits, const graft_sampling* params,
                                int32_t N, int32_t V) {
  GRAFT_CHECK(ids && logits && params, "sample: null pointer");
  GRAFT_CHECK(N >= 0 && V > 0, "sample: N is %d and V is %d, expected N >= 0 and V > 0", N, V);
  for (int32_t i = 0; i < N; i++) {
    const graft_sampling& s = params[i];
    GRAFT_CHECK(s.temperature >= 0 && std::isfinite(s.temperature), "sample: temperature of row %d is %g", i,
                s.temperature);
    GRAFT_CHECK(s.top_p > 0 && s.top_p <= 1, "sample: top_p of row %d is %g, expected 0 < top_p <= 1", i, s.top_p);
    GRAFT_CHECK(s.min_p >= 0 && s.min_p <= 1, "sample: min_p of row %d is %g, expected 0 <= min_p <= 1", i, s.min_p);
    GRAFT_CHECK(s.top_k >= 0, "sample: top_k of row %d is %d, expected 0 or more", i, s.top_k);
  }
  const int64_t chunks = (V + kLogitChunk - 1) / kLogitChunk;
  RowStats* stats = static_cast<RowStats*>(thread_scratch(0, 3, size_t(N * (chunks + 1) + 1) * sizeof(RowStats)));
  row_stats(stats, stats + N, logits, N, V, logprob != nullptr);
  for (int64_t i = 0; i < N; i++) {
    GRAFT_CHECK(!stats[i].nan, "sample: row %lld of the logits holds NaN", (long long)i);
    GRAFT_CHECK(std::isfinite(stats[i].max), "sample: the largest logit of row %lld is %g", (long long)i, stats[i].max);
  }
  parallel(N, [&](int64_t i, int thread) {
    const float* x = logits + i * V;
    ids[i] = params[i].temperature < kGreedy ? stats[i].argmax : draw(x, V, params[i], stats[i], thread);
    if (logprob) logprob[i] = float(double(x[ids[i]]) - stats[i].max - std::log(stats[i].sum));
  });
  return GRAFT_OK;
}
