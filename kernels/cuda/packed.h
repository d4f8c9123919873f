// How a bfloat16 weight [out, in] lies in memory: tiles of 16 outputs by 16 inputs, each in the order in which the
// lanes of a warp hold it as the left operand of mma(). A tile is 32 lanes times 16 bytes, so a warp reads it with one
// load a lane. Both sizes are padded with zeros, inputs to 64.
#pragma once
#include "device.h"

namespace graft::gpu {

constexpr int32_t kTile = 16;

/// Tiles along the inputs that kernels take together: 64 inputs.
constexpr int32_t kChunkTiles = 4;
/// Tiles along the inputs, whole chunks.
__host__ __device__ constexpr int32_t input_tiles(int32_t in) { return (in + 63) / 64 * kChunkTiles; }
__host__ __device__ constexpr int32_t output_tiles(int32_t out) { return (out + kTile - 1) / kTile; }

/// Where element (o, i) lies, counted in bfloat16.
__host__ __device__ inline int64_t packed_index(int32_t o, int32_t i, int32_t in) {
  const int64_t tile = static_cast<int64_t>(o / kTile) * input_tiles(in) + i / kTile;
  const int32_t row = o % kTile, column = i % kTile;
  const int32_t lane = row % 8 * 4 + column % 8 / 2, part = row / 8 + column / 8 * 2;
  return (tile * 32 + lane) * 8 + part * 2 + column % 2;
}

/// The sum over inputs is cut in as many slices, each summed by itself, and the slices are added in ascending order: so
/// a row's result is the same bits whichever kernel computes it. A slice begins with a chunk.
constexpr int32_t kSlices = 8;
__host__ __device__ constexpr int32_t slice_begin(int32_t slice, int32_t tiles) {
  return slice * (tiles / kChunkTiles) / kSlices * kChunkTiles;
}

/// float32 weights lie in panels of 32 outputs, which stand side by side for each input.
constexpr int32_t kPanel = 32;
__host__ __device__ constexpr int64_t plain_index(int32_t o, int32_t i, int32_t in) {
  return (static_cast<int64_t>(o / kPanel) * in + i) * kPanel + o % kPanel;
}

}  // namespace graft::gpu
