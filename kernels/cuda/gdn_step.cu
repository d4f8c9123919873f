// graft_gdn_step: which kernels take a call. Blocks of other than 16 rows, and heads beyond the
// device's shared memory, go through the single ops.
#include "../composed/gdn_step.h"
#include "arrivals.h"
#include "gdn_step.h"

namespace graft::gpu {
namespace {

int32_t check_step(const GdnStep& step) {
  const graft_gdn_layer& layer = step.layer;
  const GdnShape& shape = step.shape;
  GRAFT_TRY(check_sizes("gdn_step", shape.Hv, shape.Hk, shape.Dk, shape.Dv));
  GRAFT_CHECK(layer.A_log && layer.dt_bias && layer.o_norm, "gdn_step: a weight is null");
  const double floats = layer.state_dtype == GRAFT_BF16 ? shape.slot_floats<bf16_bits>() : shape.slot_floats<float>();
  GRAFT_TRY(check_call("gdn_step", step.sequences, floats, layer.state_dtype));
  return check_convs("gdn_step", layer.q_conv, layer.k_conv, layer.v_conv, step.kernels, step.conv_state, layer.W);
}

/// Whether a multiprocessor has memory for blocks of these sizes; the system takes 1 KiB of each.
bool fits(const GdnStep& step) {
  const size_t bytes = std::max(gdn_decode_bytes(step), gdn_prefill_bytes(step));
  return bytes + 1024 <= static_cast<size_t>(shared_bytes_of_multiprocessor());
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_gdn_step(float* y, float* state, float* conv_state, const graft_gdn_layer* layer_host,
                                  float* q, float* k, float* v, const float* kernels, float* za, float* zb,
                                  const float* gate, const int32_t* slots, const int32_t* seq_start,
                                  const int32_t* start_pos, int32_t S, int32_t N, uint64_t state_stride) {
  GRAFT_CHECK(y && layer_host && q && k && v && za && zb, "gdn_step: a pointer is null");
  const graft_gdn_layer& l = *layer_host;
  if (S == 0 || N == 0) return GRAFT_OK;
  const GdnStep step{{state, slots, seq_start, start_pos, S, N, l.block, state_stride, report()},
                     {l.Hk, l.Hv, l.Dk, l.Dv, l.block},
                     l,
                     y,
                     conv_state,
                     q,
                     k,
                     v,
                     kernels,
                     za,
                     zb,
                     gate,
                     nullptr};
  GRAFT_TRY(check_step(step));
  if (l.block != kRowsOfBlock || !fits(step))
    return graft::compose_gdn_step(y, state, conv_state, layer_host, q, k, v, kernels, za, zb, gate, slots, seq_start,
                                   start_pos, S, N, state_stride);
  return N == S ? gdn_decode(step) : gdn_prefill(step);
}
