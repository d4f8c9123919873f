// Argument checks of sampling, the same in every host library.
#pragma once
#include <cmath>
#include <cstdint>

#include "status.h"

namespace graft {

inline int32_t check_adjust_logits(const void* logits, const graft_adjustment* entries, const int32_t* entry_start,
                                   const void* masks, const int32_t* mask_rows, int32_t N, int32_t V, int32_t M) {
  GRAFT_CHECK(N >= 0 && V > 0 && M >= 0, "adjust_logits: N is %d, V is %d and M is %d, expected V > 0, others >= 0", N,
              V, M);
  GRAFT_CHECK(logits && entry_start && (M == 0 || (masks && mask_rows)), "adjust_logits: null pointer");
  GRAFT_CHECK(entry_start[0] == 0, "adjust_logits: the first entry is %d, expected 0", entry_start[0]);
  for (int32_t i = 0; i < N; i++) {
    GRAFT_CHECK(entry_start[i + 1] >= entry_start[i], "adjust_logits: entries of row %d end at %d, before they begin",
                i, entry_start[i + 1]);
    GRAFT_CHECK(!mask_rows || (mask_rows[i] >= -1 && mask_rows[i] < M),
                "adjust_logits: mask of row %d is %d, expected -1 to %d", i, mask_rows[i], M - 1);
  }
  GRAFT_CHECK(entries || entry_start[N] == 0, "adjust_logits: null pointer");
  for (int32_t i = 0; i < entry_start[N]; i++) {
    const graft_adjustment& e = entries[i];
    GRAFT_CHECK(e.id >= 0 && e.id < V, "adjust_logits: id %d of entry %d is outside 0..%d", e.id, i, V - 1);
    GRAFT_CHECK(e.scale > 0 && std::isfinite(e.scale), "adjust_logits: scale of entry %d is %g", i, e.scale);
    GRAFT_CHECK(std::isfinite(e.add), "adjust_logits: addend of entry %d is %g", i, e.add);
  }
  return GRAFT_OK;
}

inline int32_t check_sample(const void* ids, const void* logits, const graft_sampling* params, int32_t N, int32_t V) {
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
  return GRAFT_OK;
}

inline int32_t check_top_k(const void* ids, const void* logprob, const void* logits, const int32_t* counts, int32_t N,
                           int32_t V, int32_t K) {
  GRAFT_CHECK(ids && logprob && logits && counts, "top_k: null pointer");
  GRAFT_CHECK(N >= 0 && V > 0 && K > 0 && K <= V, "top_k: N is %d, V is %d and K is %d, expected 0 < K <= V", N, V, K);
  for (int32_t i = 0; i < N; i++)
    GRAFT_CHECK(counts[i] >= 0 && counts[i] <= K, "top_k: count of row %d is %d, expected 0 to %d", i, counts[i], K);
  return GRAFT_OK;
}

}  // namespace graft
