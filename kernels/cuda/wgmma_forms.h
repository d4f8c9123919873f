// In which ways a product of many rows is cut for wgmma.
#pragma once
#include "many_rows.h"

namespace graft::gpu {

/// Tiles of 128 outputs by `rows`. A cluster of 2 blocks shares the rows of its tiles; `slices`: a cluster of 8 blocks
/// shares a tile, each summing one slice.
struct WgmmaForm {
  int32_t rows, cluster;
  bool slices;
};
constexpr WgmmaForm kWgmmaForms[] = {{192, 2, false}, {128, 2, false}, {64, 2, false}, {192, 1, false},
                                     {128, 1, false}, {64, 1, false},  {128, 8, true}, {64, 8, true}};

/// Weights of one chunk for a tile.
constexpr int32_t kWeightBytes = kTileWeights * kChunkTiles * kWarp * 16;

/// Where, in a stage, the lane of a warp finds its part of the k-th tile of weights of a chunk, in bytes.
__host__ __device__ constexpr uint32_t weight_place(int32_t warp, int32_t k, int32_t lane) {
  return ((warp * kChunkTiles + k) * kWarp + lane) * 16;
}
/// How wgmma finds its right operand at an address of shared memory: 16 inputs of rows of a square, which begins at a
/// multiple of 1024, with the 128-byte swizzle and 1024 bytes from eight rows to the next. 16 inputs further: + 2.
__host__ __device__ constexpr uint64_t rows_descriptor(uint32_t address) {
  constexpr uint64_t kEightRows = 1024 / 16, kSwizzle128 = 1;
  return (address & 0x3ffff) / 16 | uint64_t{1} << 16 | kEightRows << 32 | kSwizzle128 << 62;
}

#if !defined(GRAFT_SIMT)
/// Once, before launches.
bool prepare_form(const WgmmaForm& form);
/// stuck: set where copies do not arrive; where it is null the kernel ends with an error then.
cudaError_t launch_form(ManyRows& plan, const WgmmaForm& form, int32_t* stuck);
#endif

}  // namespace graft::gpu
