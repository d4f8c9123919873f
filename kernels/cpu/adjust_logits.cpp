// Before a token is drawn, in place: x = (x > 0 ? x / scale : x * scale) + add at the ids of a row's entries, then -inf
// at every id that the row's mask leaves out. NaN and +inf show through a mask as NaN, because -inf is added. A task
// owns a row. Entries touch their own logits only; a mask reads and writes the row once, words that allow all of their
// 32 ids left out.
#include <algorithm>
#include <limits>

#include "graft.h"
#include "sampling_checks.h"
#include "simd.h"
#include "threads.h"

namespace graft {
namespace {

void adjust(float* x, const graft_adjustment* entries, int64_t count) {
  for (int64_t j = 0; j < count; j++) {
    const graft_adjustment& e = entries[j];
    x[e.id] = (x[e.id] > 0 ? x[e.id] / e.scale : x[e.id] * e.scale) + e.add;
  }
}

void apply_mask(float* x, const uint32_t* mask, int64_t V) {
  const vf zero = vzero(), minus_infinity = vset(-std::numeric_limits<float>::infinity());
  for (int64_t first = 0; first < V; first += 32) {
    const uint32_t word = mask[first / 32];
    if (word == 0xffffffffu) continue;
    vloop(std::min<int64_t>(32, V - first), [&](int64_t i, int lanes) {
      float* at = x + first + i;
      store_part(at, vadd(load_part(at, lanes), vselect(vmask_of(word >> i), zero, minus_infinity)), lanes);
    });
  }
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" int32_t graft_adjust_logits(float* logits, const graft_adjustment* entries, const int32_t* entry_start,
                                       const uint32_t* masks, const int32_t* mask_rows, int32_t N, int32_t V,
                                       int32_t M) {
  GRAFT_TRY(check_adjust_logits(logits, entries, entry_start, masks, mask_rows, N, V, M));
  parallel(N, [&](int64_t i) {
    float* x = logits + i * V;
    adjust(x, entries + entry_start[i], entry_start[i + 1] - entry_start[i]);
    if (mask_rows && mask_rows[i] >= 0) apply_mask(x, masks + int64_t(mask_rows[i]) * ((V + 31) / 32), V);
  });
  return GRAFT_OK;
}
