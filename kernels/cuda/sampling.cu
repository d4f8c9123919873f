// One token per row, a block a row. Weights are exp((x - max) / temperature) as integers of 40 binary places, so that
// sums come out the same in any order. What top_k and top_p keep is a rank, found by its digits from the top: the k-th
// largest logit, then the one at which the weights from the top reach top_p; equal logits rank by lower index. Cuts
// look only at candidates near the maximum where these suffice.
#include "host.h"
#include "logit_row.h"
#include "philox.h"

namespace graft::gpu {
namespace {

constexpr float kGreedy = 1e-5f;
constexpr int32_t kBins = 256, kDepths = 3;

struct Candidate {
  uint32_t order;
  int32_t index;
};

struct Shared {
  RowScratch scratch;
  unsigned long long bins[kBins];
  unsigned long long found[2];
  unsigned long long warp_sums[kRowWarps];
  int32_t count, chosen;
};

/// A row and how it is drawn from.
struct Row {
  const float* x;
  int32_t V;
  float max, by;   // by: 1 / temperature
  uint64_t least;  // min_p in weights

  __device__ uint64_t weight(float logit) const {
    return static_cast<uint64_t>(static_cast<double>(expf((logit - max) * by)) * 1099511627776.0 + 0.5);
  }
};

/// The decimal of seven places nearest to x: what a caller wrote before it became float32.
__device__ inline double decimal(float x) { return round(static_cast<double>(x) * 1e7) / 1e7; }

/// Of items with a 32-bit key each: the largest key at which the amounts of keys above and at it reach `target` (or the
/// smallest key there is), and the amount above it. each(visit) calls visit(key, amount) for the items of this thread.
struct Found {
  uint32_t key;
  uint64_t above;
};
template <class Each>
__device__ Found descend(Shared* memory, uint64_t target, Each&& each) {
  uint32_t prefix = 0;
  uint64_t above = 0;
  for (int32_t shift = 24; shift >= 0; shift -= 8) {
    for (int32_t i = threadIdx.x; i < kBins; i += kRowThreads) memory->bins[i] = 0;
    __syncthreads();
    each([&](uint32_t key, uint64_t amount) {
      if (shift < 24 && key >> (shift + 8) != prefix) return;
      atomicAdd(&memory->bins[key >> shift & 255], static_cast<unsigned long long>(amount));
    });
    __syncthreads();
    if (threadIdx.x == 0) {
      uint64_t sum = above;
      int32_t digit = kBins - 1, lowest = -1;
      for (; digit >= 0; digit--) {
        if (memory->bins[digit] == 0) continue;
        lowest = digit;
        if (sum + memory->bins[digit] >= target) break;
        sum += memory->bins[digit];
      }
      if (digit < 0) {  // all of it is less than the target: the last one there is
        digit = lowest;
        sum -= memory->bins[digit];
      }
      memory->found[0] = static_cast<unsigned long long>(digit);
      memory->found[1] = sum;
    }
    __syncthreads();
    prefix = prefix << 8 | static_cast<uint32_t>(memory->found[0]);
    above = memory->found[1];
    __syncthreads();
  }
  return {prefix, above};
}

/// What may be drawn: logits that rank before or at the last one, and weigh at least min_p.
struct Cut {
  uint32_t order = 0;
  int32_t last = 0x7fffffff;  // the highest index among logits equal to it

  __device__ bool keeps(uint32_t other, int32_t index) const {
    return other > order || (other == order && index <= last);
  }
};

/// Candidates near the maximum: those a cut may fall among. The last depth is everything.
template <class Enough>
__device__ int32_t gather(Shared* memory, const Row& row, Candidate* list, Enough&& enough) {
  const float depths[kDepths] = {5.0f, 10.0f, 18.0f};
  uint32_t counts[kDepths] = {};
  uint64_t weights[kDepths] = {};
#pragma unroll 4
  for (int32_t i = threadIdx.x; i < row.V; i += kRowThreads) {
    const float depth = (row.max - row.x[i]) * row.by;
    const uint64_t weight = row.weight(row.x[i]);
#pragma unroll
    for (int32_t d = 0; d < kDepths; d++)
      if (depth <= depths[d]) {
        counts[d]++;
        weights[d] += weight;
      }
  }
  float least = INFINITY;
#pragma unroll
  for (int32_t d = kDepths - 1; d >= 0; d--) {
    const uint64_t count = block_add(static_cast<uint64_t>(counts[d]), &memory->scratch);
    const uint64_t weight = block_add(weights[d], &memory->scratch);
    if (enough(count, weight)) least = depths[d];
  }
  if (threadIdx.x == 0) memory->count = 0;
  __syncthreads();
  // A warp takes places together; the order in the list does not matter.
  const int32_t padded = static_cast<int32_t>(blocks<unsigned>(row.V, kRowThreads) * kRowThreads),
                lane = threadIdx.x % kWarp;
  for (int32_t i = threadIdx.x; i < padded; i += kRowThreads) {
    const bool wanted = i < row.V && row.x[i] > -INFINITY && (row.max - row.x[i]) * row.by <= least;
    const unsigned bits = __ballot_sync(kAll, wanted);
    if (bits == 0) continue;
    int32_t first = 0;
    if (lane == 0) first = atomicAdd(&memory->count, __popc(bits));
    first = __shfl_sync(kAll, first, 0);
    if (wanted) list[first + __popc(bits & ((1u << lane) - 1))] = {order_of(row.x[i]), i};
  }
  __syncthreads();
  return memory->count;
}

/// The m-th lowest index among the candidates of one order.
__device__ int32_t nth_index(Shared* memory, const Candidate* list, int32_t count, uint32_t order, uint64_t m) {
  const Found found = descend(memory, m, [&](auto&& visit) {
    for (int32_t i = threadIdx.x; i < count; i += kRowThreads)
      if (list[i].order == order) visit(0xffffffffu - static_cast<uint32_t>(list[i].index), uint64_t{1});
  });
  return static_cast<int32_t>(0xffffffffu - found.key);
}

__device__ Cut cut_row(Shared* memory, const Row& row, const graft_sampling& s, Candidate* list) {
  Cut cut;
  const bool top_k = s.top_k > 0 && s.top_k < row.V;
  const uint64_t k = static_cast<uint64_t>(s.top_k);
  uint64_t total = 0;
  if (!top_k) {
#pragma unroll 8
    for (int32_t i = threadIdx.x; i < row.V; i += kRowThreads) total += row.weight(row.x[i]);
    total = block_add(total, &memory->scratch);
  }
  const auto part = [&](uint64_t sum) {
    return static_cast<uint64_t>(ceil(decimal(s.top_p) * static_cast<double>(sum)));
  };
  const int32_t count = gather(
      memory, row, list, [&](uint64_t number, uint64_t weight) { return top_k ? number >= k : weight >= part(total); });
  const auto weight_of = [&](const Candidate& c) { return row.weight(row.x[c.index]); };
  if (top_k) {
    const Found found = descend(memory, k, [&](auto&& visit) {
      for (int32_t i = threadIdx.x; i < count; i += kRowThreads) visit(list[i].order, uint64_t{1});
    });
    cut = {found.key, nth_index(memory, list, count, found.key, k - found.above)};
    if (s.top_p >= 1) return cut;
    for (int32_t i = threadIdx.x; i < count; i += kRowThreads)
      if (cut.keeps(list[i].order, list[i].index)) total += weight_of(list[i]);
    total = block_add(total, &memory->scratch);
  }
  const uint64_t target = part(total);
  const Found found = descend(memory, target, [&](auto&& visit) {
    for (int32_t i = threadIdx.x; i < count; i += kRowThreads)
      if (cut.keeps(list[i].order, list[i].index)) visit(list[i].order, weight_of(list[i]));
  });
  // Among equals as many as it takes; all of them weigh the same.
  uint64_t one = 0;
  for (int32_t i = threadIdx.x; i < count; i += kRowThreads)
    if (list[i].order == found.key) one = weight_of(list[i]);
  one = block_reduce(one, &memory->scratch, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
  const uint64_t missing = target > found.above ? target - found.above : 0;
  const uint64_t equals = one == 0 || missing == 0 ? 1 : (missing + one - 1) / one;
  const int32_t last = nth_index(memory, list, count, found.key, equals);
  return {found.key, found.key == cut.order ? min(last, cut.last) : last};
}

/// The first index whose running sum of kept weights exceeds u times their total. Each warp sums one stretch of the
/// row, then of the stretch in which that sum is reached, until a warp has it before its lanes.
__device__ int32_t draw_from(Shared* memory, const Row& row, const Cut& cut, double u, int32_t best) {
  const int32_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const auto kept = [&](int32_t i) -> uint64_t {
    if (!cut.keeps(order_of(row.x[i]), i)) return 0;
    const uint64_t weight = row.weight(row.x[i]);
    return weight >= row.least ? weight : 0;
  };
  int32_t begin = 0, end = row.V;
  uint64_t before = 0;
  double target = -1;
  while (target < 0 || end - begin > static_cast<int32_t>(kWarp)) {
    const int32_t stretch = blocks(end - begin, static_cast<int32_t>(kRowThreads)) * static_cast<int32_t>(kWarp);
    const int32_t from = min(begin + warp * stretch, end), to = min(from + stretch, end);
    uint64_t sum = 0;
#pragma unroll 8
    for (int32_t i = from + lane; i < to; i += kWarp) sum += kept(i);
    for (int with = 16; with > 0; with /= 2) sum += __shfl_xor_sync(kAll, sum, with);
    if (lane == 0) memory->warp_sums[warp] = sum;
    __syncthreads();
    if (target < 0) {
      uint64_t total = 0;
      for (unsigned w = 0; w < kRowWarps; w++) total += memory->warp_sums[w];
      target = static_cast<double>(total) * u;
    }
    unsigned reached = 0;
    for (; reached < kRowWarps; reached++) {
      if (static_cast<double>(before + memory->warp_sums[reached]) > target) break;
      before += memory->warp_sums[reached];
    }
    if (reached == kRowWarps) return best;
    begin += static_cast<int32_t>(reached) * stretch;
    end = min(begin + stretch, end);
    __syncthreads();
  }
  if (threadIdx.x == 0) memory->chosen = best;
  __syncthreads();
  if (warp == 0) {
    const uint64_t own = begin + lane < end ? kept(begin + lane) : 0;
    uint64_t running = own;
    for (unsigned by = 1; by < kWarp; by *= 2) {
      const uint64_t other = __shfl_up_sync(kAll, running, by);
      if (lane >= static_cast<int32_t>(by)) running += other;
    }
    const unsigned over = __ballot_sync(kAll, own > 0 && static_cast<double>(before + running) > target);
    if (over != 0 && lane == 0) memory->chosen = begin + __ffs(static_cast<int>(over)) - 1;
  }
  __syncthreads();
  return memory->chosen;
}

__global__ void __launch_bounds__(kRowThreads) sample(int32_t* ids, float* logprob, const float* logits,
                                                      const graft_sampling* params, int32_t V, Candidate* lists) {
  auto* memory = shared<Shared>();
  const int32_t r = blockIdx.x;
  const float* x = logits + static_cast<int64_t>(r) * V;
  const graft_sampling s = params[r];
  const RowBest best = best_of_row(x, V, &memory->scratch);
  int32_t id = best.index;
  if (id >= 0 && s.temperature >= kGreedy) {
    const bool cuts = (s.top_k > 0 && s.top_k < V) || s.top_p < 1;
    Row row{x, V, best.max, 1.0f / s.temperature, 0};
    Cut cut;
    if (cuts) cut = cut_row(memory, row, s, lists + static_cast<int64_t>(r) * V);
    row.least = static_cast<uint64_t>(ceil(decimal(s.min_p) * 1099511627776.0));
    id = draw_from(memory, row, cut, uniform(s.seed_lo, s.seed_hi, s.choice, s.position), best.index);
  }
  float result = NAN;
  if (logprob != nullptr && id >= 0) result = static_cast<float>(x[id] - log_sum_exp(x, V, best.max, &memory->scratch));
  if (threadIdx.x != 0) return;
  ids[r] = id;
  if (logprob != nullptr) logprob[r] = result;
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_sample(int32_t* ids, float* logprob, const float* logits, const graft_sampling* params,
                                int32_t N, int32_t V) {
  GRAFT_CHECK(ids && logits && params, "sample: null pointer");
  GRAFT_CHECK(N >= 0 && V > 0, "sample: N is %d and V is %d, expected N >= 0 and V > 0", N, V);
  if (N == 0) return GRAFT_OK;
  auto* lists = static_cast<Candidate*>(workspace(static_cast<uint64_t>(N) * V * sizeof(Candidate)));
  if (lists == nullptr) return GRAFT_OUT_OF_MEMORY;
  GRAFT_LAUNCH(sample, dim3(N), kRowThreads, sizeof(Shared), ids, logprob, logits, params, V, lists);
  return launched("sample");
}
