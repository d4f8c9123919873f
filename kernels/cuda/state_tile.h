// A piece of a recurrent state in one warp, 32 channels x 32 columns, read and advanced by tensor cores. The warp's
// products are Sᵀ: columns of the state are rows of the matrix instruction, so a piece as it lies in memory is both the
// operand of a read and the sum of an update. A float32 operand goes in as two bfloat16 (16 of its 24 bits), and a
// product is the sum of the three largest of the four; sums are float32. A column's sum over channels is the sum of its
// pieces' sums, ascending; inside a piece its order is the same for one vector and for many.
#pragma once
#include "recurrent.h"

namespace graft::gpu {

constexpr int32_t kPiece = 32, kSteps = kPiece / 16, kRowsOfBlock = 16;

/// x y, rounded: never one operation with a sum that follows.
__device__ __forceinline__ float mul(float x, float y) {
#if defined(GRAFT_SIMT)
  return x * y;
#else
  return __fmul_rn(x, y);
#endif
}

/// What was computed from x before is computed anew after: a part that runs seldom holds no registers in between.
template <class X>
__device__ __forceinline__ void forget(X& x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900  // for 8.0 the compiler does better without
  if constexpr (sizeof(X) == 8)
    asm volatile("" : "+l"(x));
  else
    asm volatile("" : "+r"(x));
#else
  (void)x;
#endif
}

/// Two numbers as pairs of bfloat16: high + low.
struct Split {
  uint32_t high, low;
};
__device__ __forceinline__ Split split(float x, float y) {
  const uint32_t high = to_bf16_pair(x, y);
  return {high, to_bf16_pair(x - low_float(high), y - high_float(high))};
}

/// One 8 x 8 matrix of bfloat16, transposed across the warp: lane l had elements 2 (l % 4) and the next of row l / 4.
__device__ __forceinline__ uint32_t transpose(uint32_t x) {
#if defined(GRAFT_SIMT)
  const int g = static_cast<int>(threadIdx.x % kWarp) / 4, t = static_cast<int>(threadIdx.x % kWarp) % 4;
  const uint32_t a = __shfl_sync(kAll, x, 8 * t + g / 2), b = __shfl_sync(kAll, x, 8 * t + 4 + g / 2);
  return g % 2 ? (a >> 16) | (b & 0xffff0000u) : (a & 0xffffu) | (b << 16);
#else
  uint32_t y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
#endif
}

/// Read once in a kernel, by the way of no cache of the multiprocessor.
__device__ __forceinline__ float4 load4_past(const float* p) {
#if defined(GRAFT_SIMT)
  return load4(p);
#else
  float4 v;
  asm volatile("ld.global.L1::no_allocate.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(p)
               : "memory");
  return v;
#endif
}
__device__ __forceinline__ uint2 load4_past(const bf16_bits* p) {
#if defined(GRAFT_SIMT)
  return *reinterpret_cast<const uint2*>(p);
#else
  uint2 v;
  asm volatile("ld.global.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
  return v;
#endif
}
/// Fetches the line at p into the L2 cache; a hint.
__device__ __forceinline__ void fetch_line(const void* p) {
#if defined(GRAFT_SIMT)
  (void)p;
#else
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#endif
}

/// Where a lane stands in a piece: channels 16 step + channel(i), i < 4, and columns column..column+3.
struct TilePlace {
  int32_t g, t, column;
  __device__ int32_t channel(int32_t step, int32_t i) const { return 16 * step + 2 * t + i % 2 + 8 * (i / 2); }
};
__device__ __forceinline__ TilePlace tile_place() {
  const int32_t lane = threadIdx.x % kWarp;
  return {lane / 4, lane % 4, lane / 4 * 4};
}

/// A lane's elements as they lie in memory: by step, channel and 4 columns. Loaded as bits, so that nothing waits for
/// them before their first use.
template <class T, int32_t Steps = kSteps>
struct Tile {
  using Quad = std::conditional_t<sizeof(T) == 4, float4, uint2>;
  Quad quads[Steps][4];

  __device__ float4 at(int32_t step, int32_t i) const {
    if constexpr (sizeof(T) == 4)
      return quads[step][i];
    else
      return make_float4(low_float(quads[step][i].x), high_float(quads[step][i].x), low_float(quads[step][i].y),
                         high_float(quads[step][i].y));
  }
  __device__ void set(int32_t step, int32_t i, float4 v) {
    if constexpr (sizeof(T) == 4)
      quads[step][i] = v;
    else
      quads[step][i] = make_uint2(to_bf16_pair(v.x, v.y), to_bf16_pair(v.z, v.w));
  }
};

/// The piece at channel c0 and column `first` of a state [Dk, Dv]; zeros beyond it, and everywhere where `fresh`.
template <class T, int32_t Steps>
__device__ __forceinline__ void load_tile(Tile<T, Steps>& tile, const T* state, int32_t Dk, int32_t Dv, int32_t c0,
                                          int32_t first, bool fresh) {
  const TilePlace at = tile_place();
#pragma unroll
  for (int32_t step = 0; step < Steps; step++)
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
      const int32_t c = c0 + at.channel(step, i), column = first + at.column;
      tile.quads[step][i] = {};
      if (!fresh && c < Dk && column < Dv)
        tile.quads[step][i] = load4_past(state + static_cast<int64_t>(c) * Dv + column);
    }
}

template <class T, int32_t Steps>
__device__ __forceinline__ void store_tile(T* state, const Tile<T, Steps>& tile, int32_t Dk, int32_t Dv, int32_t c0,
                                           int32_t first) {
  const TilePlace at = tile_place();
#pragma unroll
  for (int32_t step = 0; step < Steps; step++)
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
      const int32_t c = c0 + at.channel(step, i), column = first + at.column;
      if (c < Dk && column < Dv)
        *reinterpret_cast<typename Tile<T, Steps>::Quad*>(state + static_cast<int64_t>(c) * Dv + column) =
            tile.quads[step][i];
    }
}

/// One step of a piece as the operand of a read: by half of the columns, and register. bfloat16 states have no low
/// part.
struct TileOperand {
  uint32_t high[2][4], low[2][4];
};
template <class T>
__device__ __forceinline__ void operand_of(TileOperand& operand, const Tile<T>& tile, int32_t step) {
  const float4 x[4] = {tile.at(step, 0), tile.at(step, 1), tile.at(step, 2), tile.at(step, 3)};
  const auto put = [&](int32_t half, int32_t i, float a, float b) {
    if constexpr (sizeof(T) == 4) {
      const Split pair = split(a, b);
      operand.high[half][i] = pair.high;
      operand.low[half][i] = pair.low;
    } else {
      operand.high[half][i] = to_bf16_pair(a, b);
    }
  };
  put(0, 0, x[0].x, x[1].x);
  put(0, 1, x[0].y, x[1].y);
  put(0, 2, x[2].x, x[3].x);
  put(0, 3, x[2].y, x[3].y);
  put(1, 0, x[0].z, x[1].z);
  put(1, 1, x[0].w, x[1].w);
  put(1, 2, x[2].z, x[3].z);
  put(1, 3, x[2].w, x[3].w);
}

template <class T>
__device__ __forceinline__ void operands_of(TileOperand (&operands)[kSteps], const Tile<T>& tile) {
#pragma unroll
  for (int32_t step = 0; step < kSteps; step++) operand_of(operands[step], tile, step);
}

/// sums[half] += Sᵀ x of one step, 8 vectors x as the instruction's second operand. Exact: x has no low part.
template <class T, bool Exact>
__device__ __forceinline__ void read_tile(float (&sums)[2][4], const TileOperand& operand, const uint32_t (&high)[2],
                                          const uint32_t (&low)[2]) {
#pragma unroll
  for (int32_t half = 0; half < 2; half++) mma(sums[half], operand.high[half], high);
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int32_t half = 0; half < 2; half++) mma(sums[half], operand.low[half], high);
  }
  if constexpr (!Exact) {
#pragma unroll
    for (int32_t half = 0; half < 2; half++) mma(sums[half], operand.high[half], low);
  }
}

/// What read_tile() left a lane for vectors 2t and 2t + 1: four columns each.
__device__ __forceinline__ float4 first_vector(const float (&sums)[2][4]) {
  return make_float4(sums[0][0], sums[0][2], sums[1][0], sums[1][2]);
}
__device__ __forceinline__ float4 second_vector(const float (&sums)[2][4]) {
  return make_float4(sums[0][1], sums[0][3], sums[1][1], sums[1][3]);
}

/// 16 rows of a block, 32 columns, as the operand of an update.
struct RowsOperand {
  uint32_t high[2][4], low[2][4];
};
/// x: a lane's four columns of rows 2t, 2t + 1, 2t + 8 and 2t + 9.
__device__ __forceinline__ void rows_operand(RowsOperand& rows, const float4 (&x)[4]) {
  const auto put = [&](int32_t half, int32_t i, float a, float b) {
    const Split pair = split(a, b);
    rows.high[half][i] = pair.high;
    rows.low[half][i] = pair.low;
  };
  put(0, 0, x[0].x, x[1].x);
  put(0, 1, x[0].y, x[1].y);
  put(0, 2, x[2].x, x[3].x);
  put(0, 3, x[2].y, x[3].y);
  put(1, 0, x[0].z, x[1].z);
  put(1, 1, x[0].w, x[1].w);
  put(1, 2, x[2].z, x[3].z);
  put(1, 3, x[2].w, x[3].w);
}

/// The channels 16 step + 8 half .. + 7 of a piece: S = decay(channel) S + sum_s key_s rows_sᵀ over 16 rows s. high and
/// low: keys of rows 2t, 2t + 1 and of 2t + 8, 2t + 9 at channel g of the eight. The sum over rows starts from zero, so
/// that the state itself is rounded to nearest.
template <bool ExactKeys, bool ExactRows, class T, int32_t Steps, class Decay>
__device__ __forceinline__ void advance_tile(Tile<T, Steps>& tile, int32_t step, int32_t half, const RowsOperand& rows,
                                             const uint32_t (&high)[2], const uint32_t (&low)[2], Decay&& decay) {
  float sums[2][4] = {};
#pragma unroll
  for (int32_t m = 0; m < 2; m++) mma(sums[m], rows.high[m], high);
  if constexpr (!ExactRows) {
#pragma unroll
    for (int32_t m = 0; m < 2; m++) mma(sums[m], rows.low[m], high);
  }
  if constexpr (!ExactKeys) {
#pragma unroll
    for (int32_t m = 0; m < 2; m++) mma(sums[m], rows.high[m], low);
  }
  const float4 add[2] = {first_vector(sums), second_vector(sums)};
#pragma unroll
  for (int32_t e = 0; e < 2; e++) {
    const int32_t i = 2 * half + e;
    const float by = decay(tile_place().channel(step, i));
    const float4 old = tile.at(step, i);
    tile.set(step, i,
             make_float4(fmaf(old.x, by, add[e].x), fmaf(old.y, by, add[e].y), fmaf(old.z, by, add[e].z),
                         fmaf(old.w, by, add[e].w)));
  }
}

}  // namespace graft::gpu
