// Device memory filled with random numbers.
#include <cmath>

#include "elements.h"
#include "host.h"
#include "random_number.h"

namespace graft::gpu {
namespace {

__global__ void fill_floats(float* dst, uint64_t n, uint32_t seed, float step) {
  for_each(n, [&](uint64_t i) { dst[i] = random_number(seed, i, step); });
}

__global__ void fill_bf16(uint16_t* dst, uint64_t n, uint32_t seed, float step) {
  for_each(n, [&](uint64_t i) { dst[i] = to_bf16(random_number(seed, i, step)); });
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_fill_random(void* dst, uint64_t n, int32_t dtype, int32_t seed, float scale) {
  GRAFT_CHECK(n == 0 || dst, "Cannot fill %llu elements: the pointer is null", (unsigned long long)n);
  GRAFT_CHECK(dtype == GRAFT_F32 || dtype == GRAFT_BF16, "Cannot fill: dtype is %d, expected 0 or 1", dtype);
  GRAFT_CHECK(std::isfinite(scale), "Cannot fill: the scale is no number");
  if (n == 0) return GRAFT_OK;
  const float step = scale * 0x1p-23f;
  const auto word = static_cast<uint32_t>(seed);
  if (dtype == GRAFT_F32)
    GRAFT_LAUNCH(fill_floats, grid_for(n), kThreads, 0, static_cast<float*>(dst), n, word, step);
  else
    GRAFT_LAUNCH(fill_bf16, grid_for(n), kThreads, 0, static_cast<uint16_t*>(dst), n, word, step);
  return launched("fill_random");
}
