// Before a token is drawn, in place: x = (x > 0 ? x / scale : x * scale) + add at the ids of a row's entries, then -inf
// at every id that the row's mask leaves out. NaN and +inf show through a mask as NaN.
#include <cmath>
#include <limits>

#include "graft.h"
#include "sampling_checks.h"

extern "C" int32_t graft_adjust_logits(float* logits, const graft_adjustment* entries, const int32_t* entry_start,
                                       const uint32_t* masks, const int32_t* mask_rows, int32_t N, int32_t V,
                                       int32_t M) {
  GRAFT_TRY(graft::check_adjust_logits(logits, entries, entry_start, masks, mask_rows, N, V, M));
  for (int64_t i = 0; i < N; i++) {
    float* x = logits + i * V;
    for (int32_t j = entry_start[i]; j < entry_start[i + 1]; j++) {
      float& at = x[entries[j].id];
      at = (at > 0 ? at / entries[j].scale : at * entries[j].scale) + entries[j].add;
    }
    if (!mask_rows || mask_rows[i] < 0) continue;
    const uint32_t* mask = masks + int64_t(mask_rows[i]) * ((V + 31) / 32);
    for (int32_t id = 0; id < V; id++)
      if (!(mask[id / 32] >> (id % 32) & 1)) x[id] += -std::numeric_limits<float>::infinity();
  }
  return GRAFT_OK;
}
