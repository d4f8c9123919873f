// Linear layers. With bfloat16 weights the rows are brought into the order of the tensor cores' right operand, then a
// kernel for few rows streams the weight once, or one for many rows keeps tiles of both in shared memory. Both add in
// the same order. With float32 weights one thread computes an output.
#include "elements.h"
#include "host.h"
#include "linear_many.h"

namespace graft::gpu {
namespace {

constexpr int32_t kRowTile = 8, kFewRows = 64;

__global__ void pack(uint16_t* packed, const uint16_t* weight, int32_t out, int32_t in) {
  const uint64_t padded = static_cast<uint64_t>(output_tiles(out)) * kTile * input_tiles(in) * kTile;
  const int32_t columns = input_tiles(in) * kTile;
  for_each(padded, [&](uint64_t at) {
    const int32_t o = static_cast<int32_t>(at / columns), i = static_cast<int32_t>(at % columns);
    packed[packed_index(o, i, in)] = o < out && i < in ? weight[static_cast<int64_t>(o) * in + i] : uint16_t{0};
  });
}

/// Rows as the right operand: [row tile][input tile][lane] of two registers; rows and inputs beyond the end are zero.
__global__ void arrange_rows(uint2* arranged, const float* x, int32_t N, int32_t in) {
  const int32_t tiles = input_tiles(in);
  const uint64_t total = static_cast<uint64_t>(blocks(N, kRowTile)) * tiles * kWarp;
  for_each(total, [&](uint64_t at) {
    const int32_t lane = at % kWarp, tile = static_cast<int32_t>(at / kWarp % tiles);
    const int32_t row = static_cast<int32_t>(at / kWarp / tiles) * kRowTile + lane / 4;
    const int32_t first = tile * kTile + lane % 4 * 2;
    const float* from = x + static_cast<int64_t>(row) * in;
    const auto value = [&](int32_t i) { return row < N && i < in ? from[i] : 0.0f; };
    arranged[at] =
        make_uint2(to_bf16_pair(value(first), value(first + 1)), to_bf16_pair(value(first + 8), value(first + 9)));
  });
}

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

/// 16 outputs of up to 8 * RowTiles rows a block; each of its 8 warps sums one slice of the inputs.
template <int32_t RowTiles>
__global__ void __launch_bounds__(kSlices* kWarp)
    few_rows(Output output, const uint2* rows, const uint4* packed, int32_t tiles) {
  const int32_t slice = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int32_t first_tile = blockIdx.y * RowTiles, all_tiles = (output.N + kRowTile - 1) / kRowTile;
  const uint4* weights = packed + static_cast<int64_t>(blockIdx.x) * tiles * kWarp + lane;
  float sums[RowTiles][4] = {};
#pragma unroll 4
  for (int32_t k = slice_begin(slice, tiles); k < slice_begin(slice + 1, tiles); k++) {
    const uint4 w = load_streaming(weights + static_cast<int64_t>(k) * kWarp);
    const uint32_t a[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int32_t n = 0; n < RowTiles; n++) {
      if (first_tile + n >= all_tiles) break;
      const uint2 x = rows[(static_cast<int64_t>(first_tile + n) * tiles + k) * kWarp + lane];
      const uint32_t b[2] = {x.x, x.y};
      mma(sums[n], a, b);
    }
  }
  float* partial = shared<float>();  // [slice][row tile][lane][4]
#pragma unroll
  for (int32_t n = 0; n < RowTiles; n++)
    for (int32_t i = 0; i < 4; i++) partial[((slice * RowTiles + n) * kWarp + lane) * 4 + i] = sums[n][i];
  __syncthreads();
  for (int32_t at = threadIdx.x; at < RowTiles * kTile * kRowTile; at += blockDim.x) {
    float sum = partial[at];
    for (int32_t s = 1; s < kSlices; s++) sum += partial[s * RowTiles * kTile * kRowTile + at];
    const int32_t i = at % 4, l = at / 4 % kWarp, n = at / 4 / kWarp;
    output.put((first_tile + n) * kRowTile + l % 4 * 2 + i % 2, blockIdx.x * kTile + l / 4 + i / 2 * 8, sum);
  }
}

/// float32 weights: one thread an output, 4 rows at a time; the warp reads a panel of 32 outputs side by side.
constexpr int32_t kPlainRows = 4, kPlainThreads = 128;
__global__ void plain_rows(Output output, const float* x, const float* panels, int32_t in) {
  const int32_t o = blockIdx.x * kPlainThreads + threadIdx.x, first = blockIdx.y * kPlainRows;
  if (o >= output.out) return;
  const float* w = panels + plain_index(o, 0, in);
  const int32_t last = output.N - 1;
  const float* rows[kPlainRows];
  for (int32_t r = 0; r < kPlainRows; r++) rows[r] = x + static_cast<int64_t>(min(first + r, last)) * in;
  float sums[kPlainRows] = {};
  for (int32_t k = 0; k < in; k++) {
    const float value = w[static_cast<int64_t>(k) * kPanel];
#pragma unroll
    for (int32_t r = 0; r < kPlainRows; r++) sums[r] = fmaf(rows[r][k], value, sums[r]);
  }
  for (int32_t r = 0; r < kPlainRows; r++) output.put(first + r, o, sums[r]);
}

__global__ void pack_plain(float* panels, const float* weight, int32_t out, int32_t in) {
  for_each(static_cast<uint64_t>(out) * in, [&](uint64_t at) {
    panels[plain_index(static_cast<int32_t>(at / in), static_cast<int32_t>(at % in), in)] = weight[at];
  });
}

template <int32_t RowTiles>
void launch_few(const Output& output, const uint2* rows, const uint4* packed, int32_t tiles) {
  const dim3 grid(output_tiles(output.out), blocks(blocks(output.N, kRowTile), RowTiles));
  GRAFT_LAUNCH(few_rows<RowTiles>, grid, kSlices * kWarp, kSlices * RowTiles * kWarp * 4 * sizeof(float), output, rows,
               packed, tiles);
}

void launch_packed(const Output& output, const uint2* rows, const uint4* packed, int32_t tiles) {
  const int32_t row_tiles = blocks(output.N, kRowTile);
  if (row_tiles == 1) return launch_few<1>(output, rows, packed, tiles);
  if (row_tiles == 2) return launch_few<2>(output, rows, packed, tiles);
  if (row_tiles <= 4) return launch_few<4>(output, rows, packed, tiles);
  launch_few<8>(output, rows, packed, tiles);
}

int32_t check_linear(int32_t out, int32_t in, int32_t dtype) {
  GRAFT_CHECK(out > 0 && in > 0, "Cannot run a linear layer: shape is [%d, %d], expected positive sizes", out, in);
  GRAFT_CHECK(dtype == GRAFT_F32 || dtype == GRAFT_BF16, "Cannot run a linear layer: dtype is %d, expected 0 or 1",
              dtype);
  return GRAFT_OK;
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" double graft_linear_packed_bytes(int32_t out, int32_t in, int32_t dtype) {
  if (check_linear(out, in, dtype) != GRAFT_OK) return 0;
  if (dtype == GRAFT_F32) return 4.0 * blocks(out, kPanel) * kPanel * in;
  return 2.0 * output_tiles(out) * kTile * input_tiles(in) * kTile;
}

extern "C" int32_t graft_linear_pack(void* packed, const void* weight, int32_t out, int32_t in, int32_t dtype) {
  GRAFT_TRY(check_linear(out, in, dtype));
  GRAFT_CHECK(packed && weight, "Cannot pack a linear weight: a pointer is null");
  if (dtype == GRAFT_F32) {
    GRAFT_LAUNCH(pack_plain, grid_for(static_cast<uint64_t>(out) * in), kThreads, 0, static_cast<float*>(packed),
                 static_cast<const float*>(weight), out, in);
    return launched("linear_pack");
  }
  const double bytes = graft_linear_packed_bytes(out, in, dtype);
  GRAFT_LAUNCH(pack, grid_for(static_cast<uint64_t>(bytes / 2)), kThreads, 0, static_cast<uint16_t*>(packed),
               static_cast<const uint16_t*>(weight), out, in);
  return launched("linear_pack");
}

extern "C" int32_t graft_linear(float* y, const float* x, const void* packed, const float* bias, const float* residual,
                                int32_t N, int32_t out, int32_t in, int32_t dtype) {
  GRAFT_TRY(check_linear(out, in, dtype));
  GRAFT_CHECK(N > 0, "Cannot run a linear layer: %d rows, expected at least one", N);
  GRAFT_CHECK(y && x && packed, "Cannot run a linear layer: a pointer is null");
  const Output output{y, bias, residual, N, out};
  if (dtype == GRAFT_F32) {
    const dim3 grid(blocks(out, kPlainThreads), blocks(N, kPlainRows));
    GRAFT_LAUNCH(plain_rows, grid, kPlainThreads, 0, output, x, static_cast<const float*>(packed), in);
    return launched("linear");
  }
  if (N > kFewRows) {
    auto* rows = static_cast<uint16_t*>(workspace(arranged_bytes(N, in)));
    if (rows == nullptr) return GRAFT_OUT_OF_MEMORY;
    const Product product{y, packed, nullptr, bias, residual, out, 0};
    arrange_many_rows(rows, x, N, in);
    multiply_many_rows(&product, 1, rows, N, in);
    return launched("linear");
  }
  const int32_t tiles = input_tiles(in);
  const uint64_t vectors = static_cast<uint64_t>(blocks(N, kRowTile)) * tiles * kWarp;
  auto* rows = static_cast<uint2*>(workspace(vectors * sizeof(uint2)));
  if (rows == nullptr) return GRAFT_OUT_OF_MEMORY;
  GRAFT_LAUNCH(arrange_rows, grid_for(vectors), kThreads, 0, rows, x, N, in);
  launch_packed(output, rows, static_cast<const uint4*>(packed), tiles);
  return launched("linear");
}
