// What the scans of gdn_prefill.cu and gla_prefill.cu share: v of 32 columns, fetched two blocks ahead and convolved
// one block ahead, and reads of a piece of S0 with 16 vectors at once. A Scan knows its memory, sequence, head and
// columns.
#pragma once
#include "step_rows.h"

namespace graft::gpu {

constexpr int32_t kMostPieces = 8, kReadStride = 36, kRing = 3 * kRowsOfBlock;

/// v in shared memory.
struct ScanRows {
  float rows[kRing][kPiece];         // as projected: three blocks in turn
  float v[2][kRowsOfBlock][kPiece];  // after its convolution: this block's and the next one's

  /// Row t of block i; t may be below 0.
  __device__ float* ring(int32_t i, int32_t t) { return rows[(i * kRowsOfBlock + t + kRing) % kRing]; }
};

/// Sends for v of block i, as it was projected.
template <class Scan>
__device__ void fetch_rows(const Scan& scan, int32_t i) {
  const BlockRows rows = scan.rows(i);
  for (int32_t at = threadIdx.x; at < kRowsOfBlock * kPiece / 4; at += blockDim.x) {
    const int32_t t = at / (kPiece / 4), column = at % (kPiece / 4) * 4;
    if (t < rows.from || t >= rows.to || scan.first_column + column >= scan.step.shape.Dv) continue;
    copy_async(scan.memory.ring(i, t) + column,
               scan.v().u + static_cast<int64_t>(rows.first + t) * scan.v().C + scan.channel(column));
  }
}

/// The rows before the first, from the window.
template <class Scan>
__device__ void fetch_window(const Scan& scan) {
  if (!scan.v().there()) return;
  const int32_t lane = threadIdx.x % kWarp, from = scan.rows(0).from;
  if (threadIdx.x >= kWarp || scan.first_column + lane >= scan.step.shape.Dv) return;
  for (int32_t back = 1; back < scan.v().W; back++)
    scan.memory.ring(0, from - back)[lane] = scan.v().input(-back, scan.channel(lane));
}

/// v of block i after its convolution, as it is kept, by the warps that have pieces.
template <class Kept, class Scan>
__device__ void convolve_rows(const Scan& scan, int32_t i, int32_t warp) {
  const BlockRows rows = scan.rows(i);
  const int32_t lane = threadIdx.x % kWarp;
  if (scan.first_column + lane >= scan.step.shape.Dv) return;
  for (int32_t t = rows.from + warp; t < rows.to; t += scan.pieces) {
    float value = scan.memory.ring(i, t)[lane];
    if (scan.v().there())
      value = scan.v().of(rows.first + t, scan.channel(lane),
                          [&](int32_t tap) { return scan.memory.ring(i, t - scan.v().W + 1 + tap)[lane]; });
    scan.memory.v[i % 2][t][lane] = kept<Kept>(value);
  }
}

/// A piece's products with 16 vectors, to shared memory: vector n at `to` + n kReadStride.
template <class T, bool Exact>
__device__ void read_rows(float* to, const TileOperand (&operand)[kSteps], const uint4 (&high)[kSteps],
                          const uint4 (&low)[kSteps]) {
  float sums[2][2][4] = {};
#pragma unroll
  for (int32_t step = 0; step < kSteps; step++) {
    const uint32_t upper[2] = {high[step].x, high[step].y}, lower[2] = {high[step].z, high[step].w};
    const uint32_t upper_low[2] = {low[step].x, low[step].y}, lower_low[2] = {low[step].z, low[step].w};
    read_tile<T, Exact>(sums[0], operand[step], upper, upper_low);
    read_tile<T, Exact>(sums[1], operand[step], lower, lower_low);
  }
  const TilePlace place = tile_place();
#pragma unroll
  for (int32_t half = 0; half < 2; half++) {
    store4(to + (8 * half + 2 * place.t) * kReadStride + place.column, first_vector(sums[half]));
    store4(to + (8 * half + 2 * place.t + 1) * kReadStride + place.column, second_vector(sums[half]));
  }
}

/// The second operands of a piece's reads, as write_operands() left them.
__device__ __forceinline__ void load_operands(const uint4* from, int32_t piece, uint4 (&to)[kSteps]) {
#pragma unroll
  for (int32_t step = 0; step < kSteps; step++)
    to[step] = from[(piece * kSteps + step) * static_cast<int32_t>(kWarp) + threadIdx.x % kWarp];
}
/// at(row, channel) of 16 rows as operands: of rows g and 8 + g, channels 2t, 2t + 1 and 2t + 8, 2t + 9 of a step.
template <class At>
__device__ void write_operands(int32_t pieces, uint4* high, uint4* low, At&& at) {
  for (int32_t i = threadIdx.x; i < pieces * kSteps * static_cast<int32_t>(kWarp); i += blockDim.x) {
    const int32_t lane = i % kWarp, g = lane / 4, t = lane % 4, c = i / kWarp * 16 + 2 * t;
    const Split a = split(at(g, c), at(g, c + 1)), b = split(at(g, c + 8), at(g, c + 9)),
                d = split(at(g + 8, c), at(g + 8, c + 1)), e = split(at(g + 8, c + 8), at(g + 8, c + 9));
    high[i] = make_uint4(a.high, b.high, d.high, e.high);
    if (low != nullptr) low[i] = make_uint4(a.low, b.low, d.low, e.low);
  }
}

/// Norm and gate of heads [heads, Dv] in place.
int32_t finish_heads(float* y, const float* gate, const float* gain, int64_t heads, int32_t Dv, float eps);

}  // namespace graft::gpu
