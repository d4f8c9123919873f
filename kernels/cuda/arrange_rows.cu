// Rows on their way into products: normed, rounded to bfloat16 and brought into the order that a kernel reads.
#include "few_rows.h"

namespace graft::gpu {
namespace {

/// A block a row, whole row tiles: rows beyond the end are zeros.
template <class Place>
__global__ void __launch_bounds__(kThreads)
    arrange(uint16_t* arranged, const float* x, RowNorm norm, int32_t N, int32_t in, int32_t padded, Place place) {
  const int32_t row = blockIdx.x;
  depend_launch();
  NormedRows<1> rows{x + static_cast<int64_t>(row) * in, norm, 1, in, padded, {}, {}, {}};
  rows.prefetch();
  depend_wait();
  if (row >= N) {
    for (int32_t c = threadIdx.x; c < padded; c += kThreads) arranged[place(row, c, in)] = 0;
    return;
  }
  rows.measure(shared<float>());
  rows.put_each([&](int32_t, int32_t c, float value) {
    arranged[place(row, c, in)] = static_cast<uint16_t>(to_bf16_pair(value, 0.0f));
  });
}

/// Where an element lies for few_rows, counted in bfloat16.
struct InTiles {
  __device__ __forceinline__ int64_t operator()(int32_t row, int32_t i, int32_t in) const {
    const int64_t tile = static_cast<int64_t>(row / kRowTile) * input_tiles(in) + i / kTile;
    return (tile * kWarp + row % kRowTile * 4 + i % 8 / 2) * 4 + i / 8 % 2 * 2 + i % 2;
  }
};
struct InSquares {
  __device__ __forceinline__ int64_t operator()(int32_t row, int32_t i, int32_t in) const {
    return arranged_index(row, i, in);
  }
};

template <class Place>
void launch(uint16_t* arranged, const float* x, const RowNorm& norm, int32_t N, int32_t rows, int32_t in) {
  GRAFT_LAUNCH_EARLY(arrange<Place>, dim3(rows), kThreads, NormedRows<1>::kScratch * sizeof(float), arranged, x, norm,
                     N, in, input_tiles(in) * kTile, Place{});
}

}  // namespace

uint64_t arranged_few_bytes(int32_t N, int32_t in) {
  return sizeof(uint16_t) * static_cast<uint64_t>(blocks(N, kRowTile)) * kRowTile * input_tiles(in) * kTile;
}

void arrange_few_rows(uint16_t* arranged, const float* x, const RowNorm& norm, int32_t N, int32_t in) {
  launch<InTiles>(arranged, x, norm, N, blocks(N, kRowTile) * kRowTile, in);
}

void arrange_normed_rows(uint16_t* arranged, const float* x, const RowNorm& norm, int32_t N, int32_t in) {
  launch<InSquares>(arranged, x, norm, N, blocks(N, kSquare) * kSquare, in);
}

}  // namespace graft::gpu
