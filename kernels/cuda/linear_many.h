// Products of many rows with bfloat16 weights: how the rows lie, and what a product is. Knows no op of graft.h.
#pragma once
#include "packed.h"

namespace graft::gpu {

/// Rows lie in squares of 64 rows by 64 inputs, in bfloat16. A row of a square is 128 bytes, eight units of 16 bytes,
/// and unit u of row r stands at u ^ (r % 8): the 128-byte swizzle that wgmma reads, in which eight rows' units of the
/// same inputs also fall into different banks.
constexpr int32_t kSquare = 64, kSquareElements = kSquare * kSquare, kSquareVectors = kSquareElements / 8;

__host__ __device__ constexpr int32_t input_chunks(int32_t in) { return (in + kSquare - 1) / kSquare; }
/// Where input i of a row lies within its square, counted in bfloat16.
__host__ __device__ constexpr int32_t square_index(int32_t row, int32_t i) {
  return row * kSquare + ((i / 8) ^ (row % 8)) * 8 + i % 8;
}
/// Where element (row, i) of arranged rows lies, counted in bfloat16.
__host__ __device__ constexpr int64_t arranged_index(int32_t row, int32_t i, int32_t in) {
  const int64_t square = static_cast<int64_t>(row / kSquare) * input_chunks(in) + i / kSquare;
  return square * kSquareElements + square_index(row % kSquare, i % kSquare);
}
/// What arranged rows take. Rows and inputs beyond the end are zeros.
constexpr uint64_t arranged_bytes(int32_t N, int32_t in) {
  return 2ull * ((N + kSquare - 1) / kSquare) * input_chunks(in) * kSquareElements;
}
/// x[N, in] rounded to bfloat16 and arranged.
void arrange_many_rows(uint16_t* arranged, const float* x, int32_t N, int32_t in);

/// y[N, out] = activation(x Wᵀ + bias) + residual; or, where `up` is set, silu(x Wᵀ) ⊙ (x upᵀ).
struct Product {
  float* y;
  const void* packed;       // [out, in]
  const void* up;           // [out, in] or null
  const float* bias;        // [out] or null
  const float* residual;    // [N, out] or null
  int32_t out, activation;  // graft_activation
};

/// Several products of the same rows, of any number: the bits of a row are those that few_rows gives. `arranged` as
/// arrange_many_rows() leaves it, at an address that is a multiple of 128.
void multiply_many_rows(const Product* products, int32_t count, const uint16_t* arranged, int32_t N, int32_t in);

/// Finds out, at start-up, whether this device's wgmma can be used; no other product is under way.
void prepare_wgmma();
/// What came of it, for people: "wgmma", "wgmma differs" (other bits than mma), "wgmma fails", "wgmma off"; null where
/// the device has none.
const char* wgmma_state();

}  // namespace graft::gpu
