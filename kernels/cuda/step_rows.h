// Rows of a step of linear attention before and after the recurrence: convolutions over a window, norms of a head. The
// same operations in the same order for one row and for many.
#pragma once
#include "state_tile.h"

namespace graft::gpu {

constexpr int32_t kMostTaps = 4;

/// A depthwise convolution of one sequence: rows u[row * C + channel] from its first here, and the window before them
/// [W - 1, C], oldest first. Neither weight nor kernels: rows as they are.
struct StepConv {
  const float *weight, *bias, *u;
  /// One kernel per row and channel, [N, C, W], from the sequence's first row; else null.
  const float* kernels;
  float* window;
  int32_t C, W;

  __device__ bool there() const { return weight != nullptr || kernels != nullptr; }
  __device__ float input(int32_t row, int32_t c) const {
    if (row >= 0) return u[static_cast<int64_t>(row) * C + c];
    return window[static_cast<int64_t>(row + W - 1) * C + c];
  }
  /// Tap i of row `row`.
  __device__ float tap(int32_t row, int32_t c, int32_t i) const {
    return kernels != nullptr ? kernels[(static_cast<int64_t>(row) * C + c) * W + i]
                              : weight[static_cast<int64_t>(c) * W + i];
  }
  /// silu of channel c at row `row`; input(i) is what tap i multiplies.
  template <class Input>
  __device__ float of(int32_t row, int32_t c, Input&& input_at) const {
    float sum = bias == nullptr ? 0.0f : bias[c];
    for (int32_t i = 0; i < W; i++) sum = fmaf(tap(row, c, i), input_at(i), sum);
    return silu(sum);
  }
  __device__ float at(int32_t row, int32_t c) const {
    if (!there()) return u[static_cast<int64_t>(row) * C + c];
    return of(row, c, [&](int32_t i) { return input(row - W + 1 + i, c); });
  }
  /// Leaves the window behind `count` rows; the thread that calls it has channel c to itself.
  __device__ void advance(int32_t count, int32_t c) const {
    if (!there()) return;
    float next[kMostTaps];
#pragma unroll
    for (int32_t i = 0; i < kMostTaps - 1; i++)
      if (i < W - 1) next[i] = input(count - W + 1 + i, c);
#pragma unroll
    for (int32_t i = 0; i < kMostTaps - 1; i++)
      if (i < W - 1) window[static_cast<int64_t>(i) * C + c] = next[i];
  }
};

/// sum x² over a warp, the same bits in each lane.
__device__ __forceinline__ float warp_squares(const float* x, int32_t n) {
  float sum = 0;
  for (int32_t c = threadIdx.x % kWarp; c < n; c += kWarp) sum = fmaf(x[c], x[c], sum);
  return warp_sum(sum);
}
/// Of a sum of squares.
__device__ __forceinline__ float l2_factor(float squares, float eps) { return 1.0f / sqrtf(squares + eps); }
__device__ __forceinline__ float rms_factor(float squares, int32_t n, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(n) + eps);
}
/// One channel of an output head: norm, gain and gate.
__device__ __forceinline__ float finish(float o, float factor, float gain, const float* gate) {
  const float value = mul(mul(o, factor), gain);
  return gate == nullptr ? value : mul(value, silu(*gate));
}

/// Sum over pieces p of at(p), ascending.
template <class At>
__device__ __forceinline__ float sum_pieces(int32_t pieces, At&& at) {
  float sum = at(0);
  for (int32_t p = 1; p < pieces; p++) sum += at(p);
  return sum;
}

/// The part of a dot product over channels 16 p .. 16 p + 15 (or to the end), ascending; x and y at channel 16 p.
constexpr int32_t kDotPart = 16;
template <class X, class Y>
__device__ __forceinline__ float dot_part(const X* x, const Y* y, int32_t channels) {
  float sum = 0;
#pragma unroll
  for (int32_t c = 0; c < kDotPart; c += 4)
    if (c < channels) {
      const float4 a = load4(x + c), b = load4(y + c);
      sum = fmaf(a.x, b.x, sum);
      sum = fmaf(a.y, b.y, sum);
      sum = fmaf(a.z, b.z, sum);
      sum = fmaf(a.w, b.w, sum);
    }
  return sum;
}

/// Block f of a call in which sequence s has room for its blocks from seq_start[s] / 16 + 2 s on.
struct BlockOfCall {
  int32_t sequence, index;
};
__host__ __device__ inline int32_t first_block(int32_t row, int32_t s) { return row / kRowsOfBlock + 2 * s; }
__device__ inline BlockOfCall find_block(const int32_t* seq_start, int32_t S, int32_t f) {
  int32_t low = 0, high = S - 1;  // the last sequence whose first block is not behind f
  while (low < high) {
    const int32_t middle = (low + high + 1) / 2;
    if (first_block(seq_start[middle], middle) <= f)
      low = middle;
    else
      high = middle - 1;
  }
  return {low, f - first_block(seq_start[low], low)};
}

/// Rows [from, to) of block `index` of a sequence that are new, of its 16; none where from >= to.
struct BlockRows {
  int32_t from, to;
  /// The sequence's row that is row 0 of the block; below 0 in the first.
  int32_t first;
};
__device__ __forceinline__ BlockRows rows_of_block(int32_t start, int32_t count, int32_t index) {
  const int32_t first = index * kRowsOfBlock - start % kRowsOfBlock;
  return {max(0, -first), min(kRowsOfBlock, count - first), first};
}

/// Convolutions of a layer: all of q, k and v, or v's per-row kernels, or none; with windows where there are any.
inline int32_t check_convs(const char* op, const graft_conv& q, const graft_conv& k, const graft_conv& v,
                           const float* kernels, const float* conv_state, int32_t W) {
  const bool all = q.weight && k.weight && v.weight, any = q.weight || k.weight || v.weight;
  GRAFT_CHECK(!any || (all && kernels == nullptr), "%s: convolutions for some of q, k and v", op);
  if (!any && kernels == nullptr) return GRAFT_OK;
  GRAFT_CHECK(conv_state, "%s: a convolution without its windows", op);
  GRAFT_CHECK(W >= 2 && W <= kMostTaps, "%s: W is %d, expected 2 to %d", op, W, kMostTaps);
  return GRAFT_OK;
}

}  // namespace graft::gpu
