// Activations of n elements and their gradients, in double.
//   silu(x) = x s(x), s the logistic function;  gelu_tanh(x) = x/2 (1 + tanh u), u = sqrt(2/pi) (x + 0.044715 x³)
#include <cmath>

#include "graft.h"
#include "status.h"

namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double silu(double x) { return x * sigmoid(x); }
double silu_slope(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }

const double kGelu = std::sqrt(2 / M_PI);
double gelu(double x) { return 0.5 * x * (1 + std::tanh(kGelu * (x + 0.044715 * x * x * x))); }
double gelu_slope(double x) {
  const double t = std::tanh(kGelu * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kGelu * (1 + 3 * 0.044715 * x * x);
}

}  // namespace

extern "C" {

int32_t graft_silu(float* y, const float* x, uint64_t n) {
  GRAFT_CHECK(y && x, "silu: null pointer");
  for (uint64_t i = 0; i < n; i++) y[i] = float(silu(x[i]));
  return GRAFT_OK;
}

int32_t graft_silu_backward(float* dx, const float* dy, const float* x, uint64_t n) {
  GRAFT_CHECK(dx && dy && x, "silu_backward: null pointer");
  for (uint64_t i = 0; i < n; i++) dx[i] = float(dy[i] * silu_slope(x[i]));
  return GRAFT_OK;
}

int32_t graft_silu_mul(float* y, const float* gate, const float* up, uint64_t n) {
  GRAFT_CHECK(y && gate && up, "silu_mul: null pointer");
  for (uint64_t i = 0; i < n; i++) y[i] = float(silu(gate[i]) * up[i]);
  return GRAFT_OK;
}

int32_t graft_silu_mul_backward(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                                uint64_t n) {
  GRAFT_CHECK(dgate && dup && dy && gate && up, "silu_mul_backward: null pointer");
  for (uint64_t i = 0; i < n; i++) {
    const double d = dy[i], g = gate[i], u = up[i];
    dgate[i] = float(d * u * silu_slope(g));
    dup[i] = float(d * silu(g));
  }
  return GRAFT_OK;
}

int32_t graft_gelu_tanh(float* y, const float* x, uint64_t n) {
  GRAFT_CHECK(y && x, "gelu_tanh: null pointer");
  for (uint64_t i = 0; i < n; i++) y[i] = float(gelu(x[i]));
  return GRAFT_OK;
}

int32_t graft_gelu_tanh_backward(float* dx, const float* dy, const float* x, uint64_t n) {
  GRAFT_CHECK(dx && dy && x, "gelu_tanh_backward: null pointer");
  for (uint64_t i = 0; i < n; i++) dx[i] = float(dy[i] * gelu_slope(x[i]));
  return GRAFT_OK;
}

}  // extern "C"
