// Log-probabilities of given ids, the most likely ids of a row, and changes to logits before a draw. A block a row.
#include "host.h"
#include "logit_row.h"

namespace graft::gpu {
namespace {

__global__ void __launch_bounds__(kRowThreads)
    log_prob(float* logprob, int32_t* argmax, const float* logits, const int32_t* ids, int32_t V, Report* report) {
  auto* scratch = shared<RowScratch>();
  const int32_t row = blockIdx.x;
  const float* x = logits + static_cast<int64_t>(row) * V;
  const RowBest best = best_of_row(x, V, scratch);
  if (argmax != nullptr && threadIdx.x == 0) argmax[row] = best.index;
  if (logprob == nullptr) return;
  const int32_t id = ids[row];
  if (id < 0 || id >= V) {
    if (threadIdx.x == 0) complain(report, kIndex, row, id, V - 1);
    return;
  }
  float result = NAN;
  if (best.index >= 0) result = static_cast<float>(x[id] - log_sum_exp(x, V, best.max, scratch));
  if (threadIdx.x == 0) logprob[row] = result;
}

/// Each thread knows the best of its own that is left; the block takes the best of these, and its thread looks again.
__global__ void __launch_bounds__(kRowThreads) top_k(int32_t* ids, float* logprob, const float* logits,
                                                     const int32_t* counts, int32_t V, int32_t K, Report* report) {
  auto* scratch = shared<RowScratch>();
  const int32_t row = blockIdx.x, count = counts[row];
  if (count < 0 || count > K) {
    if (threadIdx.x == 0) complain(report, kIndex, row, count, K);
    return;
  }
  if (count == 0) return;
  const float* x = logits + static_cast<int64_t>(row) * V;
  ids += static_cast<int64_t>(row) * K;
  logprob += static_cast<int64_t>(row) * K;
  const RowBest best = best_of_row(x, V, scratch);
  if (best.index < 0) {
    for (int32_t j = threadIdx.x; j < count; j += kRowThreads) {
      ids[j] = best.index;
      logprob[j] = NAN;
    }
    return;
  }
  const double log_sum = log_sum_exp(x, V, best.max, scratch);
  const auto own_best = [&](uint64_t below) {
    uint64_t own = 0;
    for (int32_t i = threadIdx.x; i < V; i += kRowThreads) {
      const uint64_t rank = rank_of(x[i], i);
      if (rank < below && rank > own) own = rank;
    }
    return own;
  };
  uint64_t own = own_best(~uint64_t{0});
  for (int32_t j = 0; j < count; j++) {
    const uint64_t taken = block_best(own, scratch);
    const int32_t index = index_of(taken);
    if (threadIdx.x == 0) {
      ids[j] = index;
      logprob[j] = static_cast<float>(x[index] - log_sum);
    }
    if (own == taken) own = own_best(taken);
  }
}

__global__ void __launch_bounds__(kRowThreads)
    adjust(float* logits, const graft_adjustment* entries, const int32_t* entry_start, const uint32_t* masks,
           const int32_t* mask_rows, int32_t V, int32_t M, Report* report) {
  const int32_t row = blockIdx.x;
  float* x = logits + static_cast<int64_t>(row) * V;
  for (int32_t j = entry_start[row] + static_cast<int32_t>(threadIdx.x); j < entry_start[row + 1]; j += kRowThreads) {
    const graft_adjustment entry = entries[j];
    if (entry.id < 0 || entry.id >= V) {
      complain(report, kIndex, row, entry.id, V - 1);
      continue;
    }
    const float old = x[entry.id];
    x[entry.id] = (old > 0 ? old / entry.scale : old * entry.scale) + entry.add;
  }
  if (mask_rows == nullptr || mask_rows[row] < 0) return;
  if (mask_rows[row] >= M) {
    if (threadIdx.x == 0) complain(report, kIndex, row, mask_rows[row], M - 1);
    return;
  }
  __syncthreads();
  const uint32_t* mask = masks + static_cast<int64_t>(mask_rows[row]) * ((V + 31) / 32);
  // NaN and +inf show through as NaN.
  for (int32_t i = threadIdx.x; i < V; i += kRowThreads)
    if (!(mask[i / 32] >> (i % 32) & 1)) x[i] += -INFINITY;
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_log_prob(float* logprob, int32_t* argmax, const float* logits, const int32_t* ids, int32_t N,
                                  int32_t V) {
  GRAFT_CHECK(logits && (ids || !logprob), "log_prob: null pointer");
  GRAFT_CHECK(N >= 0 && V > 0, "log_prob: N is %d and V is %d, expected N >= 0 and V > 0", N, V);
  if (N == 0) return GRAFT_OK;
  GRAFT_LAUNCH(log_prob, dim3(N), kRowThreads, sizeof(RowScratch), logprob, argmax, logits, ids, V, report());
  return launched("log_prob");
}

extern "C" int32_t graft_top_k(int32_t* ids, float* logprob, const float* logits, const int32_t* counts, int32_t N,
                               int32_t V, int32_t K) {
  GRAFT_CHECK(ids && logprob && logits && counts, "top_k: null pointer");
  GRAFT_CHECK(N >= 0 && V > 0 && K > 0 && K <= V, "top_k: N is %d, V is %d and K is %d, expected 0 < K <= V", N, V, K);
  if (N == 0) return GRAFT_OK;
  GRAFT_LAUNCH(top_k, dim3(N), kRowThreads, sizeof(RowScratch), ids, logprob, logits, counts, V, K, report());
  return launched("top_k");
}

extern "C" int32_t graft_adjust_logits(float* logits, const graft_adjustment* entries, const int32_t* entry_start,
                                       const uint32_t* masks, const int32_t* mask_rows, int32_t N, int32_t V,
                                       int32_t M) {
  GRAFT_CHECK(N >= 0 && V > 0 && M >= 0, "adjust_logits: N is %d, V is %d and M is %d, expected V > 0, others >= 0", N,
              V, M);
  GRAFT_CHECK(logits && entry_start && (M == 0 || (masks && mask_rows)), "adjust_logits: null pointer");
  if (N == 0) return GRAFT_OK;
  GRAFT_LAUNCH(adjust, dim3(N), kRowThreads, 0, logits, entries, entry_start, masks, M == 0 ? nullptr : mask_rows, V, M,
               report());
  return launched("adjust_logits");
}
