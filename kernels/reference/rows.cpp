// Row moves and element-wise sums of the reference library.
#include "bfloat16.h"
#include "row_checks.h"
#include "status.h"

using namespace graft;

/// The reference library packs a weight as it is, so `packed` changes nothing.
extern "C" int32_t graft_embedding(float* y, const int32_t* ids, const void* table, int32_t N, int32_t V, int32_t C,
                                   int32_t dtype, int32_t) {
  GRAFT_TRY(check_embedding(y, ids, table, N, V, C, dtype));
  for (int64_t i = 0; i < N; i++)
    for (int64_t c = 0; c < C; c++) {
      const int64_t at = int64_t{ids[i]} * C + c;
      y[i * C + c] = dtype == GRAFT_BF16 ? bf16_to_float(static_cast<const bf16*>(table)[at])
                                         : static_cast<const float*>(table)[at];
    }
  return GRAFT_OK;
}

extern "C" int32_t graft_embedding_backward(float* dtable, const int32_t* ids, const float* dy, int32_t N, int32_t V,
                                            int32_t C) {
  GRAFT_TRY(check_embedding(dtable, ids, dy, N, V, C, GRAFT_F32));
  for (int64_t i = 0; i < N; i++)
    for (int64_t c = 0; c < C; c++) dtable[int64_t{ids[i]} * C + c] += dy[i * C + c];
  return GRAFT_OK;
}

extern "C" int32_t graft_gather_rows(float* y, const float* x, const int32_t* index, int32_t M, int32_t C) {
  GRAFT_TRY(check_rows(y, x, index, M, C));
  for (int64_t i = 0; i < M; i++)
    for (int64_t c = 0; c < C; c++) y[i * C + c] = x[int64_t{index[i]} * C + c];
  return GRAFT_OK;
}

extern "C" int32_t graft_scatter_rows(float* y, const float* x, const int32_t* index, int32_t M, int32_t C) {
  GRAFT_TRY(check_rows(y, x, index, M, C));
  for (int64_t i = 0; i < M; i++)
    for (int64_t c = 0; c < C; c++) y[int64_t{index[i]} * C + c] = x[i * C + c];
  return GRAFT_OK;
}

extern "C" int32_t graft_add(float* y, const float* a, const float* b, uint64_t n) {
  GRAFT_TRY(check_elements(y, a, b, n));
  for (uint64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
  return GRAFT_OK;
}

extern "C" int32_t graft_axpy(float* y, const float* x, uint64_t n, float alpha) {
  GRAFT_TRY(check_elements(y, x, x, n));
  for (uint64_t i = 0; i < n; i++) y[i] = static_cast<float>(y[i] + double(alpha) * x[i]);
  return GRAFT_OK;
}
