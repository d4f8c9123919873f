// Linear layers of many rows with bfloat16 weights: tiles of weights and rows in shared memory, every weight read once
// per 128 rows. Adds in the order of few_rows.
#include "host.h"
#include "linear_many.h"

namespace graft::gpu {
namespace {

// 128 outputs by 128 rows a block; 8 warps of 64 outputs by 32 rows; stages of 2 input tiles.
constexpr int32_t kBlockOut = 8, kBlockRows = 16, kStageTiles = 2, kStages = 4, kWarpOut = 4, kWarpRows = 4;
constexpr int32_t kStageVectors = kStageTiles * (kBlockOut * 32 + kBlockRows * 16);  // of 16 bytes

/// Starts the copies of one stage: weight tiles [output tile][2][lane], then row tiles [row tile][2][lane].
__device__ __forceinline__ void fetch_stage(uint4* stage, const uint4* packed, const uint4* rows, int32_t k,
                                            int32_t tiles, int32_t out_tiles, int32_t row_tiles) {
  constexpr int32_t kWeights = kBlockOut * kStageTiles * 32, kRows = kBlockRows * kStageTiles * 16;
  for (int32_t at = threadIdx.x; at < kWeights; at += blockDim.x) {
    int32_t tile = blockIdx.x * kBlockOut + at / (kStageTiles * 32);
    if (tile >= out_tiles) tile = out_tiles - 1;  // computed and thrown away
    copy_async(stage + at, packed + (static_cast<int64_t>(tile) * tiles + k) * 32 + at % (kStageTiles * 32));
  }
  for (int32_t at = threadIdx.x; at < kRows; at += blockDim.x) {
    int32_t tile = blockIdx.y * kBlockRows + at / (kStageTiles * 16);
    if (tile >= row_tiles) tile = row_tiles - 1;
    copy_async(stage + kWeights + at, rows + (static_cast<int64_t>(tile) * tiles + k) * 16 + at % (kStageTiles * 16));
  }
}

__global__ void __launch_bounds__(256) many_rows(Output output, const uint4* rows, const uint4* packed, int32_t tiles) {
  const int32_t out_tiles = output_tiles(output.out), row_tiles = (output.N + kRowTile - 1) / kRowTile;
  const int32_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int32_t warp_out = warp % 2 * kWarpOut, warp_row = warp / 2 * kWarpRows;
  uint4* buffer = shared<uint4>();
  float sums[kWarpOut][kWarpRows][4] = {}, totals[kWarpOut][kWarpRows][4] = {};
  const int32_t stages = tiles / kStageTiles;
  for (int32_t s = 0; s < kStages - 1; s++) {
    if (s < stages) fetch_stage(buffer + s * kStageVectors, packed, rows, s * kStageTiles, tiles, out_tiles, row_tiles);
    copy_commit();
  }
  int32_t slice = 1;
  for (int32_t s = 0; s < stages; s++) {
    copy_wait<kStages - 2>();
    __syncthreads();
    const int32_t next = s + kStages - 1;
    if (next < stages)
      fetch_stage(buffer + next % kStages * kStageVectors, packed, rows, next * kStageTiles, tiles, out_tiles,
                  row_tiles);
    copy_commit();
    const uint4* stage = buffer + s % kStages * kStageVectors;
    const uint2* stage_rows = reinterpret_cast<const uint2*>(stage + kBlockOut * kStageTiles * 32);
#pragma unroll
    for (int32_t half = 0; half < kStageTiles; half++) {
      // Several slices may begin at one tile where there are fewer tiles than slices.
      while (slice < kSlices && s * kStageTiles + half == slice_begin(slice, tiles)) {
        slice++;
#pragma unroll
        for (int32_t m = 0; m < kWarpOut; m++)
          for (int32_t n = 0; n < kWarpRows; n++)
            for (int32_t i = 0; i < 4; i++) {
              totals[m][n][i] += sums[m][n][i];
              sums[m][n][i] = 0;
            }
      }
      uint32_t b[kWarpRows][2];
#pragma unroll
      for (int32_t n = 0; n < kWarpRows; n++) {
        const uint2 x = stage_rows[((warp_row + n) * kStageTiles + half) * 32 + lane];
        b[n][0] = x.x;
        b[n][1] = x.y;
      }
#pragma unroll
      for (int32_t m = 0; m < kWarpOut; m++) {
        const uint4 w = stage[((warp_out + m) * kStageTiles + half) * 32 + lane];
        const uint32_t a[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int32_t n = 0; n < kWarpRows; n++) mma(sums[m][n], a, b[n]);
      }
    }
  }
#pragma unroll
  for (int32_t m = 0; m < kWarpOut; m++)
    for (int32_t n = 0; n < kWarpRows; n++)
      for (int32_t i = 0; i < 4; i++)
        output.put((blockIdx.y * kBlockRows + warp_row + n) * kRowTile + lane % 4 * 2 + i % 2,
                   (blockIdx.x * kBlockOut + warp_out + m) * kTile + lane / 4 + i / 2 * 8,
                   totals[m][n][i] + sums[m][n][i]);
}

}  // namespace

void multiply_many_rows(const Output& output, const uint2* rows, const uint4* packed, int32_t tiles) {
  const int32_t row_tiles = blocks(output.N, kRowTile);
  const dim3 grid(blocks(output_tiles(output.out), kBlockOut), blocks(row_tiles, kBlockRows));
  GRAFT_LAUNCH(many_rows, grid, 256, kStages * kStageVectors * sizeof(uint4), output,
               reinterpret_cast<const uint4*>(rows), packed, tiles);
}

}  // namespace graft::gpu
