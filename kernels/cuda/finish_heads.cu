// The end of a step of linear attention over many rows: norm and gate of every output head.
#include "host.h"
#include "scan_rows.h"

namespace graft::gpu {
namespace {

/// y in place; a warp a head. grid: heads of all rows
__global__ void finish_each(float* y, const float* gate, const float* gain, int64_t heads, int32_t Dv, float eps) {
  const int64_t head = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (head >= heads) return;
  float* o = y + head * Dv;
  const float factor = rms_factor(warp_squares(o, Dv), Dv, eps);
  for (int32_t c = threadIdx.x % kWarp; c < Dv; c += kWarp)
    o[c] = finish(o[c], factor, gain[c], gate == nullptr ? nullptr : gate + head * Dv + c);
}

}  // namespace

int32_t finish_heads(float* y, const float* gate, const float* gain, int64_t heads, int32_t Dv, float eps) {
  const int64_t grid = blocks<int64_t>(heads, kThreads / kWarp);
  GRAFT_LAUNCH(finish_each, dim3(static_cast<unsigned>(grid)), kThreads, 0, y, gate, gain, heads, Dv, eps);
  return launched("finish_heads");
}

}  // namespace graft::gpu
