// graft_gla_step as single ops.
#pragma once
#include "recurrent_step.h"

namespace graft {

inline int32_t compose_gla_step(float* y, float* state, float* conv_state, const graft_gla_layer* layer_host, float* q,
                                float* k, float* v, float* z, const float* gate, const int32_t* slots,
                                const int32_t* seq_start, const int32_t* start_pos, int32_t S, int32_t N,
                                uint64_t state_stride) {
  GRAFT_CHECK(y && layer_host && q && k && v && z, "gla_step: a pointer is null");
  const graft_gla_layer& l = *layer_host;
  const StepBatch batch{conv_state, slots, seq_start, S, N, state_stride};
  if (empty(batch)) return GRAFT_OK;
  int64_t offset = 0;
  GRAFT_TRY(convolve(q, l.q_conv, kConvolvedQ, batch, l.Hq * l.Dk, l.W, offset));
  GRAFT_TRY(convolve(k, l.k_conv, kConvolvedK, batch, l.Hkv * l.Dk, l.W, offset));
  GRAFT_TRY(convolve(v, l.v_conv, kConvolvedV, batch, l.Hkv * l.Dv, l.W, offset));
  const int64_t gates = int64_t{N} * l.Hkv * l.Dk, outputs = int64_t{N} * l.Hq * l.Dv;
  float* a = scratch_floats(kGates, gates);
  float* o = scratch_floats(kMixed, outputs);
  if (a == nullptr || o == nullptr) return GRAFT_OUT_OF_MEMORY;
  GRAFT_TRY(graft_gla_gate(a, z, gates, l.gate_normalizer));
  GRAFT_TRY(graft_gla(o, state, q, k, v, a, slots, seq_start, start_pos, S, N, l.Hq, l.Hkv, l.Dk, l.Dv, l.block,
                      l.state_dtype, state_stride, l.scale));
  return graft_gated_rms_norm(y, o, gate, l.o_norm, N * l.Hq, l.Dv, l.norm_eps);
}

}  // namespace graft
