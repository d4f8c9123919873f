// What a linear layer of many rows takes, and where products go. Knows no op of graft.h.
#pragma once
#include "packed.h"

namespace graft::gpu {

/// Rows of a tile of the right operand.
constexpr int32_t kRowTile = 8;

/// Where a product goes, and what is added to it.
struct Output {
  float* y;
  const float* bias;
  const float* residual;
  int32_t N, out;

  __device__ void put(int32_t row, int32_t o, float sum) const {
    if (row >= N || o >= out) return;
    const int64_t at = static_cast<int64_t>(row) * out + o;
    if (bias != nullptr) sum += bias[o];
    if (residual != nullptr) sum += residual[at];
    y[at] = sum;
  }
};

/// y = x Wᵀ (+ bias)(+ residual) of more rows than few_rows takes at once, the same bits. rows: as few_rows reads them.
void multiply_many_rows(const Output& output, const uint2* rows, const uint4* packed, int32_t tiles);

}  // namespace graft::gpu
