// Weights of linear layers as the kernels read them (packed.h).
#include "elements.h"
#include "host.h"
#include "packed.h"
#include "row_checks.h"

namespace graft::gpu {
namespace {

__global__ void pack(uint16_t* packed, const uint16_t* weight, int32_t out, int32_t in) {
  const uint64_t padded = static_cast<uint64_t>(output_tiles(out)) * kTile * input_tiles(in) * kTile;
  const int32_t columns = input_tiles(in) * kTile;
  for_each(padded, [&](uint64_t at) {
    const int32_t o = static_cast<int32_t>(at / columns), i = static_cast<int32_t>(at % columns);
    packed[packed_index(o, i, in)] = o < out && i < in ? weight[static_cast<int64_t>(o) * in + i] : uint16_t{0};
  });
}

__global__ void pack_plain(float* panels, const float* weight, int32_t out, int32_t in) {
  for_each(static_cast<uint64_t>(out) * in, [&](uint64_t at) {
    panels[plain_index(static_cast<int32_t>(at / in), static_cast<int32_t>(at % in), in)] = weight[at];
  });
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" double graft_linear_packed_bytes(int32_t out, int32_t in, int32_t dtype) {
  if (graft::check_linear(out, in, dtype) != GRAFT_OK) return 0;
  if (dtype == GRAFT_F32) return 4.0 * blocks(out, kPanel) * kPanel * in;
  return 2.0 * output_tiles(out) * kTile * input_tiles(in) * kTile;
}

extern "C" int32_t graft_linear_pack(void* packed, const void* weight, int32_t out, int32_t in, int32_t dtype) {
  GRAFT_TRY(graft::check_linear(out, in, dtype));
  GRAFT_CHECK(packed && weight, "Cannot pack a linear weight: a pointer is null");
  if (dtype == GRAFT_F32) {
    GRAFT_LAUNCH(pack_plain, grid_for(static_cast<uint64_t>(out) * in), kThreads, 0, static_cast<float*>(packed),
                 static_cast<const float*>(weight), out, in);
    return launched("linear_pack");
  }
  const double bytes = graft_linear_packed_bytes(out, in, dtype);
  GRAFT_LAUNCH(pack, grid_for(static_cast<uint64_t>(bytes / 2)), kThreads, 0, static_cast<uint16_t*>(packed),
               static_cast<const uint16_t*>(weight), out, in);
  return launched("linear_pack");
}
