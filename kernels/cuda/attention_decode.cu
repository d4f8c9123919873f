// Softmax attention of few rows against long contexts, on tensor cores. A block has one span of keys at a time: each of
// its 4 warps scores one block of 64 keys, then sums a quarter of the channels over all of them; the next span's keys
// and values are on their way meanwhile. A row that is new brings its key and value along: they go into their page and
// into the tiles of the blocks that read them, never from one block to another.
#include "decode_runs.h"
#include "host.h"

namespace graft::gpu {
namespace {

using namespace decoding;

/// Sequences of one launch: what is known of them lies in shared memory.
constexpr int32_t kMostSequences = 1024;
/// Blocks of one multiprocessor: registers are dealt out for so many.
template <int32_t D>
constexpr int32_t kMostResident = D == 128  ? 1
                                  : D == 64 ? 2
                                            : 3;

/// Where the keys and values of a unit's block of keys lie, and how many positions there are to read.
template <int32_t D>
__device__ __forceinline__ void find_keys(KeyRows<kKeyBlock>& keys, const Attention& a, const Room<D>& room,
                                          const Unit& unit) {
  const int32_t start = a.start_pos[unit.s], count = a.seq_start[unit.s + 1] - a.seq_start[unit.s];
  const int32_t* table = a.page_table + static_cast<int64_t>(room.table_rows[unit.s]) * a.table_stride;
  keys.find(a, table, unit.h, unit.span * kSpan + threadIdx.x / kWarp * kKeyBlock,
            a.k != nullptr ? start : start + count);
}

/// What a unit needs besides keys and values that lie in pages: queries, where they are other ones, and what is new.
template <int32_t D>
__device__ __forceinline__ void enter_unit(uint32_t (&queries)[D / 16][4], const Attention& a, const Room<D>& room,
                                           const Unit& unit, const QueryRows& rows, bool enters, bool fresh) {
  if (enters) load_queries<D>(a, room, unit, rows);
  if (fresh) load_fresh<D>(a, room, unit, rows);
  __syncthreads();
  if (!enters) return;
#pragma unroll
  for (int32_t k = 0; k < D / 16; k++) load_left(queries[k], room.queries + k * 16, kRowStride<D>);
}

/// grid: blocks that share the units
template <int32_t D>
__global__ void __launch_bounds__(kThreadsOfSpan, kMostResident<D>) decode(Attention a, Slots slots) {
  // All blocks are there from the start: whatever else the multiprocessors have room for may come.
  depend_launch();
  depend_wait();
  const Room<D> room(a.S);
  const int32_t warp = threadIdx.x / kWarp;
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
    if (enters || fresh) enter_unit<D>(queries, a, room, unit, rows, enters, fresh);
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
    if (mine) share_maxima<D>(room, scores, a, unit, rows, first);
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
