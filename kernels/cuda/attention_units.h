// How decoding is parted among blocks. A unit is one span of keys for one tile of query rows (sequence, kv head, tile);
// every block takes a run of units of equal length. A block merges spans as long as it has a stretch from its first
// span on; other spans of a stretch, and stretches of a long row, are left in slots for the block that arrives last.
#pragma once
#include "attention.h"

namespace graft::gpu {

/// Where results wait: per slot [rows][D] sums, then [rows] of {maximum, sum of weights}.
struct Slots {
  float* runs;          // kStretch a block: spans in the order of its units, last the one merged from a stretch's begin
  float* stretches;     // of a query tile: stretches
  int32_t* arrived;     // of a query tile: spans of each stretch that are in their slots
  int32_t* finished;    // of a query tile: stretches that are
  int32_t rows, tiles;  // rows of a slot; query tiles of a kv head, at most
  int32_t max_stretches;

  __device__ int64_t floats(int32_t D) const { return static_cast<int64_t>(rows) * (D + 2); }
  __device__ float* run(int32_t block, int32_t i, int32_t D) const {
    return runs + (static_cast<int64_t>(block) * kStretch + i) * floats(D);
  }
  __device__ float* stretch(int32_t tile, int32_t i, int32_t D) const {
    return stretches + (static_cast<int64_t>(tile) * max_stretches + i) * floats(D);
  }
};

struct Unit {
  int32_t s, h, tile, span, spans;
  int32_t query_tile;  // counted over all sequences

  __device__ int32_t stretch() const { return span / kStretch; }
  __device__ int32_t in_stretch() const { return span % kStretch; }
  __device__ int32_t spans_of_stretch() const { return min(kStretch, spans - stretch() * kStretch); }
  __device__ bool last() const { return span == spans - 1; }
  __device__ bool ends_stretch() const { return last() || in_stretch() == kStretch - 1; }
};

__device__ inline int32_t tiles_of(int32_t count, int32_t group) {
  return (count * group + kQueryTile - 1) / kQueryTile;
}
__device__ inline int32_t spans_of(int32_t start, int32_t count) { return (start + count + kSpan - 1) / kSpan; }

/// Units of sequence s; none where another kernel has it, or where it stands wrong.
__device__ inline int32_t units_of(const Attention& a, int32_t s) {
  const int32_t count = a.seq_start[s + 1] - a.seq_start[s], start = a.start_pos[s], group = a.Hq / a.Hkv;
  if (a.one_each && count > 1) {  // the launch has room for one row of each
    complain(a.report, kRows, s, count, 1);
    return 0;
  }
  if (!decodes(count, group) || !stands_well(a, s, start, count)) return 0;
  return spans_of(start, count) * a.Hkv * tiles_of(count, group);
}

/// Fills first[s] with the number of units before sequence s, first[S] with all of them, and keeps its row of the page
/// table at hand. `scratch`: a word a warp.
__device__ inline int32_t count_units(const Attention& a, int32_t* first, int32_t* table_rows, int32_t* scratch) {
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  int32_t before = 0;
  for (int32_t base = 0; base < a.S; base += blockDim.x) {
    const int32_t s = base + threadIdx.x, own = s < a.S ? units_of(a, s) : 0;
    if (s < a.S) table_rows[s] = a.table_rows[s];
    int32_t sum = own;
    for (int32_t by = 1; by < 32; by *= 2) {
      const int32_t lower = __shfl_up_sync(kAll, sum, by);
      if (lane >= by) sum += lower;
    }
    if (lane == 31) scratch[warp] = sum;
    __syncthreads();
    int32_t total = 0, earlier = 0;
    for (int32_t w = 0; w < warps; w++) {
      if (w < warp) earlier += scratch[w];
      total += scratch[w];
    }
    if (s < a.S) first[s] = before + earlier + sum - own;
    before += total;
    __syncthreads();
  }
  if (threadIdx.x == 0) first[a.S] = before;
  __syncthreads();
  return before;
}

/// Which units block b of the grid has: begin(b) to begin(b + 1).
struct Parting {
  int32_t units;
  __device__ int32_t begin(int32_t block) const {
    return static_cast<int32_t>(static_cast<int64_t>(units) * block / gridDim.x);
  }
  __device__ int32_t block_of(int32_t unit) const {
    return static_cast<int32_t>(((unit + int64_t{1}) * gridDim.x - 1) / units);
  }
};

__device__ inline Unit find_unit(const Attention& a, const Slots& slots, const int32_t* first, int32_t u) {
  int32_t low = 0, high = a.S;  // first[low] <= u < first[high]
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (first[middle] <= u)
      low = middle;
    else
      high = middle;
  }
  const int32_t count = a.seq_start[low + 1] - a.seq_start[low], tiles = tiles_of(count, a.Hq / a.Hkv);
  const int32_t spans = spans_of(a.start_pos[low], count), pair = (u - first[low]) / spans, h = pair / tiles;
  const int32_t tile = pair - h * tiles;
  return {low, h, tile, u - first[low] - pair * spans, spans, (low * a.Hkv + h) * slots.tiles + tile};
}

/// First unit of the query tile that unit u belongs to.
__device__ inline int32_t tile_begin(const Unit& unit, int32_t u) { return u - unit.span; }

}  // namespace graft::gpu
