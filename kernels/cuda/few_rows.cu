// Products of few rows. A block has eight warps, one for each slice of the inputs, and takes groups of output tiles in
// turn; each lane copies the weights that it multiplies into a ring of its own in shared memory, several stages ahead
// and on from one group to the next. It starts early (device.h): the ring fills while the kernel before drains, and the
// next kernel may start as soon as the last weights are on their way.
#include "few_rows_block.h"

namespace graft::gpu {
namespace {

template <int32_t RowTiles, int32_t Group, int32_t Own>
__global__ void __launch_bounds__(kBlock, RowTiles < 4 ? 2 : 1) few_rows(const __grid_constant__ FewRows plan) {
  using F = Form<RowTiles, Group, Own>;
  float* sums_of_slices = reinterpret_cast<float*>(shared_bytes() + F::kRingBytes);
  uint2* own_rows = reinterpret_cast<uint2*>(shared_bytes() + F::kFixedBytes);
  Stream<RowTiles, Group, Own> stream(plan);
  stream.fill();
  if constexpr (Own > 0) {
    NormedRows<Own> rows{plan.x, plan.norm, plan.N, plan.in, stream.tiles * kTile, {}, {}, {}};
    rows.prefetch();
    depend_wait();
    rows.measure(sums_of_slices);
    auto* elements = reinterpret_cast<uint16_t*>(own_rows);
    rows.put_each([&](int32_t r, int32_t c, float value) {
      const int32_t unit = (c / kTile * plan.N + r) * 4 + c % 8 / 2;
      elements[unit * 4 + c / 8 % 2 * 2 + c % 2] = static_cast<uint16_t>(to_bf16_pair(value, 0.0f));
    });
    __syncthreads();
  } else {
    depend_wait();
    stream.fill_rows();
  }
  for (int32_t group = blockIdx.x; group < stream.groups; group += gridDim.x) {
    const Puts<RowTiles, Group, Own> puts(plan, group);
    float sums[Group][RowTiles][4] = {};
    for (int32_t k = stream.begin; k < stream.end; k += F::kSteps) stream.multiply(sums, k, own_rows);
    auto* mine = reinterpret_cast<float4*>(sums_of_slices) + threadIdx.x / kWarp * (F::kSums / 4) + stream.lane;
    if (group != static_cast<int32_t>(blockIdx.x)) __syncthreads();  // all have read the sums of the group before
#pragma unroll
    for (int32_t m = 0; m < Group; m++)
#pragma unroll
      for (int32_t n = 0; n < RowTiles; n++)
        mine[(m * RowTiles + n) * kWarp] = make_float4(sums[m][n][0], sums[m][n][1], sums[m][n][2], sums[m][n][3]);
    __syncthreads();
    puts.put(sums_of_slices);
  }
}

/// Most bytes of normed rows that a block keeps: two blocks fit a multiprocessor, so the next kernel's ring fills
/// early.
constexpr int32_t kOwnBytes = 64 << 10;

/// Whether a block norms and keeps the rows by itself.
bool keeps_own(int32_t N, int32_t in) {
  const int64_t bytes = int64_t{N} * input_tiles(in) * kTile * int32_t{sizeof(uint16_t)};
  return N <= kRowTile && bytes <= kOwnBytes && bytes + Form<1, 2, 1>::kFixedBytes <= most_shared_bytes();
}

template <int32_t RowTiles, int32_t Group, int32_t Own>
void launch(FewRows& plan) {
  for (int32_t i = 0; i < plan.count; i++) {
    const Product& product = plan.products[i];
    const int32_t tiles = output_tiles(product.out), outputs = product.up != nullptr ? Group / 2 : Group;
    plan.first_group[i + 1] = plan.first_group[i] + blocks(tiles, outputs);
  }
  const int32_t groups = plan.first_group[plan.count], processors = num_multiprocessors();
  const int32_t own = Own > 0 ? plan.N * input_tiles(plan.in) * kTile * int32_t{sizeof(uint16_t)} : 0;
  const int32_t bytes = Form<RowTiles, Group, Own>::kFixedBytes + own;
  const dim3 grid(groups < processors ? groups : processors);
  GRAFT_LAUNCH_EARLY((few_rows<RowTiles, Group, Own>), grid, kBlock, bytes, plan);
}

/// The form for a number of rows: wide groups read rows less often, but there must be enough of them for the device.
void launch_form(FewRows& plan, int32_t tiles, bool gated) {
  const bool wide = tiles >= 4 * num_multiprocessors();
  if (plan.rows == nullptr) {
    if (plan.N == 1) return gated ? launch<1, 2, 1>(plan) : launch<1, 1, 1>(plan);
    return gated ? launch<1, 2, 8>(plan) : launch<1, 1, 8>(plan);
  }
  if (plan.N <= kRowTile) return launch<1, 2, 0>(plan);
  if (plan.N <= 2 * kRowTile) return wide ? launch<2, 4, 0>(plan) : launch<2, 2, 0>(plan);
  return wide ? launch<4, 4, 0>(plan) : launch<4, 2, 0>(plan);
}

template <int32_t RowTiles>
bool fits() {
  constexpr int32_t narrow = Form<RowTiles, 2, 0>::kFixedBytes, wide = Form<RowTiles, 4, 0>::kFixedBytes;
  return (narrow > wide ? narrow : wide) <= most_shared_bytes();
}

}  // namespace

bool are_few_rows(int32_t N) {
  if (N > kFewRows) return false;
  return N <= kRowTile ? fits<1>() : N <= 2 * kRowTile ? fits<2>() : fits<4>();
}

int32_t multiply_few_rows(const Product* products, int32_t count, const float* x, const RowNorm& norm, int32_t N,
                          int32_t in) {
  FewRows plan{};
  plan.N = N, plan.in = in, plan.x = x, plan.norm = norm;
  if (!keeps_own(N, in)) {
    auto* arranged = static_cast<uint16_t*>(workspace(arranged_few_bytes(N, in)));
    if (arranged == nullptr) return GRAFT_OUT_OF_MEMORY;
    arrange_few_rows(arranged, x, norm, N, in);
    plan.rows = reinterpret_cast<const uint2*>(arranged);
  }
  for (int32_t first = 0; first < count; first += kMostProducts) {
    plan.count = count - first < kMostProducts ? count - first : kMostProducts;
    int32_t tiles = 0;
    bool gated = false;
    for (int32_t i = 0; i < plan.count; i++) {
      plan.products[i] = products[first + i];
      gated |= plan.products[i].up != nullptr;
      tiles += output_tiles(plan.products[i].out) * (plan.products[i].up != nullptr ? 2 : 1);
    }
    launch_form(plan, tiles, gated);
  }
  return GRAFT_OK;
}

}  // namespace graft::gpu
