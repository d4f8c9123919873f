// The ops that are products of rows with weights: a linear layer, several projections of normed rows, and the gated
// linear layer. Which kernel they go through depends on the weights' type and the number of rows, a row's bits do not
// depend on that number.
#include "dense_step_checks.h"
#include "few_rows.h"
#include "host.h"
#include "plain_rows.h"
#include "row_checks.h"

namespace graft::gpu {
namespace {

constexpr int32_t kMostProjections = 16;

int32_t multiply_plain(const Product* products, int32_t count, const float* x, const RowNorm& norm, int32_t N,
                       int32_t in) {
  const float* rows = x;
  if (norm.weight != nullptr) {
    auto* normed = static_cast<float*>(workspace(sizeof(float) * N * static_cast<uint64_t>(in)));
    if (normed == nullptr) return GRAFT_OUT_OF_MEMORY;
    GRAFT_TRY(norm.bias != nullptr ? graft_layer_norm(normed, x, norm.weight, norm.bias, N, in, norm.eps)
                                   : graft_rms_norm(normed, x, norm.weight, N, in, norm.eps));
    rows = normed;
  }
  multiply_plain_rows(products, count, rows, N, in);
  return GRAFT_OK;
}

int32_t multiply_many(const Product* products, int32_t count, const float* x, const RowNorm& norm, int32_t N,
                      int32_t in) {
  auto* arranged = static_cast<uint16_t*>(workspace(arranged_bytes(N, in)));
  if (arranged == nullptr) return GRAFT_OUT_OF_MEMORY;
  if (norm.weight != nullptr)
    arrange_normed_rows(arranged, x, norm, N, in);
  else
    arrange_many_rows(arranged, x, N, in);
  multiply_many_rows(products, count, arranged, N, in);
  return GRAFT_OK;
}

int32_t multiply(const char* op, const Product* products, int32_t count, const float* x, const RowNorm& norm, int32_t N,
                 int32_t in, int32_t dtype) {
  if (dtype == GRAFT_F32)
    GRAFT_TRY(multiply_plain(products, count, x, norm, N, in));
  else if (are_few_rows(N))
    GRAFT_TRY(multiply_few_rows(products, count, x, norm, N, in));
  else
    GRAFT_TRY(multiply_many(products, count, x, norm, N, in));
  return launched(op);
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_linear(float* y, const float* x, const void* packed, const float* bias, const float* residual,
                                int32_t N, int32_t out, int32_t in, int32_t dtype) {
  GRAFT_TRY(graft::check_linear(out, in, dtype));
  GRAFT_CHECK(N > 0, "Cannot run a linear layer: %d rows, expected at least one", N);
  GRAFT_CHECK(y && x && packed, "Cannot run a linear layer: a pointer is null");
  const Product product{y, packed, nullptr, bias, residual, out, GRAFT_IDENTITY};
  return multiply("linear", &product, 1, x, {}, N, in, dtype);
}

extern "C" int32_t graft_projections(const graft_projection* projections_host, int32_t count, const float* x,
                                     const float* norm_weight, const float* norm_bias, int32_t N, int32_t in,
                                     int32_t dtype, float eps) {
  GRAFT_TRY(graft::check_projections(projections_host, count, x, norm_weight, norm_bias, N, in, dtype));
  Product products[kMostProjections];
  for (int32_t i = 0; i < count; i++) {
    const graft_projection& one = projections_host[i];
    products[i] = {one.y, one.packed, nullptr, one.bias, nullptr, one.out, one.activation};
  }
  return multiply("projections", products, count, x, {norm_weight, norm_bias, eps}, N, in, dtype);
}

extern "C" int32_t graft_gated_linear(float* h, const float* x, const float* norm_weight, const void* gate,
                                      const void* up, int32_t N, int32_t out, int32_t in, int32_t dtype, float eps) {
  GRAFT_TRY(graft::check_gated_linear(h, x, norm_weight, gate, up, N, out, in, dtype));
  const Product product{h, gate, up, nullptr, nullptr, out, GRAFT_IDENTITY};
  return multiply("gated_linear", &product, 1, x, {norm_weight, nullptr, eps}, N, in, dtype);
}
