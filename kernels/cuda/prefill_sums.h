// Sums of spans and stretches that wait in memory while a warp that prefills has the next in its registers, and their
// merge in ascending order.
#pragma once
#include "arrivals.h"
#include "prefill_tile.h"

namespace graft::gpu::prefilling {

/// Memory for sums of stretches.
struct Stretches {
  /// Whole blocks: [N, Hq, D] of the stretches so far. Parted ones: [stretch][N, Hq, D].
  float* sums;
  /// Parted blocks: [stretch][N, Hq] of {maximum, sum}, and how many parts of a block are done.
  float* states;
  int32_t* arrived;
};

/// A warp's rows in memory: what was summed before the span in its registers. Lanes touch what they wrote themselves.
template <int32_t D, int32_t T>
struct Waiting {
  float* rows;    // [N, Hq, D]
  float* states;  // of the warp's first row: {maximum, sum}, four floats a row
  const QueryRows& queries;
  int32_t first_row, Hq;

  __device__ __forceinline__ float* row(int32_t r) const { return rows + queries.at(r, Hq, D) + threadIdx.x % 4 * 2; }

  /// The sums that wait come before those of `part`.
  __device__ __forceinline__ void join(Sums<D / 8> (&part)[T]) const {
    const int32_t lane = threadIdx.x % kWarp;
    __syncwarp();
#pragma unroll
    for (int32_t m = 0; m < T; m++)
#pragma unroll
      for (int32_t i = 0; i < 2; i++) {
        const int32_t at = m * kQueryTile + lane / 4 + i * 8;
        if (!queries.holds(first_row + at)) continue;
        const float2 state = *reinterpret_cast<const float2*>(states + at * 4);
        const Meeting meeting(state.x, part[m].maximum[i]);
        part[m].maximum[i] = meeting.top;
        part[m].sum[i] = meeting.add(state.y, part[m].sum[i]);
        const float* from = row(first_row + at);
#pragma unroll
        for (int32_t n = 0; n < D / 8; n++) {
          const float2 earlier = *reinterpret_cast<const float2*>(from + n * 8);
          part[m].values[n][2 * i] = meeting.add(earlier.x, part[m].values[n][2 * i]);
          part[m].values[n][2 * i + 1] = meeting.add(earlier.y, part[m].values[n][2 * i + 1]);
        }
      }
    __syncwarp();
  }

  __device__ __forceinline__ void keep(const Sums<D / 8> (&part)[T]) const {
    const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
    for (int32_t m = 0; m < T; m++)
#pragma unroll
      for (int32_t i = 0; i < 2; i++) {
        const int32_t at = m * kQueryTile + lane / 4 + i * 8;
        if (!queries.holds(first_row + at)) continue;
        if (lane % 4 == 0)
          *reinterpret_cast<float2*>(states + at * 4) = make_float2(part[m].maximum[i], part[m].sum[i]);
        float* to = row(first_row + at);
#pragma unroll
        for (int32_t n = 0; n < D / 8; n++)
          *reinterpret_cast<float2*>(to + n * 8) = make_float2(part[m].values[n][2 * i], part[m].values[n][2 * i + 1]);
      }
  }

  /// The rows' results.
  __device__ __forceinline__ void finish(const Sums<D / 8> (&part)[T]) const {
    const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
    for (int32_t m = 0; m < T; m++)
#pragma unroll
      for (int32_t i = 0; i < 2; i++) {
        const int32_t r = first_row + m * kQueryTile + lane / 4 + i * 8;
        if (!queries.holds(r)) continue;
        float* to = row(r);
#pragma unroll
        for (int32_t n = 0; n < D / 8; n++)
          *reinterpret_cast<float2*>(to + n * 8) =
              make_float2(part[m].values[n][2 * i] / part[m].sum[i], part[m].values[n][2 * i + 1] / part[m].sum[i]);
      }
  }
};

/// A warp's rows have summed a span: it joins its stretch, the stretch those before it.
template <int32_t D, int32_t T>
__device__ __forceinline__ void end_span(Sums<D / 8> (&part)[T], const Attention& a, const Stretches& sums,
                                         const QueryRows& rows, int32_t block_row, int32_t span, bool last) {
  const int32_t row = threadIdx.x / kWarp * kWarpRows<T>;
  const Waiting<D, T> stretch{a.o, Room<D, T>::states() + row * 4, rows, block_row + row, a.Hq};
  const Waiting<D, T> before{sums.sums, stretch.states + 2, rows, block_row + row, a.Hq};
  if (span % kStretch > 0) stretch.join(part);
  if (!last && (span + 1) % kStretch != 0) return stretch.keep(part);
  if (span >= kStretch) before.join(part);
  if (last)
    stretch.finish(part);
  else
    before.keep(part);
}

/// As end_span(), where other blocks have the other stretches: each has its own place.
template <int32_t D, int32_t T>
__device__ __forceinline__ void end_parted_span(Sums<D / 8> (&part)[T], const Attention& a, const Stretches& sums,
                                                const QueryRows& rows, int32_t block_row, int32_t span, bool last) {
  const int32_t row = threadIdx.x / kWarp * kWarpRows<T>, lane = threadIdx.x % kWarp;
  const int64_t first = static_cast<int64_t>(span / kStretch) * a.N * a.Hq;
  const Waiting<D, T> stretch{sums.sums + first * D, Room<D, T>::states() + row * 4, rows, block_row + row, a.Hq};
  if (span % kStretch > 0) stretch.join(part);
  stretch.keep(part);
  if (lane % 4 != 0 || (!last && (span + 1) % kStretch != 0)) return;
#pragma unroll
  for (int32_t m = 0; m < T; m++)
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
      const int32_t r = block_row + row + m * kQueryTile + lane / 4 + i * 8;
      if (!rows.holds(r)) continue;
      *reinterpret_cast<float2*>(sums.states + 2 * (first + rows.at(r, a.Hq, 1))) =
          make_float2(part[m].maximum[i], part[m].sum[i]);
    }
}

/// The last of a block's parts merges the stretches of each row.
template <int32_t D, int32_t T>
__device__ __forceinline__ void merge_parts(const Attention& a, const Stretches& sums, const QueryRows& rows,
                                            int32_t block_row) {
  const int32_t count = min(kBlockRows<T>, rows.count * rows.group - block_row);
  const int64_t step = static_cast<int64_t>(a.N) * a.Hq;
  for (int32_t at = threadIdx.x; at < count * D; at += blockDim.x) {
    const int32_t r = block_row + at / D, stretches = rows.position(r) / kStretchKeys + 1;
    const int64_t row = rows.at(r, a.Hq, 1);
    const float *state = sums.states + 2 * row, *value = sums.sums + row * D + at % D;
    float maximum = load_arrived(state), sum = load_arrived(state + 1), merged = load_arrived(value);
#pragma unroll 4
    for (int32_t t = 1; t < stretches; t++) {
      const Meeting meeting(maximum, load_arrived(state + 2 * t * step));
      maximum = meeting.top;
      sum = meeting.add(sum, load_arrived(state + 2 * t * step + 1));
      merged = meeting.add(merged, load_arrived(value + t * step * D));
    }
    a.o[row * D + at % D] = merged / sum;
  }
}

}  // namespace graft::gpu::prefilling
