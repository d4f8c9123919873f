// graft_gdn_step as single ops.
#pragma once
#include "recurrent_step.h"

namespace graft {

/// v through the convolution whose kernels a JetBlock makes for every token.
inline int32_t convolve_dynamic(float*& v, const float* kernels, const StepBatch& batch, int32_t C, int32_t W) {
  GRAFT_CHECK(batch.conv_state != nullptr, "gdn_step: a convolution without its window");
  float* y = scratch_floats(kConvolvedV, int64_t{batch.N} * C);
  if (y == nullptr) return GRAFT_OUT_OF_MEMORY;
  GRAFT_TRY(graft_dynamic_conv(y, batch.conv_state, v, kernels, batch.slots, batch.seq_start, batch.S, batch.N, C, W,
                               batch.stride));
  v = y;
  return GRAFT_OK;
}

inline int32_t compose_gdn_step(float* y, float* state, float* conv_state, const graft_gdn_layer* layer_host, float* q,
                                float* k, float* v, const float* kernels, float* za, float* zb, const float* gate,
                                const int32_t* slots, const int32_t* seq_start, const int32_t* start_pos, int32_t S,
                                int32_t N, uint64_t state_stride) {
  GRAFT_CHECK(y && layer_host && q && k && v && za && zb, "gdn_step: a pointer is null");
  const graft_gdn_layer& l = *layer_host;
  const StepBatch batch{conv_state, slots, seq_start, S, N, state_stride};
  if (empty(batch)) return GRAFT_OK;
  if (kernels != nullptr) {
    GRAFT_TRY(convolve_dynamic(v, kernels, batch, l.Hv * l.Dv, l.W));
  } else {
    int64_t offset = 0;
    GRAFT_TRY(convolve(q, l.q_conv, kConvolvedQ, batch, l.Hk * l.Dk, l.W, offset));
    GRAFT_TRY(convolve(k, l.k_conv, kConvolvedK, batch, l.Hk * l.Dk, l.W, offset));
    GRAFT_TRY(convolve(v, l.v_conv, kConvolvedV, batch, l.Hv * l.Dv, l.W, offset));
  }
  GRAFT_TRY(graft_l2_norm(q, q, N * l.Hk, l.Dk, l.l2_eps));
  GRAFT_TRY(graft_l2_norm(k, k, N * l.Hk, l.Dk, l.l2_eps));
  float* g = scratch_floats(kGates, int64_t{N} * l.Hv);
  float* beta = scratch_floats(kStrengths, int64_t{N} * l.Hv);
  float* o = scratch_floats(kMixed, int64_t{N} * l.Hv * l.Dv);
  if (g == nullptr || beta == nullptr || o == nullptr) return GRAFT_OUT_OF_MEMORY;
  GRAFT_TRY(graft_gdn_gate(g, beta, za, zb, l.A_log, l.dt_bias, N, l.Hv, l.beta_scale));
  GRAFT_TRY(graft_gdn(o, state, q, k, v, g, beta, slots, seq_start, start_pos, S, N, l.Hk, l.Hv, l.Dk, l.Dv, l.block,
                      l.state_dtype, state_stride, l.scale));
  return graft_gated_rms_norm(y, o, gate, l.o_norm, N * l.Hv, l.Dv, l.norm_eps);
}

}  // namespace graft
