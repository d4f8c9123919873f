// Memory filled with random numbers, in the host libraries.
#include <cmath>

#include "bfloat16.h"
#include "random_number.h"
#include "status.h"

extern "C" int32_t graft_fill_random(void* dst, uint64_t n, int32_t dtype, int32_t seed, float scale) {
  using namespace graft;
  GRAFT_CHECK(n == 0 || dst, "Cannot fill %llu elements: the pointer is null", (unsigned long long)n);
  GRAFT_CHECK(dtype == GRAFT_F32 || dtype == GRAFT_BF16, "Cannot fill: dtype is %d, expected 0 or 1", dtype);
  GRAFT_CHECK(std::isfinite(scale), "Cannot fill: the scale is no number");
  const float step = scale * 0x1p-23f;
  const auto word = static_cast<uint32_t>(seed);
  if (dtype == GRAFT_F32)
    for (uint64_t i = 0; i < n; i++) static_cast<float*>(dst)[i] = random_number(word, i, step);
  else
    for (uint64_t i = 0; i < n; i++) static_cast<bf16*>(dst)[i] = float_to_bf16(random_number(word, i, step));
  return GRAFT_OK;
}
