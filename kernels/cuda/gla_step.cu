// graft_gla_step: which kernels take a call. Blocks of other than 16 rows, and heads beyond the
// device's shared memory, go through the single ops.
#include "../composed/gla_step.h"
#include "arrivals.h"
#include "gla_step.h"

namespace graft::gpu {
namespace {

int32_t check_step(const GlaStep& step) {
  const graft_gla_layer& layer = step.layer;
  const GlaShape& shape = step.shape;
  GRAFT_TRY(check_sizes("gla_step", shape.Hq, shape.Hkv, shape.Dk, shape.Dv));
  GRAFT_CHECK(layer.o_norm, "gla_step: a weight is null");
  GRAFT_CHECK(layer.gate_normalizer > 0, "gla_step: gate_normalizer is %g, expected above 0", layer.gate_normalizer);
  const double floats = layer.state_dtype == GRAFT_BF16 ? shape.slot_floats<bf16_bits>() : shape.slot_floats<float>();
  GRAFT_TRY(check_call("gla_step", step.sequences, floats, layer.state_dtype));
  return check_convs("gla_step", layer.q_conv, layer.k_conv, layer.v_conv, nullptr, step.conv_state, layer.W);
}

/// Whether a multiprocessor has memory for blocks of these sizes; the system takes 1 KiB of each.
bool fits(const GlaStep& step) {
  const size_t bytes = std::max(gla_decode_bytes(step), gla_prefill_bytes(step));
  return bytes + 1024 <= static_cast<size_t>(shared_bytes_of_multiprocessor());
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_gla_step(float* y, float* state, float* conv_state, const graft_gla_layer* layer_host,
                                  float* q, float* k, float* v, float* z, const float* gate, const int32_t* slots,
                                  const int32_t* seq_start, const int32_t* start_pos, int32_t S, int32_t N,
                                  uint64_t state_stride) {
  GRAFT_CHECK(y && layer_host && q && k && v && z, "gla_step: a pointer is null");
  const graft_gla_layer& l = *layer_host;
  if (S == 0 || N == 0) return GRAFT_OK;
  const GlaStep step{{state, slots, seq_start, start_pos, S, N, l.block, state_stride, report()},
                     {l.Hq, l.Hkv, l.Dk, l.Dv, l.block},
                     l,
                     y,
                     conv_state,
                     q,
                     k,
                     v,
                     z,
                     gate};
  GRAFT_TRY(check_step(step));
  if (l.block != kRowsOfBlock || !fits(step))
    return graft::compose_gla_step(y, state, conv_state, layer_host, q, k, v, z, gate, slots, seq_start, start_pos, S,
                                   N, state_stride);
  return N == S ? gla_decode(step) : gla_prefill(step);
}
