// Argument checks of the dense steps, the same in every library.
#pragma once
#include <cstdint>

#include "status.h"

namespace graft {

inline int32_t check_projections(const graft_projection* projections, int32_t count, const float* x,
                                 const float* norm_weight, const float* norm_bias, int32_t N, int32_t in,
                                 int32_t dtype) {
  GRAFT_CHECK(projections && x, "projections: a pointer is null");
  GRAFT_CHECK(count > 0 && count <= 16, "projections: %d of them, expected 1 to 16", count);
  GRAFT_CHECK(N > 0 && in > 0, "projections: N is %d and in is %d, expected above 0", N, in);
  GRAFT_CHECK(dtype == GRAFT_F32 || dtype == GRAFT_BF16, "projections: dtype is %d, expected 0 or 1", dtype);
  GRAFT_CHECK(norm_weight || !norm_bias, "projections: a norm's bias without its weight");
  for (int32_t i = 0; i < count; i++) {
    const graft_projection& one = projections[i];
    GRAFT_CHECK(one.y && one.packed, "projections: a pointer of number %d is null", i);
    GRAFT_CHECK(one.y != x, "projections: number %d would overwrite its input", i);
    GRAFT_CHECK(one.out > 0, "projections: out of number %d is %d, expected above 0", i, one.out);
    GRAFT_CHECK(one.activation >= GRAFT_IDENTITY && one.activation <= GRAFT_GELU_TANH,
                "projections: activation of number %d is %d, expected 0 to 2", i, one.activation);
  }
  return GRAFT_OK;
}

inline int32_t check_gated_linear(const float* h, const float* x, const float* norm_weight, const void* gate,
                                  const void* up, int32_t N, int32_t out, int32_t in, int32_t dtype) {
  GRAFT_CHECK(h && x && norm_weight && gate && up, "gated_linear: a pointer is null");
  GRAFT_CHECK(h != x, "gated_linear: the output would overwrite the input");
  GRAFT_CHECK(N > 0 && out > 0 && in > 0, "gated_linear: N is %d, out %d and in %d, expected above 0", N, out, in);
  GRAFT_CHECK(dtype == GRAFT_F32 || dtype == GRAFT_BF16, "gated_linear: dtype is %d, expected 0 or 1", dtype);
  return GRAFT_OK;
}

}  // namespace graft
