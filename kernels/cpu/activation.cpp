// Activations of n elements and their gradients, one pass each.
//   silu(x) = x s(x), s the logistic function;  gelu_tanh(x) = x/2 (1 + tanh u) = x s(2u), u = sqrt(2/pi) (x + 0.044715
//   x³)
// Every output may be one of the inputs.
#include "activation.h"

#include "graft.h"
#include "status.h"
#include "threads.h"

namespace graft {
namespace {

template <class F>
void elementwise(uint64_t n, F&& f) {
  parallel_ranges(int64_t(n), 16384, [&](int64_t begin, int64_t end) {
    vloop(end - begin, [&](int64_t i, int lanes) { f(begin + i, lanes); });
  });
}

inline vf one_minus(vf a) { return vsub(vset(1.f), a); }

/// d/dx x s(x) = s + x s (1 - s)
inline vf silu_slope(vf x, vf s) { return vfma(vmul(x, s), one_minus(s), s); }

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" {

int32_t graft_silu(float* y, const float* x, uint64_t n) {
  GRAFT_CHECK(y && x, "silu: null pointer");
  elementwise(n, [&](int64_t i, int lanes) {
    const vf v = load_part(x + i, lanes);
    store_part(y + i, silu(v), lanes);
  });
  return GRAFT_OK;
}

int32_t graft_silu_backward(float* dx, const float* dy, const float* x, uint64_t n) {
  GRAFT_CHECK(dx && dy && x, "silu_backward: null pointer");
  elementwise(n, [&](int64_t i, int lanes) {
    const vf v = load_part(x + i, lanes);
    store_part(dx + i, vmul(load_part(dy + i, lanes), silu_slope(v, vsigmoid(v))), lanes);
  });
  return GRAFT_OK;
}

int32_t graft_silu_mul(float* y, const float* gate, const float* up, uint64_t n) {
  GRAFT_CHECK(y && gate && up, "silu_mul: null pointer");
  elementwise(n, [&](int64_t i, int lanes) {
    const vf g = load_part(gate + i, lanes);
    store_part(y + i, vmul(silu(g), load_part(up + i, lanes)), lanes);
  });
  return GRAFT_OK;
}

int32_t graft_silu_mul_backward(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                                uint64_t n) {
  GRAFT_CHECK(dgate && dup && dy && gate && up, "silu_mul_backward: null pointer");
  elementwise(n, [&](int64_t i, int lanes) {
    const vf g = load_part(gate + i, lanes), u = load_part(up + i, lanes), d = load_part(dy + i, lanes);
    const vf s = vsigmoid(g);
    store_part(dgate + i, vmul(vmul(d, u), silu_slope(g, s)), lanes);
    store_part(dup + i, vmul(d, vmul(g, s)), lanes);
  });
  return GRAFT_OK;
}

int32_t graft_gelu_tanh(float* y, const float* x, uint64_t n) {
  GRAFT_CHECK(y && x, "gelu_tanh: null pointer");
  elementwise(n, [&](int64_t i, int lanes) {
    const vf v = load_part(x + i, lanes);
    store_part(y + i, gelu_tanh(v), lanes);
  });
  return GRAFT_OK;
}

int32_t graft_gelu_tanh_backward(float* dx, const float* dy, const float* x, uint64_t n) {
  GRAFT_CHECK(dx && dy && x, "gelu_tanh_backward: null pointer");
  elementwise(n, [&](int64_t i, int lanes) {
    const vf v = load_part(x + i, lanes), s = gelu_gate(v);
    const vf inner = vfma(vmul(v, v), vset(2 * 0.7978845608f * 3 * 0.044715f), vset(2 * 0.7978845608f));  // 2 du/dx
    const vf slope = vfma(vmul(vmul(v, s), one_minus(s)), inner, s);
    store_part(dx + i, vmul(load_part(dy + i, lanes), slope), lanes);
  });
  return GRAFT_OK;
}

}  // extern "C"
