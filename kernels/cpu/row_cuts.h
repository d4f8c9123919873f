// Where top_k and top_p cut a row of logits. Nothing is sorted: the last member is bracketed between two logits by
// passes that add up everything above eight thresholds at once, then selected from the few items between them.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "softmax_row.h"

namespace graft {

struct Item {
  float x, w;
  int32_t id;
};
/// Larger logits rank first, equal ones by lower index.
inline bool before(const Item& a, const Item& b) { return a.x > b.x || (a.x == b.x && a.id < b.id); }

/// One row: logits, their weights (zero where they are already cut), and what they are counted in.
struct CutRow {
  const float* x;
  const float* w;
  int64_t V;
  float max, temperature;
};

/// Logits from `low` up weigh the target or more, those from `high` up weigh `above`, which is less.
struct Bracket {
  float low = -std::numeric_limits<float>::infinity(), high = std::numeric_limits<float>::infinity();
  double above = 0;
};

constexpr int kThresholds = 8;
constexpr size_t kFewItems = 256;

/// f(index) for every logit in [low, high), ascending, until it returns false.
template <class F>
bool each_between(const float* x, int64_t V, float low, float high, F&& f) {
  const vf from = vset(low), to = vset(high);
  for (int64_t i = 0; i < V; i += VL) {
    const int lanes = int(std::min<int64_t>(VL, V - i));
    const vf v = load_part(x + i, lanes);
    uint32_t bits = ~vbits(vless(v, from)) & vbits(vless(v, to)) & ((1u << lanes) - 1);
    for (; bits; bits &= bits - 1)
      if (!f(i + __builtin_ctz(bits))) return false;
  }
  return true;
}

/// sums[j] = weight (by_count: number) of the logits >= thresholds[j].
template <bool by_count>
void sums_from(double* sums, const CutRow& row, const float* thresholds) {
  std::fill(sums, sums + kThresholds, 0.0);
  vf t[kThresholds];
  for (int j = 0; j < kThresholds; j++) t[j] = vset(thresholds[j]);
  for (int64_t first = 0; first < row.V; first += kExactRun) {
    vf acc[kThresholds];
    for (vf& a : acc) a = vzero();
    vloop(std::min(kExactRun, row.V - first), [&](int64_t i, int lanes) {
      const vf x = load_part(row.x + first + i, lanes);
      vf w = by_count ? vset(1) : load_part(row.w + first + i, lanes);
      if (by_count && lanes < VL) w = vselect(vfirst(lanes), w, vzero());
      for (int j = 0; j < kThresholds; j++) acc[j] = vadd(acc[j], vselect(vless(x, t[j]), vzero(), w));
    });
    for (int j = 0; j < kThresholds; j++) sums[j] += vsum(acc[j]);
  }
}

/// Narrows the bracket by thresholds in falling order. False: nothing changed.
template <bool by_count>
bool narrow(Bracket& bracket, const CutRow& row, double target, const float* thresholds) {
  double sums[kThresholds];
  sums_from<by_count>(sums, row, thresholds);
  const Bracket old = bracket;
  for (int j = 0; j < kThresholds && bracket.low == old.low; j++) {
    if (thresholds[j] <= old.low || thresholds[j] >= old.high) continue;
    if (sums[j] < target) {
      bracket.high = thresholds[j];
      bracket.above = sums[j];
    } else {
      bracket.low = thresholds[j];
    }
  }
  return bracket.low != old.low || bracket.high != old.high;
}

/// Thresholds below the maximum: near it first, then ever farther until the bracket has a lower end.
template <bool by_count>
Bracket first_bracket(const CutRow& row, double target) {
  constexpr float kDepths[kThresholds] = {0.25f, 1, 2, 4, 6, 9, 13, 20};
  Bracket bracket;
  for (float scale = row.temperature; bracket.low == -std::numeric_limits<float>::infinity(); scale *= 64) {
    float thresholds[kThresholds];
    for (int j = 0; j < kThresholds; j++)
      thresholds[j] = std::max(row.max - kDepths[j] * scale, std::numeric_limits<float>::lowest());
    narrow<by_count>(bracket, row, target, thresholds);
    if (thresholds[kThresholds - 1] == std::numeric_limits<float>::lowest()) break;
  }
  return bracket;
}

/// The items of a bracket, once they are few or a bracket cannot be narrower.
template <bool by_count>
void items_of(std::vector<Item>& items, Bracket& bracket, const CutRow& row, double target) {
  for (size_t limit = kFewItems;;) {
    items.clear();
    const bool all = each_between(row.x, row.V, bracket.low, bracket.high, [&](int64_t i) {
      items.push_back({row.x[i], row.w[i], int32_t(i)});
      return items.size() < limit;
    });
    if (all) return;
    float thresholds[kThresholds];
    const double top = std::min(bracket.high, row.max), step = (top - bracket.low) / (kThresholds + 1);
    for (int j = 0; j < kThresholds; j++) thresholds[j] = float(top - (j + 1) * step);
    if (!narrow<by_count>(bracket, row, target, thresholds)) limit = std::numeric_limits<size_t>::max();
  }
}

/// Reorders the items so that the shortest prefix, largest first, with at least `target` of weight comes first, its
/// last member at its end; returns its length.
inline size_t select_mass(std::vector<Item>& items, double target) {
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

/// The last member of the shortest prefix, largest first, that weighs at least `target`; false: all are members.
inline bool mass_end(Item& last, const CutRow& row, double target, std::vector<Item>& items) {
  Bracket bracket = first_bracket<false>(row, target);
  if (bracket.low == -std::numeric_limits<float>::infinity()) return false;
  items_of<false>(items, bracket, row, target);
  last = items[select_mass(items, target - bracket.above) - 1];
  return true;
}

/// The k-th largest; false: there are not so many.
inline bool count_end(Item& last, const CutRow& row, int64_t k, std::vector<Item>& items) {
  Bracket bracket = first_bracket<true>(row, double(k));
  if (bracket.low == -std::numeric_limits<float>::infinity()) return false;
  items_of<true>(items, bracket, row, double(k));
  const auto nth = items.begin() + (k - 1 - int64_t(bracket.above));
  std::nth_element(items.begin(), nth, items.end(), before);
  last = *nth;
  return true;
}

}  // namespace graft
