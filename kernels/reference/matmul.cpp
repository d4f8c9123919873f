// Plain matrix products of the reference library: one loop nest, double sums.
#include "status.h"

namespace graft {
namespace {

int32_t check(const void* out, const void* a, const void* b, int32_t N, int32_t M, int32_t K) {
  GRAFT_CHECK(out && a && b, "Cannot multiply matrices: a pointer is null");
  GRAFT_CHECK(N > 0 && M > 0 && K > 0, "Cannot multiply matrices: N = %d, M = %d, K = %d, expected positive sizes", N,
              M, K);
  return GRAFT_OK;
}

/// c[rows, cols] (+)= sum over k of a(i, k) b(k, j) (+ bias[j])
template <class A, class B>
void product(float* c, int64_t rows, int64_t cols, int64_t depth, const float* bias, bool accumulate, A&& a, B&& b) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) {
      double sum = accumulate ? c[i * cols + j] : 0.0;
      for (int64_t k = 0; k < depth; k++) sum += double(a(i, k)) * b(k, j);
      if (bias) sum += bias[j];
      c[i * cols + j] = static_cast<float>(sum);
    }
}

}  // namespace
}  // namespace graft

extern "C" int32_t graft_matmul_nt(float* y, const float* x, const float* w, const float* bias, int32_t N, int32_t M,
                                   int32_t K, int32_t accumulate) {
  GRAFT_TRY(graft::check(y, x, w, N, M, K));
  graft::product(
      y, N, M, K, bias, accumulate != 0, [&](int64_t n, int64_t k) { return x[n * K + k]; },
      [&](int64_t k, int64_t m) { return w[m * K + k]; });
  return GRAFT_OK;
}

extern "C" int32_t graft_matmul_nn(float* dx, const float* dy, const float* w, int32_t N, int32_t M, int32_t K,
                                   int32_t accumulate) {
  GRAFT_TRY(graft::check(dx, dy, w, N, M, K));
  graft::product(
      dx, N, K, M, nullptr, accumulate != 0, [&](int64_t n, int64_t m) { return dy[n * M + m]; },
      [&](int64_t m, int64_t k) { return w[m * K + k]; });
  return GRAFT_OK;
}

extern "C" int32_t graft_matmul_tn(float* dw, const float* dy, const float* x, int32_t N, int32_t M, int32_t K,
                                   int32_t accumulate) {
  GRAFT_TRY(graft::check(dw, dy, x, N, M, K));
  graft::product(
      dw, M, K, N, nullptr, accumulate != 0, [&](int64_t m, int64_t n) { return dy[n * M + m]; },
      [&](int64_t n, int64_t k) { return x[n * K + k]; });
  return GRAFT_OK;
}

extern "C" int32_t graft_sum_rows(float* db, const float* dy, int32_t N, int32_t M, int32_t accumulate) {
  GRAFT_CHECK(db && dy, "Cannot sum rows: a pointer is null");
  GRAFT_CHECK(N > 0 && M > 0, "Cannot sum rows: N = %d, M = %d, expected positive sizes", N, M);
  for (int64_t j = 0; j < M; j++) {
    double sum = accumulate ? db[j] : 0.0;
    for (int64_t i = 0; i < N; i++) sum += dy[i * M + j];
    db[j] = static_cast<float>(sum);
  }
  return GRAFT_OK;
}
