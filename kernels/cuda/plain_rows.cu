// Products with float32 weights: one thread an output, 4 rows at a time; a warp reads a panel of 32 outputs side by
// side.
#include "host.h"
#include "many_rows.h"
#include "plain_rows.h"

namespace graft::gpu {
namespace {

constexpr int32_t kRowsAtOnce = 4, kPlainThreads = 128;

__device__ __forceinline__ void add_up(float (&sums)[kRowsAtOnce], const float* const (&rows)[kRowsAtOnce],
                                       const float* weight, int32_t o, int32_t in) {
  const float* w = weight + plain_index(o, 0, in);
  for (int32_t k = 0; k < in; k++) {
    const float value = w[static_cast<int64_t>(k) * kPanel];
#pragma unroll
    for (int32_t r = 0; r < kRowsAtOnce; r++) sums[r] = fmaf(rows[r][k], value, sums[r]);
  }
}

__global__ void plain_rows(Product product, const float* x, int32_t N, int32_t in) {
  const int32_t o = blockIdx.x * kPlainThreads + threadIdx.x, first = blockIdx.y * kRowsAtOnce;
  if (o >= product.out) return;
  const float* rows[kRowsAtOnce];
  for (int32_t r = 0; r < kRowsAtOnce; r++) rows[r] = x + static_cast<int64_t>(min(first + r, N - 1)) * in;
  float sums[kRowsAtOnce] = {}, up[kRowsAtOnce] = {};
  add_up(sums, rows, static_cast<const float*>(product.packed), o, in);
  if (product.up != nullptr) add_up(up, rows, static_cast<const float*>(product.up), o, in);
  for (int32_t r = 0; r < kRowsAtOnce && first + r < N; r++) {
    const int64_t at = static_cast<int64_t>(first + r) * product.out + o;
    float value = sums[r];
    if (product.up != nullptr) {
      value = silu(value) * up[r];
    } else {
      if (product.bias != nullptr) value += product.bias[o];
      value = activated(value, product.activation);
      if (product.residual != nullptr) value += product.residual[at];
    }
    product.y[at] = value;
  }
}

}  // namespace

void multiply_plain_rows(const Product* products, int32_t count, const float* x, int32_t N, int32_t in) {
  for (int32_t i = 0; i < count; i++) {
    const dim3 grid(blocks(products[i].out, kPlainThreads), blocks(N, kRowsAtOnce));
    GRAFT_LAUNCH(plain_rows, grid, kPlainThreads, 0, products[i], x, N, in);
  }
}

}  // namespace graft::gpu
