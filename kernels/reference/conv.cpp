// Causal depthwise convolutions, plain loops.
//   short:    y[t,c] = act(sum_j w[c,j] u[t-W+1+j, c] + bias[c])         w[C, W], the last tap meets the current token
//   dynamic:  y[t,c] = silu(sum_j kernels[t,c,j] u[t-W+1+j, c])          kernels[N, C, W]
// u, y: [N, C]. Rows before a sequence come from its conv state [W-1, C], oldest first, or are zero without one.
#include <cmath>
#include <vector>

#include "recurrent_checks.h"

namespace graft {
namespace {

double silu(double x) { return x / (1 + std::exp(-x)); }
double silu_slope(double x) {
  const double sigmoid = 1 / (1 + std::exp(-x));
  return sigmoid * (1 + x * (1 - sigmoid));
}

/// One sequence with its left context: row -(W-1) is the oldest row of the state.
struct Window {
  const float* u;      // [T, C]
  const float* state;  // [W-1, C] or NULL
  int32_t C, W;
  double at(int64_t row, int64_t c) const {
    if (row >= 0) return u[row * C + c];
    return state != nullptr ? state[(row + W - 1) * C + c] : 0.0;
  }
};

void advance_state(float* state, const Window& window, int64_t T) {
  const int64_t C = window.C, W = window.W;
  std::vector<float> next((W - 1) * C);
  for (int64_t i = 0; i < W - 1; i++)
    for (int64_t c = 0; c < C; c++) next[i * C + c] = static_cast<float>(window.at(T - (W - 1) + i, c));
  for (int64_t i = 0; i < (W - 1) * C; i++) state[i] = next[i];
}

/// The weight of tap j for channel c at row t: per token when token_stride is not 0.
struct Taps {
  const float* w;
  int64_t token_stride;
  int32_t W;
  double at(int64_t t, int64_t c, int64_t j) const { return w[t * token_stride + c * W + j]; }
};

double before_activation(const Window& window, const Taps& taps, const float* bias, int64_t first, int64_t t,
                         int64_t c) {
  double sum = bias != nullptr ? bias[c] : 0.0;
  for (int64_t j = 0; j < window.W; j++) sum += taps.at(first + t, c, j) * window.at(t - window.W + 1 + j, c);
  return sum;
}

void forward(float* y, float* conv_state, const float* u, const Taps& taps, const float* bias, const int32_t* slots,
             const int32_t* seq_start, int32_t S, int32_t C, int32_t W, uint64_t stride, bool activate) {
  for (int32_t s = 0; s < S; s++) {
    const int64_t first = seq_start[s], T = seq_start[s + 1] - first;
    float* state = conv_state != nullptr ? conv_state + static_cast<uint64_t>(slots[s]) * stride : nullptr;
    const Window window{u + first * C, state, C, W};
    for (int64_t t = 0; t < T; t++)
      for (int64_t c = 0; c < C; c++) {
        const double sum = before_activation(window, taps, bias, first, t, c);
        y[(first + t) * C + c] = static_cast<float>(activate ? silu(sum) : sum);
      }
    if (state != nullptr) advance_state(state, window, T);
  }
}

/// Gradient before the activation, [N, C].
std::vector<double> activation_gradient(const float* dy, const float* u, const Taps& taps, const float* bias,
                                        const int32_t* seq_start, int32_t S, int32_t N, int32_t C, int32_t W,
                                        bool activate) {
  std::vector<double> gradient(static_cast<size_t>(N) * C);
  for (int32_t s = 0; s < S; s++) {
    const int64_t first = seq_start[s];
    const Window window{u + first * C, nullptr, C, W};
    for (int64_t t = 0; first + t < seq_start[s + 1]; t++)
      for (int64_t c = 0; c < C; c++) {
        const double slope = activate ? silu_slope(before_activation(window, taps, bias, first, t, c)) : 1.0;
        gradient[(first + t) * C + c] = slope * dy[(first + t) * C + c];
      }
  }
  return gradient;
}

void input_gradient(float* du, const std::vector<double>& gradient, const Taps& taps, const int32_t* seq_start,
                    int32_t S, int32_t C, int32_t W) {
  for (int32_t s = 0; s < S; s++)
    for (int64_t t = seq_start[s]; t < seq_start[s + 1]; t++)
      for (int64_t c = 0; c < C; c++) {
        double sum = 0;  // row t is tap W-1-i of row t+i
        for (int64_t i = 0; i < W && t + i < seq_start[s + 1]; i++)
          sum += gradient[(t + i) * C + c] * taps.at(t + i, c, W - 1 - i);
        du[t * C + c] = static_cast<float>(sum);
      }
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" int32_t graft_short_conv(float* y, float* conv_state, const float* u, const float* w, const float* bias,
                                    const int32_t* slots, const int32_t* seq_start, int32_t S, int32_t N, int32_t C,
                                    int32_t W, uint64_t state_stride, int32_t silu) {
  GRAFT_TRY(check_conv("short_conv", seq_start, S, N, C, W));
  GRAFT_TRY(check_pointers("short_conv", {{"y", y}, {"u", u}, {"w", w}}));
  GRAFT_TRY(check_conv_state("short_conv", conv_state, slots, S, C, W, state_stride));
  forward(y, conv_state, u, {w, 0, W}, bias, slots, seq_start, S, C, W, state_stride, silu != 0);
  return GRAFT_OK;
}

extern "C" int32_t graft_short_conv_backward(float* du, float* dw, float* dbias, const float* dy, const float* u,
                                             const float* w, const float* bias, const int32_t* seq_start, int32_t S,
                                             int32_t N, int32_t C, int32_t W, int32_t silu) {
  GRAFT_TRY(check_conv("short_conv_backward", seq_start, S, N, C, W));
  GRAFT_TRY(check_pointers("short_conv_backward", {{"du", du}, {"dw", dw}, {"dy", dy}, {"u", u}, {"w", w}}));
  const Taps taps{w, 0, W};
  const auto gradient = activation_gradient(dy, u, taps, bias, seq_start, S, N, C, W, silu != 0);
  input_gradient(du, gradient, taps, seq_start, S, C, W);
  for (int64_t c = 0; c < C; c++) {
    double tap_sums[4] = {}, bias_sum = 0;
    for (int32_t s = 0; s < S; s++)
      for (int64_t t = seq_start[s]; t < seq_start[s + 1]; t++) {
        const Window window{u + static_cast<int64_t>(seq_start[s]) * C, nullptr, C, W};
        for (int64_t j = 0; j < W; j++) tap_sums[j] += gradient[t * C + c] * window.at(t - seq_start[s] - W + 1 + j, c);
        bias_sum += gradient[t * C + c];
      }
    for (int64_t j = 0; j < W; j++) dw[c * W + j] += static_cast<float>(tap_sums[j]);
    if (dbias != nullptr) dbias[c] += static_cast<float>(bias_sum);
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_dynamic_conv(float* y, float* conv_state, const float* u, const float* kernels,
                                      const int32_t* slots, const int32_t* seq_start, int32_t S, int32_t N, int32_t C,
                                      int32_t W, uint64_t state_stride) {
  GRAFT_TRY(check_conv("dynamic_conv", seq_start, S, N, C, W));
  GRAFT_TRY(check_pointers("dynamic_conv", {{"y", y}, {"u", u}, {"kernels", kernels}}));
  GRAFT_TRY(check_conv_state("dynamic_conv", conv_state, slots, S, C, W, state_stride));
  const Taps taps{kernels, static_cast<int64_t>(C) * W, W};
  forward(y, conv_state, u, taps, nullptr, slots, seq_start, S, C, W, state_stride, true);
  return GRAFT_OK;
}

extern "C" int32_t graft_dynamic_conv_backward(float* du, float* dkernels, const float* dy, const float* u,
                                               const float* kernels, const int32_t* seq_start, int32_t S, int32_t N,
                                               int32_t C, int32_t W) {
  GRAFT_TRY(check_conv("dynamic_conv_backward", seq_start, S, N, C, W));
  GRAFT_TRY(check_pointers("dynamic_conv_backward",
                           {{"du", du}, {"dkernels", dkernels}, {"dy", dy}, {"u", u}, {"kernels", kernels}}));
  const Taps taps{kernels, static_cast<int64_t>(C) * W, W};
  const auto gradient = activation_gradient(dy, u, taps, nullptr, seq_start, S, N, C, W, true);
  input_gradient(du, gradient, taps, seq_start, S, C, W);
  for (int32_t s = 0; s < S; s++)
    for (int64_t t = seq_start[s]; t < seq_start[s + 1]; t++) {
      const Window window{u + static_cast<int64_t>(seq_start[s]) * C, nullptr, C, W};
      for (int64_t c = 0; c < C; c++)
        for (int64_t j = 0; j < W; j++)
          dkernels[(t * C + c) * W + j] =
              static_cast<float>(gradient[t * C + c] * window.at(t - seq_start[s] - W + 1 + j, c));
    }
  return GRAFT_OK;
}
