// Softmax attention in float32 arithmetic: for a float32 cache, and for head sizes and devices that the kernels on
// tensor cores are not made for.
#include "host.h"
#include "softmax_tile.h"

namespace graft::gpu {
namespace {

constexpr int32_t kWarps = 4;

/// One warp a row and query head; grid: rows * query heads / warps. Lanes are keys for the scores and channels for the
/// sum.
template <class Cache>
__global__ void plain(Attention a, int32_t D) {
  constexpr int32_t kChannels = 8;  // of 32 lanes
  const int32_t at = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (at >= a.N * a.Hq) return;
  const int32_t row = at / a.Hq, head = at % a.Hq, h = head / (a.Hq / a.Hkv);
  int32_t s = 0;
  while (a.seq_start[s + 1] <= row) s++;
  const int32_t* table = a.table(s);
  const int32_t length = a.start_pos[s] + row - a.seq_start[s] + 1;
  if (length < 1 || length > a.longest) {
    if (lane == 0) complain(a.report, kIndex, s, length - 1, a.longest - 1);
    return;
  }
  const float* q = a.q + (static_cast<int64_t>(row) * a.Hq + head) * D;
  const auto* k_cache = static_cast<const Cache*>(a.k_cache);
  const auto* v_cache = static_cast<const Cache*>(a.v_cache);
  const auto read = [](const Cache* p) {
    if constexpr (sizeof(Cache) == 2)
      return to_float(*p);
    else
      return *p;
  };
  const auto key_at = [&](int32_t position) {
    return static_cast<int64_t>(max(a.cache_row(table, position, h), 0)) * D;
  };
  float maximum = -INFINITY, sum = 0, values[kChannels] = {};
  for (int32_t first = 0; first < length; first += kWarp) {
    float score = -INFINITY;
    if (first + lane < length) {
      const Cache* key = k_cache + key_at(first + lane);
      score = 0;
      for (int32_t d = 0; d < D; d++) score = fmaf(q[d], read(key + d), score);
      score *= a.scale;
    }
    const float top = fmaxf(maximum, warp_max(score)), correction = exp2f(maximum - top), weight = exp2f(score - top);
    maximum = top;
    sum = fmaf(sum, correction, warp_sum(weight));
#pragma unroll
    for (int32_t i = 0; i < kChannels; i++) values[i] *= correction;
    for (int32_t j = 0; j < 32 && first + j < length; j++) {
      const Cache* value = v_cache + key_at(first + j);
      const float w = __shfl_sync(kAll, weight, j);
#pragma unroll
      for (int32_t i = 0; i < kChannels; i++)
        if (lane + i * 32 < D) values[i] = fmaf(w, read(value + lane + i * 32), values[i]);
    }
  }
  float* o = a.o + (static_cast<int64_t>(row) * a.Hq + head) * D;
#pragma unroll
  for (int32_t i = 0; i < kChannels; i++)
    if (lane + i * 32 < D) o[lane + i * 32] = values[i] / sum;
}

}  // namespace

int32_t attend_plain(const Attention& a, int32_t D, int32_t kv_dtype) {
  const dim3 grid(static_cast<unsigned>(blocks<int64_t>(static_cast<int64_t>(a.N) * a.Hq, kWarps)));
  if (kv_dtype == GRAFT_BF16)
    GRAFT_LAUNCH(plain<uint16_t>, grid, kWarps * kWarp, 0, a, D);
  else
    GRAFT_LAUNCH(plain<float>, grid, kWarps * kWarp, 0, a, D);
  return GRAFT_OK;
}

}  // namespace graft::gpu
