// Rotary embedding of rotated halves.
#include "elements.h"
#include "host.h"

namespace graft::gpu {
namespace {

/// In double: an angle of many turns keeps its fraction.
__global__ void rope_table(float* table, const float* inv_freq, int32_t P, int32_t D) {
  const int32_t half = D / 2;
  for_each(static_cast<uint64_t>(P) * half, [&](uint64_t at) {
    const int64_t p = at / half;
    const int32_t i = at % half;
    const double angle = static_cast<float>(p) * inv_freq[i];
    table[p * D + i] = static_cast<float>(cos(angle));
    table[p * D + half + i] = static_cast<float>(sin(angle));
  });
}

/// One block a row.
__global__ void rope(float* y, const float* x, const int32_t* positions, const float* table, int32_t H, int32_t D,
                     int32_t P, float direction, Report* report) {
  const int32_t row = blockIdx.x, position = positions[row], half = D / 2;
  if (position < 0 || position >= P) {
    if (threadIdx.x == 0) complain(report, kIndex, row, position, P - 1);
    return;
  }
  const float *cosine = table + static_cast<int64_t>(position) * D, *sine = cosine + half;
  for (int32_t at = threadIdx.x; at < H * half; at += blockDim.x) {
    const int32_t h = at / half, j = at % half;
    const int64_t first = (static_cast<int64_t>(row) * H + h) * D + j;
    const float a = x[first], b = x[first + half], c = cosine[j], s = sine[j] * direction;
    y[first] = fmaf(a, c, -b * s);
    y[first + half] = fmaf(b, c, a * s);
  }
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_rope_table(float* table, const float* inv_freq, int32_t P, int32_t D) {
  GRAFT_CHECK(table && inv_freq, "rope_table: null pointer");
  GRAFT_CHECK(P > 0 && D > 0 && D % 2 == 0, "rope_table: P is %d and D is %d, expected P > 0 and D even", P, D);
  GRAFT_LAUNCH(rope_table, grid_for(static_cast<uint64_t>(P) * D / 2), kThreads, 0, table, inv_freq, P, D);
  return launched("rope_table");
}

extern "C" int32_t graft_rope(float* y, const float* x, const int32_t* positions, const float* table, int32_t N,
                              int32_t H, int32_t D, int32_t P, int32_t direction) {
  GRAFT_CHECK(y && x && positions && table, "rope: null pointer");
  GRAFT_CHECK(N >= 0 && H > 0 && D > 0 && D % 2 == 0, "rope: N %d, H %d, D %d, expected N >= 0, H > 0, D even", N, H,
              D);
  GRAFT_CHECK(direction == 1 || direction == -1, "rope: direction is %d, expected 1 or -1", direction);
  if (N == 0) return GRAFT_OK;
  GRAFT_LAUNCH(rope, dim3(N), kThreads, 0, y, x, positions, table, H, D, P, static_cast<float>(direction), report());
  return launched("rope");
}
