// Decays and write strengths of the linear-attention layers.
//   gla:  a = logsigmoid(z) / normalizer                                        n elements
//   gdn:  g = -exp(A_log[h]) softplus(za + dt_bias[h]),  beta = beta_scale sigmoid(zb)      [N, Hv]
// Element by element, lanes along the last dimension; dA_log and ddt_bias are summed over the rows in ascending order
// by one task per group of heads.
#include <algorithm>

#include "recurrent_checks.h"
#include "simd.h"
#include "threads.h"

using namespace graft;

namespace {

constexpr int64_t kGrain = 8192;

inline vf vabs(vf x) { return vmax(x, vsub(vzero(), x)); }

/// log(1 + y) for 0 <= y <= 1 within about 2 ulp: 2 atanh(s), s = y / (2 + y) <= 1/3, as a series in s².
inline vf vlog1p(vf y) {
  const vf s = vdiv(y, vadd(y, vset(2.f))), s2 = vmul(s, s);
  vf p = vset(1.f / 15);
  p = vfma(p, s2, vset(1.f / 13));
  p = vfma(p, s2, vset(1.f / 11));
  p = vfma(p, s2, vset(1.f / 9));
  p = vfma(p, s2, vset(1.f / 7));
  p = vfma(p, s2, vset(1.f / 5));
  p = vfma(p, s2, vset(1.f / 3));
  const vf twice = vadd(s, s);
  return vfma(vmul(twice, s2), p, twice);
}

/// log(1 + e^x) without overflow, exact to rounding for large |x| as well.
inline vf vsoftplus(vf x) { return vadd(vmax(x, vzero()), vlog1p(vexp(vsub(vzero(), vabs(x))))); }

/// The slope of the sigmoid, e/(1+e)² with e = e^-|x|: right to rounding in both tails.
inline vf vsigmoid_slope(vf x) {
  const vf e = vexp(vsub(vzero(), vabs(x))), one = vadd(vset(1.f), e);
  return vdiv(e, vmul(one, one));
}

struct Gdn {
  const float *za, *zb, *A_log, *dt_bias;
  int64_t N, Hv;
  float beta_scale;
};

inline vf rate_of(const Gdn& call, int64_t h, int n) { return vexp(vload_n(call.A_log + h, n)); }

void gdn_gate_rows(float* g, float* beta, const Gdn& call, int64_t begin, int64_t end) {
  const vf scale = vset(call.beta_scale);
  vloop(call.Hv, [&](int64_t h, int n) {
    const vf minus_rate = vsub(vzero(), rate_of(call, h, n)), bias = vload_n(call.dt_bias + h, n);
    for (int64_t at = begin * call.Hv + h; at < end * call.Hv; at += call.Hv) {
      vstore_n(g + at, vmul(minus_rate, vsoftplus(vadd(vload_n(call.za + at, n), bias))), n);
      vstore_n(beta + at, vmul(scale, vsigmoid(vload_n(call.zb + at, n))), n);
    }
  });
}

struct GdnGradients {
  float *dza, *dzb, *dA_log, *ddt_bias;
  const float *dg, *dbeta;
};

void gdn_gate_backward_heads(const GdnGradients& grad, const Gdn& call, int64_t h, int n) {
  const vf minus_rate = vsub(vzero(), rate_of(call, h, n)), bias = vload_n(call.dt_bias + h, n);
  const vf scale = vset(call.beta_scale);
  vf rate_sum = vzero(), bias_sum = vzero();
  for (int64_t at = h; at < call.N * call.Hv; at += call.Hv) {
    const vf x = vadd(vload_n(call.za + at, n), bias), write = vsigmoid_slope(vload_n(call.zb + at, n));
    const vf dg = vmul(minus_rate, vload_n(grad.dg + at, n)), dx = vmul(dg, vsigmoid(x));
    vstore_n(grad.dza + at, dx, n);
    vstore_n(grad.dzb + at, vmul(vmul(scale, write), vload_n(grad.dbeta + at, n)), n);
    rate_sum = vfma(dg, vsoftplus(x), rate_sum);
    bias_sum = vadd(bias_sum, dx);
  }
  vstore_n(grad.dA_log + h, vadd(vload_n(grad.dA_log + h, n), rate_sum), n);
  vstore_n(grad.ddt_bias + h, vadd(vload_n(grad.ddt_bias + h, n), bias_sum), n);
}

}  // namespace

extern "C" int32_t graft_gla_gate(float* a, const float* z, uint64_t n, float normalizer) {
  GRAFT_CHECK(normalizer > 0, "gla_gate: normalizer is %g, expected above 0", normalizer);
  const vf divisor = vset(-normalizer);
  parallel_ranges(static_cast<int64_t>(n), kGrain, [&](int64_t begin, int64_t end) {
    vloop(end - begin, [&](int64_t i, int lanes) {
      const vf x = vload_n(z + begin + i, lanes);
      vstore_n(a + begin + i, vdiv(vsoftplus(vsub(vzero(), x)), divisor), lanes);
    });
  });
  return GRAFT_OK;
}

extern "C" int32_t graft_gla_gate_backward(float* dz, const float* da, const float* z, uint64_t n, float normalizer) {
  GRAFT_CHECK(normalizer > 0, "gla_gate_backward: normalizer is %g, expected above 0", normalizer);
  const vf divisor = vset(normalizer);
  parallel_ranges(static_cast<int64_t>(n), kGrain, [&](int64_t begin, int64_t end) {
    vloop(end - begin, [&](int64_t i, int lanes) {
      const vf slope = vsigmoid(vsub(vzero(), vload_n(z + begin + i, lanes)));
      vstore_n(dz + begin + i, vdiv(vmul(vload_n(da + begin + i, lanes), slope), divisor), lanes);
    });
  });
  return GRAFT_OK;
}

extern "C" int32_t graft_gdn_gate(float* g, float* beta, const float* za, const float* zb, const float* A_log,
                                  const float* dt_bias, int32_t N, int32_t Hv, float beta_scale) {
  GRAFT_CHECK(N >= 0 && Hv >= 1, "gdn_gate: N is %d and Hv is %d, expected at least 0 and 1", N, Hv);
  const Gdn call{za, zb, A_log, dt_bias, N, Hv, beta_scale};
  parallel_ranges(N, std::max<int64_t>(1, kGrain / Hv),
                  [&](int64_t begin, int64_t end) { gdn_gate_rows(g, beta, call, begin, end); });
  return GRAFT_OK;
}

extern "C" int32_t graft_gdn_gate_backward(float* dza, float* dzb, float* dA_log, float* ddt_bias, const float* dg,
                                           const float* dbeta, const float* za, const float* zb, const float* A_log,
                                           const float* dt_bias, int32_t N, int32_t Hv, float beta_scale) {
  GRAFT_CHECK(N >= 0 && Hv >= 1, "gdn_gate_backward: N is %d and Hv is %d, expected at least 0 and 1", N, Hv);
  const Gdn call{za, zb, A_log, dt_bias, N, Hv, beta_scale};
  const GdnGradients grad{dza, dzb, dA_log, ddt_bias, dg, dbeta};
  parallel_ranges(Hv, VL,
                  [&](int64_t h, int64_t end) { gdn_gate_backward_heads(grad, call, h, static_cast<int>(end - h)); });
  return GRAFT_OK;
}
