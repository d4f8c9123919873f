// Causal depthwise convolutions with a window of left context per sequence. A thread takes one channel and walks over a
// stretch of a sequence's rows with the window in registers; the state is advanced by a second launch, when all rows
// that read it are done.
#include "elements.h"
#include "host.h"

namespace graft::gpu {
namespace {

constexpr int32_t kMaxTaps = 4, kStretch = 64;

struct Conv {
  float* y;
  float* state;
  const float* u;
  const float* w;
  const float* bias;
  const int32_t* slots;
  const int32_t* seq_start;
  int32_t S, N, C, W;
  uint64_t state_stride;
  bool per_token, silu;
};

__device__ float* state_of(const Conv& conv, int32_t s) {
  return conv.state == nullptr ? nullptr : conv.state + static_cast<uint64_t>(conv.slots[s]) * conv.state_stride;
}

/// Row `at` of sequence s, counted from its first row here; -1 is the newest row of its state.
__device__ float input_at(const Conv& conv, const float* state, int32_t first, int32_t at, int32_t c) {
  if (at >= 0) return conv.u[static_cast<int64_t>(first + at) * conv.C + c];
  return state == nullptr ? 0.0f : state[static_cast<int64_t>(at + conv.W - 1) * conv.C + c];
}

/// grid: channels, stretches of the longest sequence, sequences
__global__ void convolve(Conv conv) {
  const int32_t c = blockIdx.x * blockDim.x + threadIdx.x, s = blockIdx.z;
  const int32_t first = conv.seq_start[s], count = conv.seq_start[s + 1] - first;
  const int32_t begin = blockIdx.y * kStretch, end = min(begin + kStretch, count);
  if (c >= conv.C || begin >= end) return;
  const float* state = state_of(conv, s);
  const int32_t W = conv.W;
  float taps[kMaxTaps] = {}, window[kMaxTaps] = {};
  for (int32_t j = 0; j < W - 1; j++) window[j + 1] = input_at(conv, state, first, begin - W + 1 + j, c);
  if (!conv.per_token)
    for (int32_t j = 0; j < W; j++) taps[j] = conv.w[static_cast<int64_t>(c) * W + j];
  const float offset = conv.bias == nullptr ? 0.0f : conv.bias[c];
  for (int32_t t = begin; t < end; t++) {
    const int64_t row = static_cast<int64_t>(first + t) * conv.C + c;
    for (int32_t j = 0; j < W - 1; j++) window[j] = window[j + 1];
    window[W - 1] = conv.u[row];
    float sum = offset;
    for (int32_t j = 0; j < W; j++) sum = fmaf(conv.per_token ? conv.w[row * W + j] : taps[j], window[j], sum);
    conv.y[row] = conv.silu ? silu(sum) : sum;
  }
}

/// grid: channels, sequences
__global__ void advance(Conv conv) {
  const int32_t c = blockIdx.x * blockDim.x + threadIdx.x, s = blockIdx.y;
  const int32_t first = conv.seq_start[s], count = conv.seq_start[s + 1] - first;
  if (c >= conv.C || count == 0) return;
  float* state = state_of(conv, s);
  float next[kMaxTaps];
  for (int32_t j = 0; j < conv.W - 1; j++) next[j] = input_at(conv, state, first, count - conv.W + 1 + j, c);
  for (int32_t j = 0; j < conv.W - 1; j++) state[static_cast<int64_t>(j) * conv.C + c] = next[j];
}

int32_t run(const char* op, const Conv& conv) {
  GRAFT_CHECK(conv.y && conv.u && conv.w && conv.seq_start, "%s: a pointer is null", op);
  GRAFT_CHECK(conv.S >= 0 && conv.N >= 0, "%s: S is %d and N is %d, expected neither below 0", op, conv.S, conv.N);
  GRAFT_CHECK(conv.C >= 1, "%s: C is %d, expected at least 1", op, conv.C);
  GRAFT_CHECK(conv.W >= 2 && conv.W <= kMaxTaps, "%s: W is %d, expected 2 to 4", op, conv.W);
  if (conv.state != nullptr) {
    GRAFT_CHECK(conv.slots, "%s: slots is a null pointer", op);
    GRAFT_CHECK(conv.state_stride >= static_cast<uint64_t>(conv.W - 1) * conv.C,
                "%s: state_stride is %llu floats, expected at least %d", op,
                static_cast<unsigned long long>(conv.state_stride), (conv.W - 1) * conv.C);
  }
  if (conv.N == 0 || conv.S == 0) return GRAFT_OK;
  constexpr unsigned kChannels = 128;
  const unsigned channels = blocks<unsigned>(conv.C, kChannels);
  // How the rows part among the sequences is known to the device alone: none has more than N.
  GRAFT_LAUNCH(convolve, dim3(channels, blocks(conv.N, kStretch), conv.S), kChannels, 0, conv);
  if (conv.state != nullptr) GRAFT_LAUNCH(advance, dim3(channels, conv.S), kChannels, 0, conv);
  return launched(op);
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_short_conv(float* y, float* conv_state, const float* u, const float* w, const float* bias,
                                    const int32_t* slots, const int32_t* seq_start, int32_t S, int32_t N, int32_t C,
                                    int32_t W, uint64_t state_stride, int32_t silu) {
  return run("short_conv", {y, conv_state, u, w, bias, slots, seq_start, S, N, C, W, state_stride, false, silu != 0});
}

extern "C" int32_t graft_dynamic_conv(float* y, float* conv_state, const float* u, const float* kernels,
                                      const int32_t* slots, const int32_t* seq_start, int32_t S, int32_t N, int32_t C,
                                      int32_t W, uint64_t state_stride) {
  return run("dynamic_conv",
             {y, conv_state, u, kernels, nullptr, slots, seq_start, S, N, C, W, state_stride, true, true});
}
