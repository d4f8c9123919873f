// Decays and write strengths of the linear-attention layers.
#include "elements.h"
#include "host.h"

namespace graft::gpu {
namespace {

__global__ void gla_gate(float* a, const float* z, uint64_t n, float normalizer) {
  for_each(n, [&](uint64_t i) { a[i] = -softplus(-z[i]) / normalizer; });
}

__global__ void gdn_gate(float* g, float* beta, const float* za, const float* zb, const float* A_log,
                         const float* dt_bias, uint64_t n, int32_t Hv, float beta_scale) {
  for_each(n, [&](uint64_t i) {
    const int32_t h = i % Hv;
    g[i] = -expf(A_log[h]) * softplus(za[i] + dt_bias[h]);
    beta[i] = beta_scale * sigmoid(zb[i]);
  });
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_gla_gate(float* a, const float* z, uint64_t n, float normalizer) {
  GRAFT_CHECK(normalizer > 0, "gla_gate: normalizer is %g, expected above 0", normalizer);
  if (n == 0) return GRAFT_OK;
  GRAFT_LAUNCH(gla_gate, grid_for(n), kThreads, 0, a, z, n, normalizer);
  return launched("gla_gate");
}

extern "C" int32_t graft_gdn_gate(float* g, float* beta, const float* za, const float* zb, const float* A_log,
                                  const float* dt_bias, int32_t N, int32_t Hv, float beta_scale) {
  GRAFT_CHECK(N >= 0 && Hv >= 1, "gdn_gate: N is %d and Hv is %d, expected at least 0 and 1", N, Hv);
  if (N == 0) return GRAFT_OK;
  const uint64_t n = static_cast<uint64_t>(N) * Hv;
  GRAFT_LAUNCH(gdn_gate, grid_for(n), kThreads, 0, g, beta, za, zb, A_log, dt_bias, n, Hv, beta_scale);
  return launched("gdn_gate");
}
