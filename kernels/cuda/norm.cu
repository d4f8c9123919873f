// Normalisations of N rows of C: a block a row, or a warp a row where rows are short.
#include "elements.h"
#include "host.h"
#include "row_norm.h"

namespace graft::gpu {
namespace {

/// The sum over a row's threads, the same bits in each of them.
template <bool Short>
__device__ __forceinline__ float row_sum(float x, float* scratch) {
  if constexpr (Short)
    return warp_sum(x);
  else
    return block_sum(x, scratch);
}

enum class Norm { rms, gated, l2 };

/// y = x r w silu(gate), r = 1 / sqrt(mean x² + eps); l2: y = x / sqrt(sum x² + eps)
template <Norm Kind, bool Short>
__global__ void norm_rows(float* y, const float* x, const float* gate, const float* w, int32_t N, int32_t C,
                          float eps) {
  depend_launch();
  depend_wait();
  const int32_t width = Short ? kWarp : blockDim.x, at = threadIdx.x % width;
  const int32_t row = Short ? blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp : blockIdx.x;
  if (row >= N) return;
  const int64_t first = static_cast<int64_t>(row) * C;
  float squares = 0;
  for (int32_t c = at; c < C; c += width) squares = fmaf(x[first + c], x[first + c], squares);
  const float sum = row_sum<Short>(squares, shared<float>());
  const float r = 1.0f / sqrtf(Kind == Norm::l2 ? sum + eps : sum / static_cast<float>(C) + eps);
  for (int32_t c = at; c < C; c += width) {
    float value = x[first + c] * r;
    if constexpr (Kind != Norm::l2) value *= w[c];
    if constexpr (Kind == Norm::gated) value *= silu(gate[first + c]);
    y[first + c] = value;
  }
}

__global__ void layer_norm(float* y, const float* x, const float* w, const float* b, int32_t C, float eps) {
  depend_launch();
  depend_wait();
  float *scratch = shared<float>(), *again = scratch + kWarp;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * C;
  float sum = 0;
  for (int32_t c = threadIdx.x; c < C; c += blockDim.x) sum += x[first + c];
  const float mean = block_sum(sum, scratch) / static_cast<float>(C);
  float squares = 0;
  for (int32_t c = threadIdx.x; c < C; c += blockDim.x) {
    const float d = x[first + c] - mean;
    squares = fmaf(d, d, squares);
  }
  const float r = 1.0f / sqrtf(block_sum(squares, again) / static_cast<float>(C) + eps);
  for (int32_t c = threadIdx.x; c < C; c += blockDim.x) y[first + c] = fmaf((x[first + c] - mean) * r, w[c], b[c]);
}

template <Norm Kind>
int32_t run(const char* op, float* y, const float* x, const float* gate, const float* w, int32_t N, int32_t C,
            float eps) {
  GRAFT_CHECK(N >= 0 && C > 0, "%s: N is %d and C is %d, expected N >= 0 and C > 0", op, N, C);
  if (N == 0) return GRAFT_OK;
  if (C <= kShortRow)
    GRAFT_LAUNCH_EARLY((norm_rows<Kind, true>), dim3(blocks(N, static_cast<int32_t>(kThreads / kWarp))), kThreads, 0, y,
                       x, gate, w, N, C, eps);
  else
    GRAFT_LAUNCH_EARLY((norm_rows<Kind, false>), dim3(N), kThreads, kWarp * sizeof(float), y, x, gate, w, N, C, eps);
  return launched(op);
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_rms_norm(float* y, const float* x, const float* w, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(y && x && w, "rms_norm: null pointer");
  return run<Norm::rms>("rms_norm", y, x, nullptr, w, N, C, eps);
}

extern "C" int32_t graft_gated_rms_norm(float* y, const float* x, const float* gate, const float* w, int32_t N,
                                        int32_t C, float eps) {
  GRAFT_CHECK(y && x && w, "rms_norm: null pointer");
  if (gate == nullptr) return run<Norm::rms>("rms_norm", y, x, nullptr, w, N, C, eps);
  return run<Norm::gated>("gated_rms_norm", y, x, gate, w, N, C, eps);
}

extern "C" int32_t graft_l2_norm(float* y, const float* x, int32_t N, int32_t C, float eps) {
  GRAFT_CHECK(y && x, "l2_norm: null pointer");
  return run<Norm::l2>("l2_norm", y, x, nullptr, nullptr, N, C, eps);
}

extern "C" int32_t graft_layer_norm(float* y, const float* x, const float* w, const float* b, int32_t N, int32_t C,
                                    float eps) {
  GRAFT_CHECK(y && x && w && b, "layer_norm: null pointer");
  GRAFT_CHECK(N >= 0 && C > 0, "layer_norm: N is %d and C is %d, expected N >= 0 and C > 0", N, C);
  if (N == 0) return GRAFT_OK;
  GRAFT_LAUNCH_EARLY(layer_norm, dim3(N), kThreads, 2 * kWarp * sizeof(float), y, x, w, b, C, eps);
  return launched("layer_norm");
}
