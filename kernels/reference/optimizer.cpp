// AdamW with decoupled decay, in double:
//   g *= min(1, max_norm / (|g| + 1e-6));  p *= 1 - lr wd;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²
//   p -= lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
#include <algorithm>
#include <cmath>

#include "decimal.h"
#include "graft.h"
#include "status.h"

extern "C" {

int32_t graft_sum_squares(double* out, const float* x, uint64_t n, int32_t accumulate) {
  GRAFT_CHECK(out && (x || n == 0), "sum_squares: null pointer");
  double sum = 0;
  for (uint64_t i = 0; i < n; i++) sum += double(x[i]) * x[i];
  *out = accumulate ? *out + sum : sum;
  return GRAFT_OK;
}

int32_t graft_adamw(float* p, float* m, float* v, const float* g, const double* norm_squared, uint64_t n, int32_t step,
                    float lr, float beta1, float beta2, float eps, float weight_decay, float max_norm) {
  GRAFT_CHECK(p && m && v && g, "adamw: null pointer");
  GRAFT_CHECK(step >= 1, "adamw: step is %d, expected 1 or more", step);
  GRAFT_CHECK(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, "adamw: betas are %g and %g, expected 0 <= beta < 1",
              beta1, beta2);
  const double b1 = graft::decimal(beta1), b2 = graft::decimal(beta2);
  const bool clip = norm_squared && max_norm > 0;
  const double coefficient = clip ? std::min(1.0, max_norm / (std::sqrt(*norm_squared) + 1e-6)) : 1;
  const double correction1 = 1 - std::pow(b1, step), correction2 = 1 - std::pow(b2, step);
  for (uint64_t i = 0; i < n; i++) {
    const double grad = g[i] * coefficient;
    m[i] = float(b1 * m[i] + (1 - b1) * grad);
    v[i] = float(b2 * v[i] + (1 - b2) * grad * grad);
    const double decayed = p[i] * (1 - double(lr) * weight_decay);
    p[i] = float(decayed - lr * (m[i] / correction1) / (std::sqrt(v[i] / correction2) + eps));
  }
  return GRAFT_OK;
}

}  // extern "C"
