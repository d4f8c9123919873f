// graft_projections and graft_gated_linear as norms, linear layers and activations one after another.
#include "dense_step_checks.h"
#include "scratch.h"

using namespace graft;

namespace {

enum Buffer : int32_t { kNormed, kUp };

int32_t activate(float* y, int32_t activation, uint64_t n) {
  if (activation == GRAFT_SILU) return graft_silu(y, y, n);
  if (activation == GRAFT_GELU_TANH) return graft_gelu_tanh(y, y, n);
  return GRAFT_OK;
}

}  // namespace

extern "C" int32_t graft_projections(const graft_projection* projections_host, int32_t count, const float* x,
                                     const float* norm_weight, const float* norm_bias, int32_t N, int32_t in,
                                     int32_t dtype, float eps) {
  GRAFT_TRY(check_projections(projections_host, count, x, norm_weight, norm_bias, N, in, dtype));
  const float* n = x;
  if (norm_weight != nullptr) {
    float* normed = scratch_floats(kNormed, int64_t{N} * in);
    if (normed == nullptr) return GRAFT_OUT_OF_MEMORY;
    GRAFT_TRY(norm_bias ? graft_layer_norm(normed, x, norm_weight, norm_bias, N, in, eps)
                        : graft_rms_norm(normed, x, norm_weight, N, in, eps));
    n = normed;
  }
  for (int32_t i = 0; i < count; i++) {
    const graft_projection& one = projections_host[i];
    GRAFT_TRY(graft_linear(one.y, n, one.packed, one.bias, nullptr, N, one.out, in, dtype));
    GRAFT_TRY(activate(one.y, one.activation, static_cast<uint64_t>(N) * one.out));
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_gated_linear(float* h, const float* x, const float* norm_weight, const void* gate,
                                      const void* up, int32_t N, int32_t out, int32_t in, int32_t dtype, float eps) {
  GRAFT_TRY(check_gated_linear(h, x, norm_weight, gate, up, N, out, in, dtype));
  float* normed = scratch_floats(kNormed, int64_t{N} * in);
  float* upper = scratch_floats(kUp, int64_t{N} * out);
  if (normed == nullptr || upper == nullptr) return GRAFT_OUT_OF_MEMORY;
  GRAFT_TRY(graft_rms_norm(normed, x, norm_weight, N, in, eps));
  GRAFT_TRY(graft_linear(h, normed, gate, nullptr, nullptr, N, out, in, dtype));
  GRAFT_TRY(graft_linear(upper, normed, up, nullptr, nullptr, N, out, in, dtype));
  return graft_silu_mul(h, h, upper, static_cast<uint64_t>(N) * out);
}
