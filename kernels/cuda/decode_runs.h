// Where a block that decodes leaves the sums of its spans: in o, where it has seen all of a row's keys, else in slots,
// and in the block that arrives last their merge.
#pragma once
#include "arrivals.h"
#include "decode_span.h"

namespace graft::gpu::decoding {

/// This warp's quarter of a slot.
template <int32_t D>
__device__ __forceinline__ void store_slot(float* slot, const Slots& slots, const Sums<D / 32>& part, int32_t rows) {
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const int32_t r = lane / 4 + i * 8;
    if (r >= rows) continue;
    if (warp == 0 && lane % 4 == 0)
      *reinterpret_cast<float2*>(slot + slots.rows * D + 2 * r) = make_float2(part.maximum[i], part.sum[i]);
    float* to = slot + r * D + warp * (D / kSpanBlocks) + lane % 4 * 2;
#pragma unroll
    for (int32_t n = 0; n < D / 32; n++)
      *reinterpret_cast<float2*>(to + n * 8) = make_float2(part.values[n][2 * i], part.values[n][2 * i + 1]);
  }
}

/// o of this warp's quarter of the channels.
template <int32_t D>
__device__ __forceinline__ void store_rows(const Attention& a, const Sums<D / 32>& part, const Unit& unit,
                                           const QueryRows& rows) {
  const int32_t lane = threadIdx.x % kWarp, channel = threadIdx.x / kWarp * (D / kSpanBlocks) + lane % 4 * 2;
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const int32_t r = unit.tile * kQueryTile + lane / 4 + i * 8;
    if (!rows.holds(r)) continue;
    float* o = a.o + rows.at(r, a.Hq, D) + channel;
#pragma unroll
    for (int32_t n = 0; n < D / 32; n++)
      *reinterpret_cast<float2*>(o + n * 8) =
          make_float2(part.values[n][2 * i] / part.sum[i], part.values[n][2 * i + 1] / part.sum[i]);
  }
}

/// One channel of one row as slots are merged, in their order.
struct Element {
  float maximum, sum, value;
};
template <class SlotAt>
__device__ __forceinline__ Element merge_element(int32_t count, SlotAt&& slot_at, int32_t value_at, int32_t row_at) {
  const auto read = [&](int32_t i) -> Element {
    const float* slot = slot_at(i);
    return {load_arrived(slot + row_at), load_arrived(slot + row_at + 1), load_arrived(slot + value_at)};
  };
  Element merged = read(0);
#pragma unroll 4
  for (int32_t i = 1; i < count; i++) {
    const Element later = read(i);
    const Meeting meeting(merged.maximum, later.maximum);
    merged = {meeting.top, meeting.add(merged.sum, later.sum), meeting.add(merged.value, later.value)};
  }
  return merged;
}

/// The block that came last merges `count` slots into o, or where `to` is given into that slot.
template <int32_t D, class SlotAt>
__device__ __forceinline__ void merge_slots(const Attention& a, const Slots& slots, const Unit& unit,
                                            const QueryRows& rows, int32_t count, float* to, SlotAt&& slot_at) {
  const int32_t held = min(kQueryTile, rows.count * rows.group - unit.tile * kQueryTile);
  for (int32_t at = threadIdx.x; at < held * D; at += kThreadsOfSpan) {
    const int32_t r = at / D, d = at % D, row_at = slots.rows * D + 2 * r;
    const Element merged = merge_element(count, slot_at, at, row_at);
    if (to == nullptr) {
      a.o[rows.at(unit.tile * kQueryTile + r, a.Hq, D) + d] = merged.value / merged.sum;
      continue;
    }
    to[at] = merged.value;
    if (d > 0) continue;
    to[row_at] = merged.maximum;
    to[row_at + 1] = merged.sum;
  }
}

/// Merges a stretch whose spans are all in slots.
template <int32_t D>
__device__ __forceinline__ void merge_stretch(const Attention& a, const Slots& slots, const Room<D>& room,
                                              const Unit& unit, const QueryRows& rows, const Parting& parting,
                                              int32_t begin, float* to) {
  // The block with the first span has merged all that it has of the stretch; every other span has a slot of its own.
  const int32_t first_block = parting.block_of(begin), count = unit.spans_of_stretch();
  const int32_t merged = min(parting.begin(first_block + 1) - begin, count), i = threadIdx.x;
  if (i <= count - merged) {
    const int32_t u = begin + merged + i - 1, block = i == 0 ? first_block : parting.block_of(u);
    room.places[i] = block * kStretch + (i == 0 ? kStretch - 1 : u - parting.begin(block));
  }
  __syncthreads();
  merge_slots<D>(a, slots, unit, rows, count - merged + 1, to,
                 [&](int32_t at) { return slots.run(0, room.places[at], D); });
}

/// A stretch is in its slot; the block that brings the last one finishes the rows.
template <int32_t D>
__device__ __forceinline__ void finish_stretch(const Attention& a, const Slots& slots, const Room<D>& room,
                                               const Unit& unit, const QueryRows& rows) {
  const int32_t stretches = (unit.spans + kStretch - 1) / kStretch;
  if (!arrives_last(slots.finished + unit.query_tile, 1, stretches, room.scratch)) return;
  merge_slots<D>(a, slots, unit, rows, stretches, nullptr,
                 [&](int32_t at) { return slots.stretch(unit.query_tile, at, D); });
}

/// Ends a block's run within a stretch. `total`: its spans from the stretch's begin on, where it has them (`whole`).
template <int32_t D>
__device__ __forceinline__ void end_run(const Attention& a, const Slots& slots, const Room<D>& room, const Unit& unit,
                                        const QueryRows& rows, const Parting& parting, int32_t u, bool whole,
                                        const Sums<D / 32>& total) {
  const bool single = unit.spans <= kStretch;
  const int32_t held = min(kQueryTile, rows.count * rows.group - unit.tile * kQueryTile);
  float* stretch = single ? nullptr : slots.stretch(unit.query_tile, unit.stretch(), D);
  if (whole && unit.ends_stretch()) {
    if (single) return store_rows<D>(a, total, unit, rows);
    store_slot<D>(stretch, slots, total, held);
    return finish_stretch<D>(a, slots, room, unit, rows);
  }
  if (whole) store_slot<D>(slots.run(blockIdx.x, kStretch - 1, D), slots, total, held);
  const int32_t spans = whole ? unit.in_stretch() + 1 : u - parting.begin(blockIdx.x) + 1;
  int32_t* arrived = slots.arrived + static_cast<int64_t>(unit.query_tile) * slots.max_stretches + unit.stretch();
  if (!arrives_last(arrived, spans, unit.spans_of_stretch(), room.scratch)) return;
  merge_stretch<D>(a, slots, room, unit, rows, parting, u - unit.in_stretch(), stretch);
  if (!single) finish_stretch<D>(a, slots, room, unit, rows);
}

}  // namespace graft::gpu::decoding
