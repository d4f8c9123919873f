// What gla.cu and gdn.cu share: how a thread block goes over a recurrent state [Dk, Dv]. Thread (part p, quad j) has
// the channels of part p and columns 4j..4j+3. A column's sum is the sum of the 16 parts' own sums, in ascending order,
// whatever the number of columns or rows at hand: so one row at a time and many give the same bits.
#pragma once
#include <cstring>

#include "elements.h"
#include "host.h"

namespace graft::gpu {

constexpr int32_t kParts = 16, kHeader = 16, kMaxBlock = 64, kRun = 8, kVectors = 8;

__host__ __device__ constexpr int64_t line(int64_t floats) { return (floats + 15) / 16 * 16; }
/// Floats that hold `n` elements of T, in whole cache lines.
template <class T>
__host__ __device__ constexpr int64_t floats_of(int64_t n) {
  return line((n * static_cast<int64_t>(sizeof(T)) + 3) / 4);
}

/// A state element as it is kept: float32, or bfloat16 bits.
using bf16_bits = uint16_t;
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16_bits x) { return to_float(x); }
template <class T>
__device__ __forceinline__ T narrow(float x) {
  if constexpr (sizeof(T) == 2)
    return to_bf16(x);
  else
    return x;
}
/// x as it will be read again.
template <class T>
__device__ __forceinline__ float kept(float x) {
  return widen(narrow<T>(x));
}

__device__ __forceinline__ float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ __forceinline__ float4 load4(const bf16_bits* p) {
  const uint2 v = *reinterpret_cast<const uint2*>(p);
  return make_float4(low_float(v.x), high_float(v.x), low_float(v.y), high_float(v.y));
}
__device__ __forceinline__ void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }
__device__ __forceinline__ void store4(bf16_bits* p, float4 v) {
  *reinterpret_cast<uint2*>(p) = make_uint2(to_bf16_pair(v.x, v.y), to_bf16_pair(v.z, v.w));
}
__device__ __forceinline__ void add4(float4& sum, float w, float4 v) {
  sum.x = fmaf(w, v.x, sum.x);
  sum.y = fmaf(w, v.y, sum.y);
  sum.z = fmaf(w, v.z, sum.z);
  sum.w = fmaf(w, v.w, sum.w);
}

/// A thread's place over `columns` columns from `first` on; threads beyond the last part have none.
struct Place {
  int32_t part, column;
  bool works;
};
__device__ __forceinline__ Place place_of(int32_t columns) {
  const int32_t quads = columns / 4, part = threadIdx.x / quads;
  return {part, static_cast<int32_t>(threadIdx.x) % quads * 4, part < kParts};
}
/// Threads for `columns` columns.
inline unsigned threads_for(int32_t columns) { return blocks<unsigned>(kParts * columns / 4, kWarp) * kWarp; }

__device__ __forceinline__ int32_t part_begin(int32_t part, int32_t Dk) { return part * Dk / kParts; }

/// sum_c x[c] y[c] of one warp, in the order of its lanes.
template <class X, class Y>
__device__ __forceinline__ float warp_dot(const X* x, const Y* y, int32_t n) {
  float sum = 0;
  for (int32_t c = threadIdx.x % kWarp; c < n; c += kWarp) sum = fmaf(widen(x[c]), widen(y[c]), sum);
  return warp_sum(sum);
}

/// Which rows of which sequence, and where its slot is.
struct Sequences {
  float* state;
  const int32_t *slots, *seq_start, *start_pos;
  int32_t S, N, block;
  uint64_t stride;
  Report* report;

  __device__ float* slot(int32_t s) const { return state + static_cast<uint64_t>(slots[s]) * stride; }
};

__device__ __forceinline__ int32_t position_of(const float* slot) { return __float_as_int(slot[0]); }

/// Leaves the new position in a slot, after a look at the old one. One thread of one block per sequence.
__device__ inline void move_position(const Sequences& call, int32_t s) {
  float* slot = call.slot(s);
  const int32_t count = call.seq_start[s + 1] - call.seq_start[s], start = call.start_pos[s];
  if (count == 0) return;
  if (start > 0 && position_of(slot) != start) complain(call.report, kPosition, s, start, position_of(slot));
  slot[0] = __int_as_float(start + count);
}

/// partial[vector][part][column] summed over the parts in ascending order.
__device__ __forceinline__ float sum_parts(const float* partial, int32_t vector, int32_t column, int32_t columns) {
  const float* at = partial + static_cast<int64_t>(vector) * kParts * columns + column;
  float sum = at[0];
#pragma unroll
  for (int32_t p = 1; p < kParts; p++) sum += at[p * columns];
  return sum;
}

/// partial = the parts' sums of weights[vector][c] state[c][column], then of more[vector][s] rows[s][column] with
/// s = part, part + 16, ... < depth[vector]; `count` <= kVectors vectors.
template <class T, class Depth>
__device__ __forceinline__ void read_state(float* partial, const float* weights, int32_t weight_stride,
                                           const float* more, int32_t more_stride, const T* state, const T* rows,
                                           int32_t Dk, int32_t Dv, int32_t columns, int32_t count, Depth&& depth) {
  const Place place = place_of(columns);
  if (!place.works) return;
  float4 sums[kVectors] = {};
#pragma unroll 4
  for (int32_t c = part_begin(place.part, Dk); c < part_begin(place.part + 1, Dk); c++) {
    const float4 v = load4(state + static_cast<int64_t>(c) * Dv + place.column);
#pragma unroll
    for (int32_t i = 0; i < kVectors; i++)
      if (i < count) add4(sums[i], weights[i * weight_stride + c], v);
  }
  if (more != nullptr) {
    int32_t deepest = 0;
    for (int32_t i = 0; i < count; i++) deepest = max(deepest, depth(i));
    for (int32_t s = place.part; s < deepest; s += kParts) {
      const float4 v = load4(rows + static_cast<int64_t>(s) * Dv + place.column);
#pragma unroll
      for (int32_t i = 0; i < kVectors; i++)
        if (i < count && s < depth(i)) add4(sums[i], more[i * more_stride + s], v);
    }
  }
#pragma unroll
  for (int32_t i = 0; i < kVectors; i++)
    if (i < count) store4(partial + (static_cast<int64_t>(i) * kParts + place.part) * columns + place.column, sums[i]);
}

/// to[c][column] = decay(c) state[c][column] + sum_{s < count} key(s, c) rows[s][column]; to may be the state. `keys`
/// is room for kParts rows of Dk. All threads of the block call it.
template <class T, class To, class Decay, class Key>
__device__ __forceinline__ void advance_state(To* to, int32_t to_stride, const T* state, const T* rows, int32_t Dk,
                                              int32_t Dv, int32_t columns, int32_t count, float* keys, Decay&& decay,
                                              Key&& key) {
  const Place place = place_of(columns);
  for (int32_t first = 0; first == 0 || first < count; first += kParts) {
    const int32_t some = min(kParts, count - first);
    __syncthreads();
    for (int32_t at = threadIdx.x; at < some * Dk; at += blockDim.x) keys[at] = key(first + at / Dk, at % Dk);
    __syncthreads();
    if (!place.works) continue;
    for (int32_t c = part_begin(place.part, Dk); c < part_begin(place.part + 1, Dk); c++) {
      To* element = to + static_cast<int64_t>(c) * to_stride + place.column;
      float4 sum;
      if (first == 0) {
        const float4 old = load4(state + static_cast<int64_t>(c) * Dv + place.column);
        const float by = decay(c);
        sum = make_float4(old.x * by, old.y * by, old.z * by, old.w * by);
      } else {
        sum = load4(element);
      }
      for (int32_t s = 0; s < some; s++)
        add4(sum, keys[s * Dk + c], load4(rows + static_cast<int64_t>(first + s) * Dv + place.column));
      store4(element, sum);
    }
  }
}

/// Clears the block's columns of a state.
template <class T>
__device__ __forceinline__ void clear_state(T* state, int32_t Dk, int32_t Dv, int32_t columns) {
  const Place place = place_of(columns);
  if (!place.works) return;
  for (int32_t c = part_begin(place.part, Dk); c < part_begin(place.part + 1, Dk); c++)
    store4(state + static_cast<int64_t>(c) * Dv + place.column, make_float4(0, 0, 0, 0));
}

/// Columns of one thread block: all of them, as far as threads reach, where every sequence has one row; else a slice,
/// so that a long prompt has work for many blocks.
inline int32_t columns_of(int32_t Dv, bool one_each) {
  if (!one_each && Dv % 32 == 0) return 32;
  int32_t slices = blocks(Dv, 128);
  while (Dv % (4 * slices) != 0) slices++;
  return Dv / slices;
}

inline int32_t check_call(const char* op, const Sequences& call, double needed, int32_t state_dtype) {
  GRAFT_CHECK(call.state && call.slots && call.seq_start && call.start_pos, "%s: a pointer is null", op);
  GRAFT_CHECK(call.S >= 0 && call.N >= 0, "%s: S is %d and N is %d, expected neither below 0", op, call.S, call.N);
  GRAFT_CHECK(call.block >= 1 && call.block <= kMaxBlock, "%s: block is %d, expected 1 to %d on this device", op,
              call.block, kMaxBlock);
  GRAFT_CHECK(state_dtype == GRAFT_F32 || state_dtype == GRAFT_BF16, "%s: state_dtype is %d, expected 0 or 1", op,
              state_dtype);
  GRAFT_CHECK(static_cast<double>(call.stride) >= needed, "%s: state_stride is %llu floats, expected at least %.0f", op,
              static_cast<unsigned long long>(call.stride), needed);
  return GRAFT_OK;
}

inline int32_t check_sizes(const char* op, int32_t heads, int32_t shared_heads, int32_t Dk, int32_t Dv) {
  GRAFT_CHECK(shared_heads >= 1 && heads >= shared_heads && heads % shared_heads == 0,
              "%s: %d heads over %d, expected a positive multiple", op, heads, shared_heads);
  GRAFT_CHECK(Dk >= 8 && Dk <= 256 && Dk % 8 == 0, "%s: Dk is %d, expected a multiple of 8 from 8 to 256", op, Dk);
  GRAFT_CHECK(Dv >= 8 && Dv <= 256 && Dv % 8 == 0, "%s: Dv is %d, expected a multiple of 8 from 8 to 256", op, Dv);
  return GRAFT_OK;
}

}  // namespace graft::gpu
