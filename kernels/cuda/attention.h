// What every kernel of softmax attention knows: the sequences, their rows, and where keys and values lie in the pages.
// Keys are cut at absolute positions: blocks of 64 take one step of online softmax each, spans of 4 blocks are summed
// by themselves, spans are merged in ascending order within stretches of 16, stretches in ascending order. No number of
// rows, blocks or sequences changes these cuts, so a row gets the same bits from every kernel.
#pragma once
#include "device.h"

namespace graft::gpu {

constexpr int32_t kKeyBlock = 64, kSpanBlocks = 4, kSpan = kSpanBlocks * kKeyBlock, kStretch = 16, kQueryTile = 16;

/// Division by the page size: a multiplication that is exact for every position below 2^31.
struct PageSize {
  int32_t size;
  uint32_t multiplier, shift;

  static PageSize of(int32_t size) {
    uint32_t log = 0;
    while ((uint64_t{1} << log) < static_cast<uint64_t>(size)) log++;
    const uint64_t scale = uint64_t{1} << (31 + log), divisor = static_cast<uint64_t>(size);
    return {size, static_cast<uint32_t>((scale + divisor - 1) / divisor), 31 + log};
  }
  __device__ int32_t index(int32_t position) const {
    return static_cast<int32_t>((static_cast<uint64_t>(static_cast<uint32_t>(position)) * multiplier) >> shift);
  }
};

/// The paged cache of one layer and the sequences that attend. A page holds [Hkv, page size, D].
struct Attention {
  float* o;
  const float* q;
  /// New keys and values that are in no page yet, one row a sequence; null where all are in their pages.
  const float *k, *v;
  void *k_cache, *v_cache;
  /// Gains of the norms of every head of q and k, and the table of rope; each may be null.
  const float *q_norm, *k_norm, *rope;
  const int32_t *seq_start, *start_pos, *table_rows, *page_table;
  int32_t table_stride, S, N, Hq, Hkv;
  PageSize page;
  /// As many rows as sequences: one of each.
  bool one_each;
  /// No row stands at this position or later.
  int32_t longest;
  float norm_eps;
  /// To the base of 2.
  float scale;
  Report* report;

  __device__ const int32_t* table(int32_t s) const {
    return page_table + static_cast<int64_t>(table_rows[s]) * table_stride;
  }
  /// Which row of D elements of the cache holds `position` of head h; below 0, and said, where the table has no page.
  __device__ int32_t cache_row(const int32_t* table, int32_t position, int32_t h) const {
    const int32_t index = page.index(position), at = table[index];
    if (at < 0) {
      complain(report, kIndex, index, at, 0x7fffffff);
      return -1;
    }
    return (at * Hkv + h) * page.size + position - index * page.size;
  }
  __device__ const float* rope_row(int32_t position, int32_t D) const {
    return rope == nullptr ? nullptr : rope + static_cast<int64_t>(position) * D;
  }
};

/// Rows of a sequence's queries over one kv head: row r is token r / G under the group's head r % G.
struct QueryRows {
  int32_t first, count, start, group, head;  // head: the group's first query head

  __device__ bool holds(int32_t r) const { return r < count * group; }
  __device__ int32_t position(int32_t r) const { return start + r / group; }
  __device__ int64_t at(int32_t r, int32_t Hq, int32_t D) const {
    return (static_cast<int64_t>(first + r / group) * Hq + head + r % group) * D;
  }
};

__device__ inline QueryRows query_rows(const Attention& a, int32_t s, int32_t h) {
  const int32_t first = a.seq_start[s], group = a.Hq / a.Hkv;
  return {first, a.seq_start[s + 1] - first, a.start_pos[s], group, h * group};
}

/// Whether a sequence's rows stand where they may; says so where they do not.
__device__ inline bool stands_well(const Attention& a, int32_t s, int32_t start, int32_t count) {
  if (count <= 0) return false;
  if (start >= 0 && count <= a.longest - start) return true;
  complain(a.report, kIndex, s, start < 0 ? start : start + count - 1, a.longest - 1);
  return false;
}

/// Sequences of one row, or of at most this many query rows to a kv head, are decoded.
constexpr int32_t kDecodeRows = kQueryTile;
__host__ __device__ inline bool decodes(int32_t count, int32_t group) {
  return count == 1 || count * group <= kDecodeRows;
}

/// Rows of keys, values or queries in shared memory lie 16 bytes further apart than they are long: no two rows of a
/// matrix then begin in the same bank.
template <int32_t D>
constexpr int32_t kRowStride = D + 8;
template <int32_t D>
constexpr int32_t kTileElements = kKeyBlock * kRowStride<D>;

/// Rows of the cache of the keys first + lane, first + lane + 32, ... that a warp fetches; -1 from `length` on.
template <int32_t Keys>
struct KeyRows {
  int32_t row[(Keys + 31) / 32];

  __device__ __forceinline__ void find(const Attention& a, const int32_t* table, int32_t h, int32_t first,
                                       int32_t length) {
    const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
    for (int32_t i = 0; i < (Keys + 31) / 32; i++) {
      const int32_t key = lane + i * 32, position = first + key;
      row[i] = key < Keys && position < length ? a.cache_row(table, position, h) : -1;
    }
  }

  /// Starts the copies of all keys (or values) of this warp; those that are not there become zeros.
  template <int32_t D>
  __device__ __forceinline__ void fetch(uint16_t* tile, const void* cache) const {
    constexpr int32_t kChunks = D / 8, kStep = 32 / kChunks;
    const int32_t lane = threadIdx.x % kWarp, chunk = lane % kChunks * 8;
#pragma unroll
    for (int32_t k = 0; k < Keys; k += kStep) {
      const int32_t key = k + lane / kChunks, from = __shfl_sync(kAll, row[k / 32], key % 32);
      copy_async(tile + key * kRowStride<D> + chunk,
                 static_cast<const uint16_t*>(cache) + static_cast<int64_t>(max(from, 0)) * D + chunk, from >= 0);
    }
  }
};

// ---- host ----
constexpr float kLog2E = 1.4426950408889634f;
/// Positions that a row of the page table has room for.
inline int32_t positions_of(int32_t table_stride, int32_t page_size) {
  const int64_t positions = static_cast<int64_t>(table_stride) * page_size;
  return static_cast<int32_t>(positions < 0x7fffffff ? positions : 0x7fffffff);
}
int32_t check_sizes(const char* op, int32_t S, int32_t N, int32_t Hq, int32_t Hkv, int32_t D, int32_t table_stride,
                    int32_t page_size, int32_t kv_dtype);
/// Attention of all rows once their keys are in the pages (a.k null), or in one launch with a.k, for one row a
/// sequence.
int32_t attend(const char* op, const Attention& a, int32_t D, int32_t kv_dtype);
/// Whether attend() takes new keys that are in no page yet.
bool takes_new_keys(const Attention& a, int32_t D, int32_t kv_dtype);
/// Whether it norms and turns the queries; else they have to be.
bool turns_queries(const Attention& a, int32_t D, int32_t kv_dtype);
/// Sequences that decode, for head sizes 32, 64, 128 in bfloat16; the others.
int32_t attend_few(const Attention& a, int32_t D);
/// Bytes of shared memory that a block of it takes.
size_t room_of_few(int32_t D);
int32_t attend_many(const Attention& a, int32_t D);
/// Any head size, float32 arithmetic; q as it is.
int32_t attend_plain(const Attention& a, int32_t D, int32_t kv_dtype);

}  // namespace graft::gpu
