// Softmax attention of few rows against long contexts, on tensor cores. A block has one span of keys at a time: each of
// its 4 warps scores one block of 64 keys, then sums a quarter of the channels over all of them; the next span's keys
// and values are on their way meanwhile. A row that is new brings its key and value along: they go into their page and
// into the tiles of the blocks that read them, never from one block to another.
#include "arrivals.h"
#include "attention_rows.h"
#include "attention_units.h"
#include "host.h"
#include "softmax_tile.h"

namespace graft::gpu {
namespace {

constexpr int32_t kThreadsOfSpan = kSpanBlocks * kWarp, kWeightStride = kSpan + 8;
/// Sequences of one launch: what is known of them lies in shared memory.
constexpr int32_t kMostSequences = 1024;
/// Blocks of one multiprocessor: registers are dealt out for so many.
template <int32_t D>
constexpr int32_t kMostResident = D == 128  ? 1
                                  : D == 64 ? 2
                                            : 3;

/// Shared memory of a block.
template <int32_t D>
struct Room {
  static constexpr size_t kTiles = kSpanBlocks * kTileElements<D> * sizeof(uint16_t);
  static constexpr size_t kQueries = kQueryTile * kRowStride<D> * sizeof(uint16_t);
  static constexpr size_t kWeights = kQueryTile * kWeightStride * sizeof(uint16_t);
  static constexpr size_t kFresh = 2 * D * sizeof(uint16_t);
  static constexpr size_t kRows = kSpanBlocks * kQueryTile * sizeof(float);
  static constexpr size_t kFixed = 2 * kTiles + kQueries + kWeights + kFresh + 2 * kRows + (kStretch + 8) * 4;

  uint16_t *keys, *values, *queries, *weights, *fresh;
  float *maxima, *sums;
  int32_t *places, *scratch, *table_rows, *first;

  static constexpr size_t bytes(int32_t sequences) { return kFixed + (2 * sequences + 1) * sizeof(int32_t); }

  __device__ __forceinline__ explicit Room(int32_t sequences) {
    unsigned char* at = shared<unsigned char>();
    const auto take = [&](size_t bytes) { return (at += bytes) - bytes; };
    keys = reinterpret_cast<uint16_t*>(take(kTiles));
    values = reinterpret_cast<uint16_t*>(take(kTiles));
    queries = reinterpret_cast<uint16_t*>(take(kQueries));
    weights = reinterpret_cast<uint16_t*>(take(kWeights));
    fresh = reinterpret_cast<uint16_t*>(take(kFresh));
    maxima = reinterpret_cast<float*>(take(kRows));
    sums = reinterpret_cast<float*>(take(kRows));
    places = reinterpret_cast<int32_t*>(take(kStretch * 4));
    scratch = reinterpret_cast<int32_t*>(take(8 * 4));
    table_rows = reinterpret_cast<int32_t*>(take(sequences * 4));
    first = reinterpret_cast<int32_t*>(at);
  }
};

/// The unit's rows of q, normed and turned, into shared memory.
template <int32_t D>
__device__ __forceinline__ void load_queries(const Attention& a, const Room<D>& room, const Unit& unit,
                                             const QueryRows& rows) {
#pragma unroll
  for (int32_t i = 0; i < kQueryTile / kSpanBlocks; i++) {
    const int32_t at = threadIdx.x / kWarp + i * kSpanBlocks, r = unit.tile * kQueryTile + at;
    float x[D / 32] = {};
    if (rows.holds(r))
      load_head<D>(x, a.q + rows.at(r, a.Hq, D), a.q_norm, a.rope_row(rows.position(r), D), a.norm_eps);
    store_head<D>(room.queries + at * kRowStride<D>, x);
  }
}

/// The new key and value into shared memory, and by one block of those that need them into their page.
template <int32_t D>
__device__ __forceinline__ void load_fresh(const Attention& a, const Room<D>& room, const Unit& unit,
                                           const QueryRows& rows) {
  const int32_t warp = threadIdx.x / kWarp;
  if (warp < 2) return;
  const bool key = warp == 2;
  const int64_t from = (static_cast<int64_t>(rows.first) * a.Hkv + unit.h) * D;
  float x[D / 32];
  if (key)
    load_head<D>(x, a.k + from, a.k_norm, a.rope_row(rows.start, D), a.norm_eps);
  else
    load_head<D>(x, a.v + from, nullptr, nullptr, 0);
  store_head<D>(room.fresh + (key ? 0 : D), x);
  if (unit.tile != 0) return;
  const int32_t to = a.cache_row(a.table(unit.s), rows.start, unit.h);
  if (to >= 0) store_head<D>(static_cast<uint16_t*>(key ? a.k_cache : a.v_cache) + static_cast<int64_t>(to) * D, x);
}

/// One row of a tile by its warp.
template <int32_t D>
__device__ __forceinline__ void put_fresh(uint16_t* row, const uint16_t* fresh) {
  const int32_t lane = threadIdx.x % kWarp;
  if (lane < D / 8) reinterpret_cast<uint4*>(row)[lane] = reinterpret_cast<const uint4*>(fresh)[lane];
}

/// Scores of this warp's block of keys.
template <int32_t D>
__device__ __forceinline__ void score_keys(Scores& scores, const uint32_t (&queries)[D / 16][4], const uint16_t* keys) {
#pragma unroll
  for (int32_t n = 0; n < kKeyBlock / 8; n++)
#pragma unroll
    for (int32_t e = 0; e < 4; e++) scores[n][e] = 0;
#pragma unroll
  for (int32_t k = 0; k < D / 16; k++)
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n += 2) {
      uint32_t even[2], odd[2];
      load_keys(even, odd, keys + n * 8 * kRowStride<D> + k * 16, kRowStride<D>);
      mma(scores[n], queries[k], even);
      mma(scores[n + 1], queries[k], odd);
    }
}

/// The weights of this warp's block against the greatest score up to it, for all warps to read.
template <int32_t D>
__device__ __forceinline__ void share_weights(const Room<D>& room, Scores& scores, float scale) {
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const int32_t r = lane / 4 + i * 8;
    float top = -INFINITY;
    for (int32_t w = 0; w <= warp; w++) top = fmaxf(top, room.maxima[w * kQueryTile + r]);
    const float sum = weigh_row(scores, i, scale, top);
    if (lane % 4 == 0) room.sums[warp * kQueryTile + r] = sum;
    uint16_t* to = room.weights + r * kWeightStride + warp * kKeyBlock + lane % 4 * 2;
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n++)
      *reinterpret_cast<uint32_t*>(to + n * 8) = to_bf16_pair(scores[n][2 * i], scores[n][2 * i + 1]);
  }
}

/// Sums over the span for this warp's quarter of the channels, block after block.
template <int32_t D>
__device__ __forceinline__ void sum_values(Sums<D / 32>& part, const Room<D>& room, int32_t key_blocks) {
  const int32_t lane = threadIdx.x % kWarp, channel = threadIdx.x / kWarp * (D / kSpanBlocks);
  part.clear();
  for (int32_t j = 0; j < key_blocks; j++) {
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
      const int32_t at = j * kQueryTile + lane / 4 + i * 8;
      part.rescale(i, fmaxf(part.maximum[i], room.maxima[at]), room.sums[at]);
    }
#pragma unroll
    for (int32_t k = 0; k < kKeyBlock; k += 32) {
      uint32_t low[4], high[4];
      load_left(low, room.weights + j * kKeyBlock + k, kWeightStride);
      load_left(high, room.weights + j * kKeyBlock + k + 16, kWeightStride);
      const uint16_t* values = room.values + j * kTileElements<D> + (k + lane) * kRowStride<D> + channel;
#pragma unroll
      for (int32_t n = 0; n < D / 32; n++) {
        uint32_t r[4];
        load_matrices<true>(r, values + n * 8);
        const uint32_t first[2] = {r[0], r[1]}, second[2] = {r[2], r[3]};
        mma(part.values[n], low, first);
        mma(part.values[n], high, second);
      }
    }
  }
}

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

/// Where the keys and values of a unit's block of keys lie, and how many positions there are to read.
template <int32_t D>
__device__ __forceinline__ void find_keys(KeyRows<kKeyBlock>& keys, const Attention& a, const Room<D>& room,
                                          const Unit& unit) {
  const int32_t start = a.start_pos[unit.s], count = a.seq_start[unit.s + 1] - a.seq_start[unit.s];
  const int32_t* table = a.page_table + static_cast<int64_t>(room.table_rows[unit.s]) * a.table_stride;
  keys.find(a, table, unit.h, unit.span * kSpan + threadIdx.x / kWarp * kKeyBlock,
            a.k != nullptr ? start : start + count);
}

/// grid: blocks that share the units
template <int32_t D>
__global__ void __launch_bounds__(kThreadsOfSpan, kMostResident<D>) decode(Attention a, Slots slots) {
  // All blocks are there from the start: whatever else the multiprocessors have room for may come.
  depend_launch();
  depend_wait();
  const Room<D> room(a.S);
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const Parting parting{count_units(a, room.first, room.table_rows, room.scratch)};
  const int32_t begin = parting.begin(blockIdx.x), end = parting.begin(blockIdx.x + 1);
  if (begin == end) return;
  uint16_t *keys = room.keys + warp * kTileElements<D>, *values = room.values + warp * kTileElements<D>;
  Unit unit = find_unit(a, slots, room.first, begin);
  KeyRows<kKeyBlock> key_rows;
  find_keys<D>(key_rows, a, room, unit);
  key_rows.template fetch<D>(keys, a.k_cache);
  copy_commit();
  key_rows.template fetch<D>(values, a.v_cache);
  copy_commit();
  uint32_t queries[D / 16][4];
  Sums<D / 32> total;
  total.clear();
  bool whole = false;
  for (int32_t u = begin; u < end; u++) {
    const QueryRows rows = query_rows(a, unit.s, unit.h);
    const bool fresh = a.k != nullptr && unit.last(), enters = u == begin || unit.span == 0;
    const int32_t first = unit.span * kSpan + warp * kKeyBlock, length = rows.start + rows.count;
    const int32_t key_blocks = min(kSpanBlocks, (length - unit.span * kSpan + kKeyBlock - 1) / kKeyBlock);
    const bool mine = warp < key_blocks, brings = fresh && warp == key_blocks - 1;
    if (enters) load_queries<D>(a, room, unit, rows);
    if (fresh) load_fresh<D>(a, room, unit, rows);
    if (enters || fresh) __syncthreads();
    if (enters)
#pragma unroll
      for (int32_t k = 0; k < D / 16; k++) load_left(queries[k], room.queries + k * 16, kRowStride<D>);
    const bool more = u + 1 < end;
    Unit next = unit;
    if (more) {
      next = find_unit(a, slots, room.first, u + 1);
      find_keys<D>(key_rows, a, room, next);
    }
    copy_wait<1>();
    __syncwarp();
    Scores scores;
    if (brings) {
      put_fresh<D>(keys + (rows.start - first) * kRowStride<D>, room.fresh);
      __syncwarp();
    }
    if (mine) score_keys<D>(scores, queries, keys);
    __syncwarp();
    if (more) key_rows.template fetch<D>(keys, a.k_cache);
    copy_commit();
    if (mine)
#pragma unroll
      for (int32_t i = 0; i < 2; i++) {
        const int32_t r = lane / 4 + i * 8;
        if (first + kKeyBlock > rows.start + 1) mask_row(scores, i, rows.position(unit.tile * kQueryTile + r), first);
        const float top = block_maximum(scores, i, a.scale);
        if (lane % 4 == 0) room.maxima[warp * kQueryTile + r] = top;
      }
    __syncthreads();
    if (mine) share_weights<D>(room, scores, a.scale);
    copy_wait<1>();
    __syncwarp();
    if (brings) put_fresh<D>(values + (rows.start - first) * kRowStride<D>, room.fresh + D);
    __syncthreads();
    Sums<D / 32> part;
    sum_values<D>(part, room, key_blocks);
    __syncthreads();
    if (more) key_rows.template fetch<D>(values, a.v_cache);
    copy_commit();
    if (unit.in_stretch() == 0) {
      total = part;
      whole = true;
    } else if (whole) {
      total.merge(part);
    } else {
      const int32_t held = min(kQueryTile, rows.count * rows.group - unit.tile * kQueryTile);
      store_slot<D>(slots.run(blockIdx.x, u - begin, D), slots, part, held);
    }
    if (unit.ends_stretch() || !more) {
      end_run<D>(a, slots, room, unit, rows, parting, u, whole, total);
      whole = false;
    }
    unit = next;
  }
  copy_wait<0>();
}

template <int32_t D>
int32_t run(const Attention& a) {
  const int32_t group = a.Hq / a.Hkv, max_spans = blocks(a.longest, kSpan);
  const int32_t most_rows = a.one_each || group > kDecodeRows ? group : kDecodeRows;  // of one sequence and kv head
  Slots slots{};
  slots.rows = most_rows < kQueryTile ? most_rows : kQueryTile;
  slots.tiles = blocks(most_rows, kQueryTile);
  slots.max_stretches = blocks(max_spans, kStretch);
  const size_t bytes = Room<D>::bytes(a.S);
  int32_t resident = static_cast<int32_t>(shared_bytes_of_multiprocessor() / (bytes + 1024));
  if (resident > kMostResident<D>) resident = kMostResident<D>;
  const int64_t query_tiles = static_cast<int64_t>(a.S) * a.Hkv * slots.tiles, most_units = query_tiles * max_spans;
  int64_t grid = static_cast<int64_t>(multiprocessors()) * (resident < 1 ? 1 : resident);
  if (grid > most_units) grid = most_units;
  const uint64_t slot = static_cast<uint64_t>(slots.rows) * (D + 2), runs = grid * kStretch * slot;
  const uint64_t long_rows = slots.max_stretches > 1 ? query_tiles * slots.max_stretches * slot : 0;
  slots.runs = static_cast<float*>(workspace((runs + long_rows) * sizeof(float)));
  slots.arrived = counters(query_tiles * (slots.max_stretches + 1));
  if (slots.runs == nullptr || slots.arrived == nullptr)
    return fail(GRAFT_OUT_OF_MEMORY, "attention: no memory for partial results");
  slots.stretches = slots.runs + runs;
  slots.finished = slots.arrived + query_tiles * slots.max_stretches;
  GRAFT_LAUNCH_EARLY(decode<D>, dim3(static_cast<unsigned>(grid)), kThreadsOfSpan, bytes, a, slots);
  return GRAFT_OK;
}

}  // namespace

size_t room_of_few(int32_t D) {
  return D == 32   ? Room<32>::bytes(kMostSequences)
         : D == 64 ? Room<64>::bytes(kMostSequences)
                   : Room<128>::bytes(kMostSequences);
}

int32_t attend_few(const Attention& a, int32_t D) {
  for (int32_t s = 0; s < a.S; s += kMostSequences) {
    Attention some = a;
    some.seq_start += s;
    some.start_pos += s;
    some.table_rows += s;
    some.S = a.S - s < kMostSequences ? a.S - s : kMostSequences;
    GRAFT_TRY(D == 32 ? run<32>(some) : D == 64 ? run<64>(some) : run<128>(some));
  }
  return GRAFT_OK;
}

}  // namespace graft::gpu
