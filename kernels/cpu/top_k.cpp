// The most likely ids of a row, lowest first among equals, and their log-probabilities. The best ones so far are kept
// in order; in a scan of the row nearly every logit loses against the last of them, so the scan costs one comparison a
// logit. A task owns a row; the row's maximum and sum come first, chunk by chunk over all threads.
#include "graft.h"
#include "sampling_checks.h"
#include "softmax_row.h"

namespace graft {
namespace {

/// Writes the ids of the k largest of V logits.
void largest(int32_t* ids, const float* x, int64_t V, int32_t k) {
  int32_t count = 0;
  const auto offer = [&](int64_t id) {
    if (count == k && !(x[id] > x[ids[k - 1]])) return;
    int32_t at = count < k ? count++ : k - 1;
    for (; at > 0 && x[id] > x[ids[at - 1]]; at--) ids[at] = ids[at - 1];
    ids[at] = int32_t(id);
  };
  int64_t i = 0;
  for (; i < k; i++) offer(i);
  vloop(V - i, [&](int64_t at, int lanes) {
    const int64_t first = i + at;
    uint32_t bits = vbits(vless(vset(x[ids[k - 1]]), load_part(x + first, lanes))) & ((1u << lanes) - 1);
    for (; bits; bits &= bits - 1) offer(first + __builtin_ctz(bits));
  });
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" int32_t graft_top_k(int32_t* ids, float* logprob, const float* logits, const int32_t* counts, int32_t N,
                               int32_t V, int32_t K) {
  GRAFT_TRY(check_top_k(ids, logprob, logits, counts, N, V, K));
  const int64_t chunks = (V + kLogitChunk - 1) / kLogitChunk;
  RowStats* parts = static_cast<RowStats*>(thread_scratch(0, 3, size_t(N * chunks + 1) * sizeof(RowStats)));
  parallel_ranges(N * chunks, row_grain(std::min<int64_t>(V, kLogitChunk)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      if (counts[i / chunks] > 0) parts[i] = row_chunk_stats(logits + i / chunks * V, V, i % chunks, true);
  });
  parallel(N, [&](int64_t i) {
    if (counts[i] == 0) return;
    const float* x = logits + i * V;
    int32_t* best = ids + i * K;
    const RowStats row = merged(parts + i * chunks, chunks);
    largest(best, x, V, counts[i]);
    for (int32_t j = 0; j < counts[i]; j++) {
      logprob[i * K + j] = row.log_prob(x[best[j]]);
      if (row.answer() < 0) best[j] = row.answer();
    }
  });
  return GRAFT_OK;
}
