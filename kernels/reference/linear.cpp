// Linear layers of the reference library: the packed weight is the row-major one, sums are double.
#include <cmath>
#include <cstring>

#include "bfloat16.h"
#include "row_checks.h"

namespace graft {
namespace {

/// x · w, with x rounded to bfloat16 where the weights are.
double dot(const float* x, const void* packed, int64_t first, int64_t in, int32_t dtype) {
  double sum = 0;
  for (int64_t k = 0; k < in; k++) {
    if (dtype == GRAFT_BF16)
      sum += double(bf16_to_float(float_to_bf16(x[k]))) * bf16_to_float(static_cast<const bf16*>(packed)[first + k]);
    else
      sum += double(x[k]) * static_cast<const float*>(packed)[first + k];
  }
  return sum;
}

}  // namespace
}  // namespace graft

extern "C" double graft_linear_packed_bytes(int32_t out, int32_t in, int32_t dtype) {
  if (graft::check_linear(out, in, dtype) != GRAFT_OK) return 0;
  return double(out) * in * (dtype == GRAFT_BF16 ? 2 : 4);
}

extern "C" int32_t graft_linear_pack(void* packed, const void* weight, int32_t out, int32_t in, int32_t dtype) {
  GRAFT_TRY(graft::check_linear(out, in, dtype));
  GRAFT_CHECK(packed && weight, "Cannot pack a linear weight: a pointer is null");
  std::memcpy(packed, weight, static_cast<size_t>(graft_linear_packed_bytes(out, in, dtype)));
  return GRAFT_OK;
}

extern "C" int32_t graft_linear(float* y, const float* x, const void* packed, const float* bias, const float* residual,
                                int32_t N, int32_t out, int32_t in, int32_t dtype) {
  GRAFT_TRY(graft::check_linear(out, in, dtype));
  GRAFT_CHECK(N > 0, "Cannot run a linear layer: %d rows, expected at least one", N);
  GRAFT_CHECK(y && x && packed, "Cannot run a linear layer: a pointer is null");
  for (int64_t i = 0; i < N; i++)
    for (int64_t j = 0; j < out; j++) {
      double sum = graft::dot(x + i * in, packed, j * in, in, dtype);
      if (bias) sum += bias[j];
      if (residual) sum += residual[i * out + j];
      y[i * out + j] = static_cast<float>(sum);
    }
  return GRAFT_OK;
}
