// AdamW with decoupled decay, and the sum of squares that gradient clipping needs:
//   g *= min(1, max_norm / (|g| + 1e-6));  p *= 1 - lr wd;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²
//   p -= lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps)
// Factors of a step are made in double, elements are float32. One read of p, m, v, g and one write of p, m, v.
#include <algorithm>
#include <cmath>

#include "decimal.h"
#include "graft.h"
#include "rows.h"
#include "status.h"
#include "threads.h"

using namespace graft;

namespace {
constexpr int64_t kChunk = 16384;
constexpr int64_t kExactRun = 1024;  // elements summed in float32 before they join a double
}  // namespace

extern "C" {

int32_t graft_sum_squares(double* out, const float* x, uint64_t n, int32_t accumulate) {
  GRAFT_CHECK(out && (x || n == 0), "sum_squares: null pointer");
  const int64_t count = int64_t(n), chunks = (count + kChunk - 1) / kChunk;
  double* sums = static_cast<double*>(thread_scratch(0, 3, size_t(chunks + 1) * sizeof(double)));
  parallel(chunks, [&](int64_t chunk) {
    double sum = 0;
    for (int64_t i = chunk * kChunk; i < std::min(count, (chunk + 1) * kChunk); i += kExactRun)
      sum += row_sum(int(std::min(kExactRun, count - i)), [&](vf a, int at, int lanes) {
        const vf v = load_part(x + i + at, lanes);
        return vfma(v, v, a);
      });
    sums[chunk] = sum;
  });
  double total = accumulate ? *out : 0;
  for (int64_t chunk = 0; chunk < chunks; chunk++) total += sums[chunk];
  *out = total;
  return GRAFT_OK;
}

int32_t graft_adamw(float* p, float* m, float* v, const float* g, const double* norm_squared, uint64_t n, int32_t step,
                    float lr, float beta1, float beta2, float eps, float weight_decay, float max_norm) {
  GRAFT_CHECK(p && m && v && g, "adamw: null pointer");
  GRAFT_CHECK(step >= 1, "adamw: step is %d, expected 1 or more", step);
  GRAFT_CHECK(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1, "adamw: betas are %g and %g, expected 0 <= beta < 1",
              beta1, beta2);
  const double b1 = decimal(beta1), b2 = decimal(beta2);
  const bool clip = norm_squared && max_norm > 0;
  const vf coefficient = vset(float(clip ? std::min(1.0, max_norm / (std::sqrt(*norm_squared) + 1e-6)) : 1));
  const vf keep1 = vset(float(b1)), keep2 = vset(float(b2)), add1 = vset(float(1 - b1)), add2 = vset(float(1 - b2));
  const vf rate = vset(float(lr / (1 - std::pow(b1, step)))), correction = vset(float(1 / (1 - std::pow(b2, step))));
  const vf decay = vset(float(1 - double(lr) * weight_decay)), epsilon = vset(eps);
  parallel_ranges(int64_t(n), kChunk, [&](int64_t begin, int64_t end) {
    vloop(end - begin, [&](int64_t i, int lanes) {
      const int64_t at = begin + i;
      const vf grad = vmul(load_part(g + at, lanes), coefficient);
      const vf first = vfma(keep1, load_part(m + at, lanes), vmul(add1, grad));
      const vf second = vfma(keep2, load_part(v + at, lanes), vmul(add2, vmul(grad, grad)));
      store_part(m + at, first, lanes);
      store_part(v + at, second, lanes);
      const vf change = vdiv(vmul(rate, first), vadd(vsqrt(vmul(second, correction)), epsilon));
      store_part(p + at, vsub(vmul(load_part(p + at, lanes), decay), change), lanes);
    });
  });
  return GRAFT_OK;
}

}  // extern "C"
