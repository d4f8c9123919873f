// Decays and write strengths of the linear-attention layers, plain loops.
//   gla:  a = logsigmoid(z) / normalizer                                        n elements
//   gdn:  g = -exp(A_log[h]) softplus(za + dt_bias[h]),  beta = beta_scale sigmoid(zb)      [N, Hv]
#include <cmath>

#include "recurrent_checks.h"

namespace graft {
namespace {
double softplus(double x) { return std::fmax(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
}  // namespace
}  // namespace graft

using namespace graft;

extern "C" int32_t graft_gla_gate(float* a, const float* z, uint64_t n, float normalizer) {
  GRAFT_CHECK(normalizer > 0, "gla_gate: normalizer is %g, expected above 0", normalizer);
  for (uint64_t i = 0; i < n; i++) a[i] = static_cast<float>(-softplus(-static_cast<double>(z[i])) / normalizer);
  return GRAFT_OK;
}

extern "C" int32_t graft_gla_gate_backward(float* dz, const float* da, const float* z, uint64_t n, float normalizer) {
  GRAFT_CHECK(normalizer > 0, "gla_gate_backward: normalizer is %g, expected above 0", normalizer);
  for (uint64_t i = 0; i < n; i++) dz[i] = static_cast<float>(da[i] * sigmoid(-static_cast<double>(z[i])) / normalizer);
  return GRAFT_OK;
}

extern "C" int32_t graft_gdn_gate(float* g, float* beta, const float* za, const float* zb, const float* A_log,
                                  const float* dt_bias, int32_t N, int32_t Hv, float beta_scale) {
  GRAFT_CHECK(N >= 0 && Hv >= 1, "gdn_gate: N is %d and Hv is %d, expected at least 0 and 1", N, Hv);
  for (int64_t i = 0; i < static_cast<int64_t>(N) * Hv; i++) {
    const double rate = std::exp(static_cast<double>(A_log[i % Hv]));
    g[i] = static_cast<float>(-rate * softplus(static_cast<double>(za[i]) + dt_bias[i % Hv]));
    beta[i] = static_cast<float>(beta_scale * sigmoid(zb[i]));
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_gdn_gate_backward(float* dza, float* dzb, float* dA_log, float* ddt_bias, const float* dg,
                                           const float* dbeta, const float* za, const float* zb, const float* A_log,
                                           const float* dt_bias, int32_t N, int32_t Hv, float beta_scale) {
  GRAFT_CHECK(N >= 0 && Hv >= 1, "gdn_gate_backward: N is %d and Hv is %d, expected at least 0 and 1", N, Hv);
  for (int64_t h = 0; h < Hv; h++) {
    const double rate = std::exp(static_cast<double>(A_log[h]));
    double rate_sum = 0, bias_sum = 0;
    for (int64_t i = h; i < static_cast<int64_t>(N) * Hv; i += Hv) {
      const double x = static_cast<double>(za[i]) + dt_bias[h], write = sigmoid(zb[i]);
      const double slope = -rate * sigmoid(x) * dg[i];
      dza[i] = static_cast<float>(slope);
      dzb[i] = static_cast<float>(beta_scale * write * (1 - write) * dbeta[i]);
      rate_sum += -rate * softplus(x) * dg[i];
      bias_sum += slope;
    }
    dA_log[h] += static_cast<float>(rate_sum);
    ddt_bias[h] += static_cast<float>(bias_sum);
  }
  return GRAFT_OK;
}
