// Activations of n elements.
#include "elements.h"
#include "host.h"

namespace graft::gpu {
namespace {

__global__ void silu_of(float* y, const float* x, uint64_t n) {
  depend_launch();
  depend_wait();
  for_each(n, [&](uint64_t i) { y[i] = silu(x[i]); });
}

__global__ void silu_mul(float* y, const float* gate, const float* up, uint64_t n) {
  depend_launch();
  depend_wait();
  for_each(n, [&](uint64_t i) { y[i] = silu(gate[i]) * up[i]; });
}

__global__ void gelu_tanh_of(float* y, const float* x, uint64_t n) {
  depend_launch();
  depend_wait();
  for_each(n, [&](uint64_t i) { y[i] = gelu_tanh(x[i]); });
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_silu(float* y, const float* x, uint64_t n) {
  GRAFT_CHECK(y && x, "silu: null pointer");
  if (n == 0) return GRAFT_OK;
  GRAFT_LAUNCH_EARLY(silu_of, grid_for(n), kThreads, 0, y, x, n);
  return launched("silu");
}

extern "C" int32_t graft_silu_mul(float* y, const float* gate, const float* up, uint64_t n) {
  GRAFT_CHECK(y && gate && up, "silu_mul: null pointer");
  if (n == 0) return GRAFT_OK;
  GRAFT_LAUNCH_EARLY(silu_mul, grid_for(n), kThreads, 0, y, gate, up, n);
  return launched("silu_mul");
}

extern "C" int32_t graft_gelu_tanh(float* y, const float* x, uint64_t n) {
  GRAFT_CHECK(y && x, "gelu_tanh: null pointer");
  if (n == 0) return GRAFT_OK;
  GRAFT_LAUNCH_EARLY(gelu_tanh_of, grid_for(n), kThreads, 0, y, x, n);
  return launched("gelu_tanh");
}
