// Normalisations of N rows of C, plain loops with double sums. With r = 1/sqrt(mean x² + eps), n = x r:
//   rms y = w n;   layer y = w (x - mean)/sqrt(var + eps) + b;   gated y = w n silu(gate);   l2 y = x / sqrt(sum x² +
//   eps)
// Backward of n: dx = r (dn - n mean(n dn)).
#include <cmath>

#include "graft.h"
#include "status.h"

namespace {

double inverse_rms(const float* x, int32_t C, double eps) {
  double sum = 0;
  for (int32_t c = 0; c < C; c++) sum += double(x[c]) * x[c];
  return 1 / std::sqrt(sum / C + eps);
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void put(float& out, double value, bool accumulate) { out = float(accumulate ? out + value : value); }

}  // namespace

extern "C" {

int32_t graft_rms_norm(float* y, const float* x, const float* w, int32_t N, int32_t C, float eps) {
  return graft_gated_rms_norm(y, x, nullptr, w, N, C, eps);
}

int32_t graft_rms_norm_backward(float* dx, float* dw, const float* dy, const float* x, const float* w, int32_t N,
                                int32_t C, float eps, int32_t accumulate_dx) {
  GRAFT_CHECK(dx && dw && dy && x && w, "rms_norm_backward: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "rms_norm_backward: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  for (int32_t c = 0; c < C; c++) {
    double sum = 0;
    for (int32_t i = 0; i < N; i++) {
      const float* row = x + int64_t(i) * C;
      sum += dy[int64_t(i) * C + c] * row[c] * inverse_rms(row, C, eps);
    }
    dw[c] = float(dw[c] + sum);
  }
  for (int32_t i = 0; i < N; i++) {
    const int64_t at = int64_t(i) * C;
    const double r = inverse_rms(x + at, C, eps);
    double dot = 0;
    for (int32_t c = 0; c < C; c++) dot += double(dy[at + c]) * w[c] * x[at + c] * r;
    for (int32_t c = 0; c < C; c++)
      put(dx[at + c], r * (double(dy[at + c]) * w[c] - x[at + c] * r * dot / C), accumulate_dx);
  }
  return GRAFT_OK;
}

int32_t graft_layer_norm(float* y, const float* x, const float* w, const float* b, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(y && x && w && b, "layer_norm: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "layer_norm: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  for (int32_t i = 0; i < N; i++) {
    const int64_t at = int64_t(i) * C;
    double mean = 0, variance = 0;
    for (int32_t c = 0; c < C; c++) mean += x[at + c];
    mean /= C;
    for (int32_t c = 0; c < C; c++) variance += (x[at + c] - mean) * (x[at + c] - mean);
    const double r = 1 / std::sqrt(variance / C + eps);
    for (int32_t c = 0; c < C; c++) y[at + c] = float((x[at + c] - mean) * r * w[c] + b[c]);
  }
  return GRAFT_OK;
}

int32_t graft_layer_norm_backward(float* dx, float* dw, float* db, const float* dy, const float* x, const float* w,
                                  int32_t N, int32_t C, float eps, int32_t accumulate_dx) {
  GRAFT_CHECK(dx && dw && db && dy && x && w, "layer_norm_backward: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "layer_norm_backward: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  for (int32_t i = 0; i < N; i++) {
    const int64_t at = int64_t(i) * C;
    double mean = 0, variance = 0;
    for (int32_t c = 0; c < C; c++) mean += x[at + c];
    mean /= C;
    for (int32_t c = 0; c < C; c++) variance += (x[at + c] - mean) * (x[at + c] - mean);
    const double r = 1 / std::sqrt(variance / C + eps);
    double mean_dn = 0, mean_ndn = 0;
    for (int32_t c = 0; c < C; c++) {
      const double n = (x[at + c] - mean) * r, dn = double(dy[at + c]) * w[c];
      mean_dn += dn / C;
      mean_ndn += n * dn / C;
      dw[c] = float(dw[c] + dy[at + c] * n);
      db[c] = float(db[c] + dy[at + c]);
    }
    for (int32_t c = 0; c < C; c++) {
      const double n = (x[at + c] - mean) * r, dn = double(dy[at + c]) * w[c];
      put(dx[at + c], r * (dn - mean_dn - n * mean_ndn), accumulate_dx);
    }
  }
  return GRAFT_OK;
}

int32_t graft_gated_rms_norm(float* y, const float* x, const float* gate, const float* w, int32_t N, int32_t C,
                             float eps) {
  GRAFT_CHECK(y && x && w, "rms_norm: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "rms_norm: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  for (int32_t i = 0; i < N; i++) {
    const int64_t at = int64_t(i) * C;
    const double r = inverse_rms(x + at, C, eps);
    for (int32_t c = 0; c < C; c++) {
      const double z = gate ? gate[at + c] : 0;
      y[at + c] = float(x[at + c] * r * w[c] * (gate ? z * sigmoid(z) : 1));
    }
  }
  return GRAFT_OK;
}

int32_t graft_gated_rms_norm_backward(float* dx, float* dgate, float* dw, const float* dy, const float* x,
                                      const float* gate, const float* w, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(dx && dw && dy && x && w, "gated_rms_norm_backward: null pointer");
  GRAFT_CHECK(!gate == !dgate, "gated_rms_norm_backward: gate and dgate must be given together");
  GRAFT_CHECK(N >= 0 && C > 0, "gated_rms_norm_backward: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  for (int32_t i = 0; i < N; i++) {
    const int64_t at = int64_t(i) * C;
    const double r = inverse_rms(x + at, C, eps);
    double mean_ndn = 0;
    for (int32_t c = 0; c < C; c++) {
      const double n = x[at + c] * r, z = gate ? gate[at + c] : 0, s = sigmoid(z), g = gate ? z * s : 1;
      if (gate) dgate[at + c] = float(dy[at + c] * w[c] * n * s * (1 + z * (1 - s)));
      dw[c] = float(dw[c] + dy[at + c] * n * g);
      mean_ndn += n * dy[at + c] * w[c] * g / C;
    }
    for (int32_t c = 0; c < C; c++) {
      const double n = x[at + c] * r, z = gate ? gate[at + c] : 0, g = gate ? z * sigmoid(z) : 1;
      dx[at + c] = float(r * (double(dy[at + c]) * w[c] * g - n * mean_ndn));
    }
  }
  return GRAFT_OK;
}

int32_t graft_l2_norm(float* y, const float* x, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(y && x, "l2_norm: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "l2_norm: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  for (int32_t i = 0; i < N; i++) {
    const int64_t at = int64_t(i) * C;
    double sum = 0;
    for (int32_t c = 0; c < C; c++) sum += double(x[at + c]) * x[at + c];
    const double r = 1 / std::sqrt(sum + eps);
    for (int32_t c = 0; c < C; c++) y[at + c] = float(x[at + c] * r);
  }
  return GRAFT_OK;
}

int32_t graft_l2_norm_backward(float* dx, const float* dy, const float* x, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(dx && dy && x, "l2_norm_backward: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "l2_norm_backward: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  for (int32_t i = 0; i < N; i++) {
    const int64_t at = int64_t(i) * C;
    double sum = 0, dot = 0;
    for (int32_t c = 0; c < C; c++) sum += double(x[at + c]) * x[at + c];
    const double r = 1 / std::sqrt(sum + eps);
    for (int32_t c = 0; c < C; c++) dot += double(dy[at + c]) * x[at + c] * r;
    for (int32_t c = 0; c < C; c++) dx[at + c] = float(r * (dy[at + c] - x[at + c] * r * dot));
  }
  return GRAFT_OK;
}

}  // extern "C"
