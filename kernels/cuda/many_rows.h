// What both forms of the product of many rows share: which tile a block works on, which weights it reads, and what
// happens to sums on their way out. A tile is 128 outputs (of a gated product 64, of both weights) by some rows.
#pragma once
#include "elements.h"
#include "linear_many.h"

namespace graft::gpu {

constexpr int32_t kMostProducts = 8, kTileWeights = 8, kTileOutputs = kTileWeights * kTile;

/// One launch: products of the same rows, their outputs cut in blocks, one product after another.
struct ManyRows {
  Product products[kMostProducts];
  /// Where a product's blocks begin.
  int32_t first_block[kMostProducts + 1];
  /// Whether four outputs of a row are read and written with one access.
  bool wide[kMostProducts];
  int32_t count, N, chunks;
  const uint4* rows;
  /// Tiles of rows, and how many of them go together over all blocks of outputs, so that weights and rows come from L2.
  int32_t row_tiles, band;
};

/// The place of tile `at` in the order in which tiles are taken: `wide_blocks` blocks of outputs by row_tiles.
__device__ __forceinline__ void place_tile(const ManyRows& plan, int32_t at, int32_t wide_blocks, int32_t& block,
                                           int32_t& row_tile) {
  const int32_t per_band = plan.band * wide_blocks, band = at / per_band, within = at % per_band;
  const int32_t here = min(plan.band, plan.row_tiles - band * plan.band);
  block = within / here;
  row_tile = band * plan.band + within % here;
}

/// One block of outputs of one product.
struct OutputBlock {
  const Product* product;
  int32_t index, block;
  bool exists;

  __device__ __forceinline__ OutputBlock(const ManyRows& plan, int32_t at) {
    exists = at < plan.first_block[plan.count];
    if (!exists) at = plan.first_block[plan.count] - 1;
    index = 0;
    while (at >= plan.first_block[index + 1]) index++;
    product = &plan.products[index];
    block = at - plan.first_block[index];
  }
  __device__ __forceinline__ bool gated() const { return product->up != nullptr; }
  /// The weight's tiles of 16 outputs, the j-th of eight. Tiles beyond the end: computed and thrown away.
  __device__ __forceinline__ const uint4* weights(int32_t j, int32_t chunks) const {
    const bool up = gated() && j >= kTileWeights / 2;
    int32_t tile = gated() ? block * (kTileWeights / 2) + j % (kTileWeights / 2) : block * kTileWeights + j;
    tile = min(tile, output_tiles(product->out) - 1);
    return static_cast<const uint4*>(up ? product->up : product->packed) +
           static_cast<int64_t>(tile) * chunks * kChunkTiles * kWarp;
  }
  /// The first output of the j-th tile.
  __device__ __forceinline__ int32_t output(int32_t j) const {
    return gated() ? (block * (kTileWeights / 2) + j % (kTileWeights / 2)) * kTile : (block * kTileWeights + j) * kTile;
  }
};

/// Four lanes a multiple of 4 apart hold four values each: lane j of them gets the j-th value of each, in order.
__device__ __forceinline__ void exchange_four(float (&v)[4]) {
  const int32_t mine = threadIdx.x / 4 % 4;
#pragma unroll
  for (int32_t bit = 1; bit <= 2; bit *= 2)
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
      if (i & bit) continue;
      const bool upper = mine & bit;
      const float given = __shfl_xor_sync(kAll, upper ? v[i] : v[i + bit], 4 * bit);
      if (upper)
        v[i] = given;
      else
        v[i + bit] = given;
    }
}

__device__ __forceinline__ float activated(float x, int32_t activation) {
  return activation == GRAFT_IDENTITY ? x : activation == GRAFT_SILU ? silu(x) : gelu_tanh(x);
}

/// Writes 16 outputs of 8 rows, of which the warp's lanes hold the sums as mma() leaves them.
__device__ __forceinline__ void put_sums(const ManyRows& plan, const OutputBlock& at, int32_t first_output,
                                         int32_t first_row, float (&v)[4]) {
  exchange_four(v);
  const Product& product = *at.product;
  const int32_t lane = threadIdx.x % kWarp, mine = lane / 4 % 4;
  const int32_t o = first_output + mine / 2 * 8 + lane / 16 * 4, row = first_row + lane % 4 * 2 + mine % 2;
  if (row >= plan.N || o >= product.out || !at.exists) return;
  const int64_t to = static_cast<int64_t>(row) * product.out + o;
  if (plan.wide[at.index]) {
    if (product.bias != nullptr) {
      const float4 bias = *reinterpret_cast<const float4*>(product.bias + o);
      v[0] += bias.x, v[1] += bias.y, v[2] += bias.z, v[3] += bias.w;
    }
    if (product.activation != GRAFT_IDENTITY)
#pragma unroll
      for (float& x : v) x = activated(x, product.activation);
    if (product.residual != nullptr) {
      const float4 residual = *reinterpret_cast<const float4*>(product.residual + to);
      v[0] += residual.x, v[1] += residual.y, v[2] += residual.z, v[3] += residual.w;
    }
    *reinterpret_cast<float4*>(product.y + to) = make_float4(v[0], v[1], v[2], v[3]);
    return;
  }
#pragma unroll
  for (int32_t i = 0; i < 4; i++) {
    if (o + i >= product.out) break;
    float x = v[i];
    if (product.bias != nullptr) x += product.bias[o + i];
    x = activated(x, product.activation);
    if (product.residual != nullptr) x += product.residual[to + i];
    product.y[to + i] = x;
  }
}

/// v = silu(v) up.
__device__ __forceinline__ void gate(float (&v)[4], const float4& up) {
  v[0] = silu(v[0]) * up.x, v[1] = silu(v[1]) * up.y, v[2] = silu(v[2]) * up.z, v[3] = silu(v[3]) * up.w;
}

/// Runs through the chunks of a sum and says where a slice ends.
struct Slices {
  int32_t next = 0, slice = 0, chunks;
  __device__ __forceinline__ explicit Slices(int32_t chunks) : chunks(chunks) { begins(0); }
  /// Whether a slice begins at chunk `at`, which asks in ascending order.
  __device__ __forceinline__ bool begins(int32_t at) {
    if (at != next) return false;
    while (next == at && slice < kSlices) next = slice_begin(++slice, chunks * kChunkTiles) / kChunkTiles;
    return true;
  }
};

/// Cuts the outputs of some products in blocks (linear_many.cu).
ManyRows plan_of(const Product* products, int32_t count, const uint16_t* arranged, int32_t N, int32_t in);

/// The form on mma(), which every device has (linear_many.cu).
void multiply_on_mma(ManyRows& plan);
/// The form on wgmma (linear_wgmma.cu).
void multiply_on_wgmma(ManyRows& plan);
/// Whether products go through it: the device has it, it gave the bits of mma() at start-up, and GRAFT_WGMMA is not 0.
bool uses_wgmma();

}  // namespace graft::gpu
