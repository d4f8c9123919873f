// Products with float32 weights. Knows no op of graft.h.
#pragma once
#include "linear_many.h"

namespace graft::gpu {

/// As multiply_many_rows(), of float32 weights and rows x[N, in]. One thread adds up an output, input by input.
void multiply_plain_rows(const Product* products, int32_t count, const float* x, int32_t N, int32_t in);

}  // namespace graft::gpu
