// The composed form of graft_gla_step.
#include "gla_step.h"

extern "C" int32_t graft_gla_step(float* y, float* state, float* conv_state, const graft_gla_layer* layer_host,
                                  float* q, float* k, float* v, float* z, const float* gate, const int32_t* slots,
                                  const int32_t* seq_start, const int32_t* start_pos, int32_t S, int32_t N,
                                  uint64_t state_stride) {
  return graft::compose_gla_step(y, state, conv_state, layer_host, q, k, v, z, gate, slots, seq_start, start_pos, S, N,
                                 state_stride);
}
