// Linear layers of many rows with bfloat16 weights: tiles of weights and rows in shared memory, so that a weight is
// read once per 128 rows. This is the form for every device, on mma(); it adds in the order of few_rows.
#include "host.h"
#include "linear_many.h"
#include "many_rows.h"

namespace graft::gpu {
namespace {

__global__ void arrange(uint4* arranged, const float* x, int32_t N, int32_t in, uint64_t vectors) {
  const int32_t chunks = input_chunks(in);
  depend_launch();
  depend_wait();
  for_each(vectors, [&](uint64_t at) {
    const int32_t unit = at % 8, square_row = at / 8 % kSquare,
                  chunk = static_cast<int32_t>(at / kSquareVectors % chunks);
    const int32_t row = static_cast<int32_t>(at / kSquareVectors / chunks) * kSquare + square_row;
    const int32_t first = chunk * kSquare + (unit ^ (square_row % 8)) * 8;
    const float* from = x + static_cast<int64_t>(row) * in;
    const auto pair = [&](int32_t i) {
      return to_bf16_pair(row < N && i < in ? from[i] : 0.0f, row < N && i + 1 < in ? from[i + 1] : 0.0f);
    };
    arranged[at] = make_uint4(pair(first), pair(first + 2), pair(first + 4), pair(first + 6));
  });
}

// 128 outputs by 128 rows a block; 8 warps of 64 outputs by 32 rows; stages of one chunk of inputs.
constexpr int32_t kBlockRows = 128, kStages = 3, kWarpOut = 4, kWarpRows = 4, kThreadsMany = 256;
constexpr int32_t kWeightVectors = kTileWeights * kChunkTiles * kWarp,
                  kRowVectors = kBlockRows / kSquare * kSquareVectors;
constexpr int32_t kStageVectors = kWeightVectors + kRowVectors;  // of 16 bytes

/// Starts the copies of one stage: weight tiles [8][4][lane], then squares of rows.
__device__ __forceinline__ void fetch_stage(uint4* stage, const ManyRows& plan, const OutputBlock& block,
                                            int32_t row_tile, int32_t chunk) {
  const int32_t squares = blocks(plan.N, kSquare);
#pragma unroll
  for (int32_t i = 0; i < kWeightVectors / kThreadsMany; i++) {
    const int32_t at = i * kThreadsMany + threadIdx.x, within = at % (kChunkTiles * kWarp);
    copy_async(stage + at,
               block.weights(at / (kChunkTiles * kWarp), plan.chunks) + chunk * kChunkTiles * kWarp + within);
  }
#pragma unroll
  for (int32_t i = 0; i < kRowVectors / kThreadsMany; i++) {
    const int32_t at = i * kThreadsMany + threadIdx.x;
    const int32_t square = min(row_tile * (kBlockRows / kSquare) + at / kSquareVectors, squares - 1);
    copy_async(stage + kWeightVectors + at,
               plan.rows + (static_cast<int64_t>(square) * plan.chunks + chunk) * kSquareVectors + at % kSquareVectors);
  }
}

__global__ void __launch_bounds__(kThreadsMany) many_rows(const __grid_constant__ ManyRows plan) {
  int32_t place, row_tile;
  place_tile(plan, blockIdx.x, plan.first_block[plan.count], place, row_tile);
  const OutputBlock block(plan, place);
  const int32_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int32_t half = warp % 2, warp_out = half * kWarpOut, warp_row = warp / 2 * kWarpRows;
  uint4* buffer = shared<uint4>();
  depend_wait();
  float sums[kWarpOut][kWarpRows][4] = {}, totals[kWarpOut][kWarpRows][4] = {};
  for (int32_t s = 0; s < kStages - 1; s++) {
    if (s < plan.chunks) fetch_stage(buffer + s * kStageVectors, plan, block, row_tile, s);
    copy_commit();
  }
  // Of a square, lane l loads row l % 8 of unit l / 8 % 2 of two row tiles of 8.
  const int32_t load_row = (warp_row + lane / 16) * 8 + lane % 8;
  Slices slices(plan.chunks);
  for (int32_t c = 0; c < plan.chunks; c++) {
    copy_wait<kStages - 2>();
    __syncthreads();
    const int32_t ahead = c + kStages - 1;
    if (ahead < plan.chunks) fetch_stage(buffer + ahead % kStages * kStageVectors, plan, block, row_tile, ahead);
    copy_commit();
    if (slices.begins(c))
#pragma unroll
      for (int32_t m = 0; m < kWarpOut; m++)
#pragma unroll
        for (int32_t n = 0; n < kWarpRows; n++)
#pragma unroll
          for (int32_t i = 0; i < 4; i++) totals[m][n][i] += sums[m][n][i], sums[m][n][i] = 0;
    const uint4* weights = buffer + c % kStages * kStageVectors;
    const uint4* rows = weights + kWeightVectors;
#pragma unroll
    for (int32_t k = 0; k < kChunkTiles; k++) {
      uint32_t b[kWarpRows / 2][4];
#pragma unroll
      for (int32_t n = 0; n < kWarpRows / 2; n++)
        load_matrices<false>(b[n], rows + square_index(load_row + n * 16, (2 * k + lane / 8 % 2) * 8) / 8);
#pragma unroll
      for (int32_t m = 0; m < kWarpOut; m++) {
        const uint4 w = weights[((warp_out + m) * kChunkTiles + k) * kWarp + lane];
        const uint32_t a[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int32_t n = 0; n < kWarpRows; n++) {
          const uint32_t pair[2] = {b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]};
          mma(sums[m][n], a, pair);
        }
      }
    }
  }
  copy_wait<0>();
  depend_launch();
#pragma unroll
  for (int32_t m = 0; m < kWarpOut; m++)
#pragma unroll
    for (int32_t n = 0; n < kWarpRows; n++)
#pragma unroll
      for (int32_t i = 0; i < 4; i++) totals[m][n][i] += sums[m][n][i];

  // Of a gated product one warp of a pair holds the gate, the other what it gates.
  float4* kept = shared<float4>();  // [pair of warps][16][lane]
  if (block.gated()) {
    __syncthreads();
    if (half == 1)
#pragma unroll
      for (int32_t m = 0; m < kWarpOut; m++)
#pragma unroll
        for (int32_t n = 0; n < kWarpRows; n++) {
          const auto& t = totals[m][n];
          kept[((warp / 2 * kWarpOut + m) * kWarpRows + n) * kWarp + lane] = make_float4(t[0], t[1], t[2], t[3]);
        }
    __syncthreads();
    if (half == 1) return;
#pragma unroll
    for (int32_t m = 0; m < kWarpOut; m++)
#pragma unroll
      for (int32_t n = 0; n < kWarpRows; n++)
        gate(totals[m][n], kept[((warp / 2 * kWarpOut + m) * kWarpRows + n) * kWarp + lane]);
  }
#pragma unroll
  for (int32_t m = 0; m < kWarpOut; m++)
#pragma unroll
    for (int32_t n = 0; n < kWarpRows; n++)
      put_sums(plan, block, block.output(warp_out + m), row_tile * kBlockRows + (warp_row + n) * 8, totals[m][n]);
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % sizeof(float4) == 0; }

}  // namespace

ManyRows plan_of(const Product* products, int32_t count, const uint16_t* arranged, int32_t N, int32_t in) {
  ManyRows plan{};
  plan.count = count, plan.N = N, plan.chunks = input_chunks(in);
  plan.rows = reinterpret_cast<const uint4*>(arranged);
  for (int32_t i = 0; i < count; i++) {
    const Product& product = products[i];
    plan.products[i] = product;
    plan.wide[i] = product.out % 4 == 0 && aligned(product.y) && aligned(product.bias) && aligned(product.residual);
    const int32_t outputs = product.up != nullptr ? kTileOutputs / 2 : kTileOutputs;
    plan.first_block[i + 1] = plan.first_block[i] + blocks(product.out, outputs);
  }
  return plan;
}

void multiply_on_mma(ManyRows& plan) {
  plan.row_tiles = blocks(plan.N, kBlockRows);
  plan.band = blocks(plan.row_tiles, blocks(plan.row_tiles, 12));
  const dim3 grid(plan.first_block[plan.count] * plan.row_tiles);
  GRAFT_LAUNCH_EARLY(many_rows, grid, kThreadsMany, kStages * kStageVectors * sizeof(uint4), plan);
}

void arrange_many_rows(uint16_t* arranged, const float* x, int32_t N, int32_t in) {
  const uint64_t vectors = arranged_bytes(N, in) / sizeof(uint4);
  GRAFT_LAUNCH_EARLY(arrange, grid_for(vectors), kThreads, 0, reinterpret_cast<uint4*>(arranged), x, N, in, vectors);
}

void multiply_many_rows(const Product* products, int32_t count, const uint16_t* arranged, int32_t N, int32_t in) {
  for (int32_t first = 0; first < count; first += kMostProducts) {
    const int32_t here = count - first < kMostProducts ? count - first : kMostProducts;
    ManyRows plan = plan_of(products + first, here, arranged, N, in);
    if (uses_wgmma())
      multiply_on_wgmma(plan);
    else
      multiply_on_mma(plan);
  }
}

}  // namespace graft::gpu
