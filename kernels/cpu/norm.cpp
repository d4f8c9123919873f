// Normalisations of N rows of C. With r = 1/sqrt(mean x² + eps), n = x r:
//   rms y = w n;   layer y = w (x - mean)/sqrt(var + eps) + b;   gated y = w n silu(gate);   l2 y = x / sqrt(sum x² +
//   eps)
// Backward of n: dx = r (dn - n mean(n dn)). Each row has one order of sums. Gradients of w and b are summed over parts
// of the rows whose number depends on N alone, and the parts are added in ascending order. Bytes: one read of each
// input and one write of each output (a row stays in the first-level cache between its passes). Any N, C >= 1.
#include <algorithm>
#include <cmath>

#include "graft.h"
#include "rows.h"
#include "status.h"
#include "threads.h"

namespace graft {
namespace {

float sum_squares(const float* x, int C) {
  return row_sum(C, [x](vf a, int i, int n) {
    const vf v = load_part(x + i, n);
    return vfma(v, v, a);
  });
}

float inverse_rms(const float* x, int C, float eps) { return 1.f / std::sqrt(sum_squares(x, C) / float(C) + eps); }

struct Moments {
  float mean, inverse;
};

Moments moments(const float* x, int C, float eps) {
  const float mean = row_sum(C, [x](vf a, int i, int n) { return vadd(a, load_part(x + i, n)); }) / float(C);
  const vf m = vset(mean);
  const float squares = row_sum(C, [x, m](vf a, int i, int n) {
    const vf v = vsub(load_part(x + i, n), m);
    const vf d = n == VL ? v : vselect(vfirst(n), v, vzero());
    return vfma(d, d, a);
  });
  return {mean, 1.f / std::sqrt(squares / float(C) + eps)};
}

/// gate σ(gate) and its slope.
struct Silu {
  vf value, slope;
};
inline Silu silu(vf z) {
  const vf s = vsigmoid(z), g = vmul(z, s);
  return {g, vfma(g, vsub(vset(1.f), s), s)};
}

/// Runs row(i, parts[0], parts[1], ...) for every row, then adds the sums of the parts to outputs. A part is K arrays
/// of C floats.
template <int K, class F>
void with_column_sums(float* const (&outputs)[K], int64_t N, int C, F&& row) {
  if (N == 0) return;
  const int64_t parts = std::min<int64_t>(64, (N + 15) / 16), rows = (N + parts - 1) / parts;
  float* sums = static_cast<float*>(thread_scratch(0, 3, size_t(parts) * K * C * sizeof(float)));
  parallel(parts, [&](int64_t part) {
    float* own = sums + part * K * C;
    std::fill(own, own + int64_t(K) * C, 0.f);
    for (int64_t i = part * rows; i < std::min(N, (part + 1) * rows); i++) row(i, own);
  });
  parallel_ranges(C, 4096, [&](int64_t begin, int64_t end) {
    for (int k = 0; k < K; k++)
      vloop(end - begin, [&](int64_t c, int n) {
        const int64_t at = begin + c;
        vf sum = vzero();
        for (int64_t part = 0; part < parts; part++) sum = vadd(sum, load_part(sums + (part * K + k) * C + at, n));
        store_part(outputs[k] + at, vadd(load_part(outputs[k] + at, n), sum), n);
      });
  });
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" {

int32_t graft_rms_norm(float* y, const float* x, const float* w, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(y && x && w, "rms_norm: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "rms_norm: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  parallel_ranges(N, row_grain(C), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * C; at < end * C; at += C) {
      const vf r = vset(inverse_rms(x + at, C, eps));
      vloop(C, [&](int64_t c, int n) {
        store_part(y + at + c, vmul(vmul(load_part(x + at + c, n), r), load_part(w + c, n)), n);
      });
    }
  });
  return GRAFT_OK;
}

int32_t graft_rms_norm_backward(float* dx, float* dw, const float* dy, const float* x, const float* w, int32_t N,
                                int32_t C, float eps, int32_t accumulate_dx) {
  GRAFT_CHECK(dx && dw && dy && x && w, "rms_norm_backward: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "rms_norm_backward: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  with_column_sums<1>({dw}, N, C, [&](int64_t i, float* sums) {
    const int64_t at = i * C;
    const float inverse = inverse_rms(x + at, C, eps);
    const float dot = row_sum(C, [&](vf a, int c, int n) {
      return vfma(vmul(load_part(dy + at + c, n), load_part(w + c, n)), load_part(x + at + c, n), a);
    });
    const vf r = vset(inverse), mean = vset(dot * inverse / float(C));
    vloop(C, [&](int64_t c, int n) {
      const vf d = load_part(dy + at + c, n), norm = vmul(load_part(x + at + c, n), r);
      store_part(sums + c, vfma(d, norm, load_part(sums + c, n)), n);
      const vf g = vmul(r, vfnma(norm, mean, vmul(d, load_part(w + c, n))));
      store_part(dx + at + c, accumulate_dx ? vadd(load_part(dx + at + c, n), g) : g, n);
    });
  });
  return GRAFT_OK;
}

int32_t graft_layer_norm(float* y, const float* x, const float* w, const float* b, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(y && x && w && b, "layer_norm: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "layer_norm: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  parallel_ranges(N, row_grain(C), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * C; at < end * C; at += C) {
      const Moments stats = moments(x + at, C, eps);
      const vf mean = vset(stats.mean), r = vset(stats.inverse);
      vloop(C, [&](int64_t c, int n) {
        const vf norm = vmul(vsub(load_part(x + at + c, n), mean), r);
        store_part(y + at + c, vfma(norm, load_part(w + c, n), load_part(b + c, n)), n);
      });
    }
  });
  return GRAFT_OK;
}

int32_t graft_layer_norm_backward(float* dx, float* dw, float* db, const float* dy, const float* x, const float* w,
                                  int32_t N, int32_t C, float eps, int32_t accumulate_dx) {
  GRAFT_CHECK(dx && dw && db && dy && x && w, "layer_norm_backward: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "layer_norm_backward: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  with_column_sums<2>({dw, db}, N, C, [&](int64_t i, float* sums) {
    const int64_t at = i * C;
    const Moments stats = moments(x + at, C, eps);
    const vf mean = vset(stats.mean), r = vset(stats.inverse);
    const float total =
        row_sum(C, [&](vf a, int c, int n) { return vfma(load_part(dy + at + c, n), load_part(w + c, n), a); });
    const float dot = row_sum(C, [&](vf a, int c, int n) {
      const vf norm = vmul(vsub(load_part(x + at + c, n), mean), r);
      return vfma(vmul(load_part(dy + at + c, n), load_part(w + c, n)), norm, a);  // lanes beyond n: w is 0
    });
    const vf mean_dn = vset(total / float(C)), mean_ndn = vset(dot / float(C));
    vloop(C, [&](int64_t c, int n) {
      const vf d = load_part(dy + at + c, n), norm = vmul(vsub(load_part(x + at + c, n), mean), r);
      store_part(sums + c, vfma(d, norm, load_part(sums + c, n)), n);
      store_part(sums + C + c, vadd(d, load_part(sums + C + c, n)), n);
      const vf g = vmul(r, vfnma(norm, mean_ndn, vsub(vmul(d, load_part(w + c, n)), mean_dn)));
      store_part(dx + at + c, accumulate_dx ? vadd(load_part(dx + at + c, n), g) : g, n);
    });
  });
  return GRAFT_OK;
}

int32_t graft_gated_rms_norm(float* y, const float* x, const float* gate, const float* w, int32_t N, int32_t C,
                             float eps) {
  GRAFT_CHECK(y && x && w, "gated_rms_norm: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "gated_rms_norm: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  if (!gate) return graft_rms_norm(y, x, w, N, C, eps);
  parallel_ranges(N, row_grain(C, 8192), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * C; at < end * C; at += C) {
      const vf r = vset(inverse_rms(x + at, C, eps));
      vloop(C, [&](int64_t c, int n) {
        const vf z = load_part(gate + at + c, n), norm = vmul(vmul(load_part(x + at + c, n), r), load_part(w + c, n));
        store_part(y + at + c, vmul(norm, vmul(z, vsigmoid(z))), n);
      });
    }
  });
  return GRAFT_OK;
}

int32_t graft_gated_rms_norm_backward(float* dx, float* dgate, float* dw, const float* dy, const float* x,
                                      const float* gate, const float* w, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(dx && dw && dy && x && w, "gated_rms_norm_backward: null pointer");
  GRAFT_CHECK(!gate == !dgate, "gated_rms_norm_backward: gate and dgate must be given together");
  GRAFT_CHECK(N >= 0 && C > 0, "gated_rms_norm_backward: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  if (!gate) return graft_rms_norm_backward(dx, dw, dy, x, w, N, C, eps, 0);
  with_column_sums<1>({dw}, N, C, [&](int64_t i, float* sums) {
    const int64_t at = i * C;
    const float inverse = inverse_rms(x + at, C, eps);
    const float dot = row_sum(C, [&](vf a, int c, int n) {
      const vf dn = vmul(vmul(load_part(dy + at + c, n), load_part(w + c, n)), silu(load_part(gate + at + c, n)).value);
      return vfma(dn, load_part(x + at + c, n), a);
    });
    const vf r = vset(inverse), mean = vset(dot * inverse / float(C));
    vloop(C, [&](int64_t c, int n) {
      const vf d = load_part(dy + at + c, n), norm = vmul(load_part(x + at + c, n), r), weight = load_part(w + c, n);
      const Silu g = silu(load_part(gate + at + c, n));
      const vf dg = vmul(d, g.value);
      store_part(sums + c, vfma(dg, norm, load_part(sums + c, n)), n);
      store_part(dgate + at + c, vmul(vmul(vmul(d, weight), norm), g.slope), n);
      store_part(dx + at + c, vmul(r, vfnma(norm, mean, vmul(dg, weight))), n);
    });
  });
  return GRAFT_OK;
}

int32_t graft_l2_norm(float* y, const float* x, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(y && x, "l2_norm: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "l2_norm: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  parallel_ranges(N, row_grain(C), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * C; at < end * C; at += C) {
      const vf r = vset(1.f / std::sqrt(sum_squares(x + at, C) + eps));
      vloop(C, [&](int64_t c, int n) { store_part(y + at + c, vmul(load_part(x + at + c, n), r), n); });
    }
  });
  return GRAFT_OK;
}

int32_t graft_l2_norm_backward(float* dx, const float* dy, const float* x, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(dx && dy && x, "l2_norm_backward: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "l2_norm_backward: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  parallel_ranges(N, row_grain(C), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * C; at < end * C; at += C) {
      const float inverse = 1.f / std::sqrt(sum_squares(x + at, C) + eps);
      const float dot =
          row_sum(C, [&](vf a, int c, int n) { return vfma(load_part(dy + at + c, n), load_part(x + at + c, n), a); });
      const vf r = vset(inverse), along = vset(dot * inverse);
      vloop(C, [&](int64_t c, int n) {
        const vf norm = vmul(load_part(x + at + c, n), r);
        store_part(dx + at + c, vmul(r, vfnma(norm, along, load_part(dy + at + c, n))), n);
      });
    }
  });
  return GRAFT_OK;
}

}  // extern "C"
