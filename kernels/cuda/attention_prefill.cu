// Softmax attention of many rows, on tensor cores. A block has 128 query rows of one kv head (tokens times the heads of
// the group), 32 a warp; its warps share every block of 64 keys, the next is on its way while they work on one. What
// earlier spans of a stretch gave waits in o, what earlier stretches gave in memory besides: registers hold one span.
// Where long contexts meet too few rows to fill the device, the stretches of a block's rows are parted among blocks.
#include "arrivals.h"
#include "attention_rows.h"
#include "host.h"
#include "softmax_tile.h"

namespace graft::gpu {
namespace {

constexpr int32_t kWarps = 4, kWarpTiles = 2, kWarpRows = kWarpTiles * kQueryTile, kBlockRows = kWarps * kWarpRows;
static_assert(kWarpRows == kWarp);
constexpr int32_t kWarpKeys = kKeyBlock / kWarps, kStretchKeys = kStretch * kSpan;

/// Memory for sums of stretches.
struct Stretches {
  /// Whole blocks: [N, Hq, D] of the stretches so far. Parted ones: [stretch][N, Hq, D].
  float* sums;
  /// Parted blocks: [stretch][N, Hq] of {maximum, sum}, and how many parts of a block are done.
  float* states;
  int32_t* arrived;
};

template <int32_t D>
struct Room {
  static constexpr size_t kQueries = kBlockRows * kRowStride<D> * sizeof(uint16_t);
  static constexpr size_t kStage = 2 * kTileElements<D> * sizeof(uint16_t);
  /// Of every row: maximum and sum of the stretch so far, then of the stretches before.
  static constexpr size_t kStates = kBlockRows * 4 * sizeof(float);
  static constexpr size_t kPositions = kBlockRows * sizeof(int32_t);
  static constexpr size_t kBytes = kQueries + 2 * kStage + kStates + kPositions;

  static __device__ __forceinline__ uint16_t* queries() { return shared<uint16_t>(); }
  static __device__ __forceinline__ uint16_t* keys(int32_t block) {
    return shared<uint16_t>() + (kQueries + block % 2 * kStage) / sizeof(uint16_t);
  }
  static __device__ __forceinline__ uint16_t* values(int32_t block) { return keys(block) + kTileElements<D>; }
  static __device__ __forceinline__ float* states() {
    return shared<float>() + (kQueries + 2 * kStage) / sizeof(float);
  }
  static __device__ __forceinline__ int32_t* positions() {
    return shared<int32_t>() + (kQueries + 2 * kStage + kStates) / sizeof(int32_t);
  }
};

/// Which sequence, and which block of its rows, block `index` has: blocks count through the sequences that do not
/// decode. Whole warps ask.
__device__ __forceinline__ bool find_rows(const Attention& a, int32_t index, int32_t& s, int32_t& first_row) {
  const int32_t lane = threadIdx.x % kWarp, group = a.Hq / a.Hkv;
  for (int32_t base = 0; base < a.S; base += kWarp) {
    const int32_t at = base + lane, count = at < a.S ? a.seq_start[at + 1] - a.seq_start[at] : 0;
    const int32_t own = decodes(count, group) ? 0 : (count * group + kBlockRows - 1) / kBlockRows;
    int32_t sum = own;
    for (int32_t by = 1; by < 32; by *= 2) {
      const int32_t lower = __shfl_up_sync(kAll, sum, by);
      if (lane >= by) sum += lower;
    }
    const uint32_t beyond = __ballot_sync(kAll, sum > index);
    if (beyond != 0) {
      const int32_t which = __ffs(static_cast<int>(beyond)) - 1;
      s = base + which;
      // The last rows see most: they go first.
      first_row = (__shfl_sync(kAll, sum, which) - 1 - index) * kBlockRows;
      return true;
    }
    index -= __shfl_sync(kAll, sum, 31);
  }
  return false;
}

template <int32_t D>
__device__ __forceinline__ void load_queries(uint16_t* queries, const Attention& a, const QueryRows& rows,
                                             int32_t first_row) {
#pragma unroll 8
  for (int32_t i = 0; i < kWarpRows; i++) {
    const int32_t r = first_row + i;
    float x[D / 32] = {};
    if (rows.holds(r))
      load_head<D>(x, a.q + rows.at(r, a.Hq, D), a.q_norm, a.rope_row(rows.position(r), D), a.norm_eps);
    store_head<D>(queries + i * kRowStride<D>, x);
  }
}

/// Scores of both tiles of a warp's rows: every key is read from shared memory once for them.
template <int32_t D>
__device__ __forceinline__ void score_block(Scores (&scores)[kWarpTiles], const uint16_t* queries,
                                            const uint16_t* keys) {
#pragma unroll
  for (int32_t m = 0; m < kWarpTiles; m++)
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n++)
#pragma unroll
      for (int32_t e = 0; e < 4; e++) scores[m][n][e] = 0;
#pragma unroll 2
  for (int32_t k = 0; k < D / 16; k++) {
    uint32_t left[kWarpTiles][4];
#pragma unroll
    for (int32_t m = 0; m < kWarpTiles; m++)
      load_left(left[m], queries + m * kQueryTile * kRowStride<D> + k * 16, kRowStride<D>);
#pragma unroll
    for (int32_t n = 0; n < kKeyBlock / 8; n += 2) {
      uint32_t even[2], odd[2];
      load_keys(even, odd, keys + n * 8 * kRowStride<D> + k * 16, kRowStride<D>);
#pragma unroll
      for (int32_t m = 0; m < kWarpTiles; m++) {
        mma(scores[m][n], left[m], even);
        mma(scores[m][n + 1], left[m], odd);
      }
    }
  }
}

/// Keys first.. that lie beyond the rows' positions get -infinity.
__device__ __forceinline__ void mask_block(Scores (&scores)[kWarpTiles], const int32_t* positions, int32_t first) {
#pragma unroll
  for (int32_t m = 0; m < kWarpTiles; m++)
#pragma unroll
    for (int32_t i = 0; i < 2; i++)
      mask_row(scores[m], i, positions[m * kQueryTile + threadIdx.x % kWarp / 4 + i * 8], first);
}

/// Weights of a tile's rows as the left operand.
using Weights = uint32_t[kKeyBlock / 16][4];

/// One step of online softmax: scores become weights, what was summed before is scaled to the new maximum.
template <int32_t D>
__device__ __forceinline__ void weigh_block(Weights& weights, Sums<D / 8>& part, Scores& scores, float scale) {
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const float top = fmaxf(part.maximum[i], block_maximum(scores, i, scale));
    const float sum = weigh_row(scores, i, scale, top);
    // A factor of 1 changes no bit, and most blocks bring no new maximum to any row.
    if (__all_sync(kAll, top == part.maximum[i]))
      part.sum[i] += sum;
    else
      part.rescale(i, top, sum);
  }
#pragma unroll
  for (int32_t k = 0; k < kKeyBlock / 16; k++)
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
      const float* pair = scores[2 * k + i / 2] + i % 2 * 2;
      weights[k][i] = to_bf16_pair(pair[0], pair[1]);
    }
}

template <int32_t D>
__device__ __forceinline__ void add_values(Sums<D / 8> (&part)[kWarpTiles], const Weights (&weights)[kWarpTiles],
                                           const uint16_t* values) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t k = 0; k < kKeyBlock / 16; k++) {
#pragma unroll
    for (int32_t n = 0; n < D / 8; n += 2) {
      uint32_t r[4];
      load_matrices<true>(r, values + (k * 16 + lane / 8 % 2 * 8 + lane % 8) * kRowStride<D> + n * 8 + lane / 16 * 8);
      const uint32_t even[2] = {r[0], r[1]}, odd[2] = {r[2], r[3]};
#pragma unroll
      for (int32_t m = 0; m < kWarpTiles; m++) {
        mma(part[m].values[n], weights[m][k], even);
        mma(part[m].values[n + 1], weights[m][k], odd);
      }
    }
  }
}

/// A warp's rows in memory: what was summed before the span in its registers. Lanes touch what they wrote themselves.
template <int32_t D>
struct Waiting {
  float* rows;    // [N, Hq, D]
  float* states;  // of the warp's first row: {maximum, sum}, four floats a row
  const QueryRows& queries;
  int32_t first_row, Hq;

  __device__ __forceinline__ float* row(int32_t r) const { return rows + queries.at(r, Hq, D) + threadIdx.x % 4 * 2; }

  /// The sums that wait come before those of `part`.
  __device__ __forceinline__ void join(Sums<D / 8> (&part)[kWarpTiles]) const {
    const int32_t lane = threadIdx.x % kWarp;
    __syncwarp();
#pragma unroll
    for (int32_t m = 0; m < kWarpTiles; m++)
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

  __device__ __forceinline__ void keep(const Sums<D / 8> (&part)[kWarpTiles]) const {
    const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
    for (int32_t m = 0; m < kWarpTiles; m++)
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
  __device__ __forceinline__ void finish(const Sums<D / 8> (&part)[kWarpTiles]) const {
    const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
    for (int32_t m = 0; m < kWarpTiles; m++)
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
template <int32_t D>
__device__ __forceinline__ void end_span(Sums<D / 8> (&part)[kWarpTiles], const Attention& a, const Stretches& sums,
                                         const QueryRows& rows, int32_t block_row, int32_t span, bool last) {
  const int32_t row = threadIdx.x / kWarp * kWarpRows;
  const Waiting<D> stretch{a.o, Room<D>::states() + row * 4, rows, block_row + row, a.Hq};
  const Waiting<D> before{sums.sums, stretch.states + 2, rows, block_row + row, a.Hq};
  if (span % kStretch > 0) stretch.join(part);
  if (!last && (span + 1) % kStretch != 0) return stretch.keep(part);
  if (span >= kStretch) before.join(part);
  if (last)
    stretch.finish(part);
  else
    before.keep(part);
}

/// As end_span(), where other blocks have the other stretches: each has its own place.
template <int32_t D>
__device__ __forceinline__ void end_parted_span(Sums<D / 8> (&part)[kWarpTiles], const Attention& a,
                                                const Stretches& sums, const QueryRows& rows, int32_t block_row,
                                                int32_t span, bool last) {
  const int32_t row = threadIdx.x / kWarp * kWarpRows, lane = threadIdx.x % kWarp;
  const int64_t first = static_cast<int64_t>(span / kStretch) * a.N * a.Hq;
  const Waiting<D> stretch{sums.sums + first * D, Room<D>::states() + row * 4, rows, block_row + row, a.Hq};
  if (span % kStretch > 0) stretch.join(part);
  stretch.keep(part);
  if (lane % 4 != 0 || (!last && (span + 1) % kStretch != 0)) return;
#pragma unroll
  for (int32_t m = 0; m < kWarpTiles; m++)
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
      const int32_t r = block_row + row + m * kQueryTile + lane / 4 + i * 8;
      if (!rows.holds(r)) continue;
      *reinterpret_cast<float2*>(sums.states + 2 * (first + rows.at(r, a.Hq, 1))) =
          make_float2(part[m].maximum[i], part[m].sum[i]);
    }
}

/// The last of a block's parts merges the stretches of each row.
template <int32_t D>
__device__ __forceinline__ void merge_parts(const Attention& a, const Stretches& sums, const QueryRows& rows,
                                            int32_t block_row) {
  const int32_t count = min(kBlockRows, rows.count * rows.group - block_row);
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

/// grid: kv heads, blocks of rows (as many as there may be), parts of a block (part p has stretches p, p + parts, ...).
template <int32_t D>
__global__ void __launch_bounds__(kWarps* kWarp, 2) prefill(Attention a, Stretches sums) {
  depend_wait();
  int32_t s = 0, block_row = 0;
  if (!find_rows(a, blockIdx.y, s, block_row)) return;
  const int32_t h = blockIdx.x, warp = threadIdx.x / kWarp;
  const QueryRows rows = query_rows(a, s, h);
  if (!stands_well(a, s, rows.start, rows.count)) return;
  const int32_t first_row = block_row + warp * kWarpRows, all_rows = rows.count * rows.group;
  const int32_t end = rows.position(min(block_row + kBlockRows, all_rows) - 1) + 1;
  const int32_t parts = min(static_cast<int32_t>(gridDim.z), (end - 1) / kStretchKeys + 1);
  if (static_cast<int32_t>(blockIdx.z) >= parts) return;
  const auto after = [&](int32_t first) {
    first += kKeyBlock;
    return first % kStretchKeys == 0 ? first + (parts - 1) * kStretchKeys : first;
  };
  const int32_t begin = blockIdx.z * kStretchKeys;
  const int32_t* table = a.table(s);
  KeyRows<kWarpKeys> key_rows;
  const auto fetch = [&](int32_t first) {
    const int32_t to = warp * kWarpKeys * kRowStride<D>;
    key_rows.template fetch<D>(Room<D>::keys(first / kKeyBlock) + to, a.k_cache);
    key_rows.template fetch<D>(Room<D>::values(first / kKeyBlock) + to, a.v_cache);
    copy_commit();
  };
  key_rows.find(a, table, h, begin + warp * kWarpKeys, end);
  fetch(begin);
  key_rows.find(a, table, h, after(begin) + warp * kWarpKeys, end);
  uint16_t* queries = Room<D>::queries() + warp * kWarpRows * kRowStride<D>;
  load_queries<D>(queries, a, rows, first_row);
  int32_t* positions = Room<D>::positions() + warp * kWarpRows;
  positions[threadIdx.x % kWarp] =
      first_row < all_rows ? rows.position(min(first_row + static_cast<int32_t>(threadIdx.x % kWarp), all_rows - 1))
                           : -1;
  Sums<D / 8> part[kWarpTiles];
#pragma unroll
  for (int32_t m = 0; m < kWarpTiles; m++) part[m].clear();
  for (int32_t first = begin; first < end; first = after(first)) {
    copy_wait<0>();
    __syncthreads();
    if (after(first) < end) {
      fetch(after(first));
      key_rows.find(a, table, h, after(after(first)) + warp * kWarpKeys, end);
    }
    const int32_t last = positions[kWarpRows - 1];
    if (first > last) continue;
    Scores scores[kWarpTiles];
    score_block<D>(scores, queries, Room<D>::keys(first / kKeyBlock));
    if (first + kKeyBlock > positions[0] + 1) mask_block(scores, positions, first);
    Weights weights[kWarpTiles];
#pragma unroll
    for (int32_t m = 0; m < kWarpTiles; m++) weigh_block<D>(weights[m], part[m], scores[m], a.scale);
    add_values<D>(part, weights, Room<D>::values(first / kKeyBlock));
    const int32_t next = first + kKeyBlock;
    if (next % kSpan != 0 && next <= last) continue;
    if (parts == 1)
      end_span<D>(part, a, sums, query_rows(a, s, h), block_row, first / kSpan, next > last);
    else
      end_parted_span<D>(part, a, sums, query_rows(a, s, h), block_row, first / kSpan, next > last);
#pragma unroll
    for (int32_t m = 0; m < kWarpTiles; m++) part[m].clear();
  }
  if (parts == 1) return;
  auto* flag = reinterpret_cast<int32_t*>(Room<D>::states());
  if (arrives_last(sums.arrived + blockIdx.y * a.Hkv + h, 1, parts, flag))
    merge_parts<D>(a, sums, query_rows(a, s, h), block_row);
}

/// How many parts a block of rows is worth, where `row_blocks` come with long contexts.
int32_t parts_of(int64_t row_blocks, int32_t stretches, uint64_t bytes_of_stretch) {
  constexpr uint64_t kMostBytes = uint64_t{256} << 20;
  const int64_t enough = int64_t{4} * multiprocessors();
  if (stretches == 1 || row_blocks >= enough || stretches * bytes_of_stretch > kMostBytes) return 1;
  const int64_t parts = blocks<int64_t>(enough, row_blocks);
  return static_cast<int32_t>(parts < stretches ? parts : stretches);
}

template <int32_t D>
int32_t run(const Attention& a) {
  // Each sequence has one block at most that is not full, and more rows than decode.
  const int64_t all_rows = static_cast<int64_t>(a.N) * (a.Hq / a.Hkv), long_ones = all_rows / (kDecodeRows + 1);
  const int32_t most = static_cast<int32_t>(all_rows / kBlockRows + (long_ones < a.S ? long_ones : a.S));
  GRAFT_CHECK(most <= 65535, "attention: %d rows of %d sequences are more than one call takes", a.N, a.S);
  const int32_t stretches = blocks(a.longest, kStretchKeys);
  const uint64_t heads = static_cast<uint64_t>(a.N) * a.Hq;
  const int32_t parts =
      parts_of(blocks<int64_t>(all_rows, kBlockRows) * a.Hkv, stretches, heads * (D + 2) * sizeof(float));
  Stretches sums{};
  if (stretches > 1) {
    const uint64_t copies = parts > 1 ? stretches : 1;
    sums.sums = static_cast<float*>(workspace(copies * heads * (D + 2) * sizeof(float)));
    if (sums.sums == nullptr) return GRAFT_OUT_OF_MEMORY;
    sums.states = sums.sums + copies * heads * D;
  }
  if (parts > 1) {
    sums.arrived = counters(static_cast<uint64_t>(most) * a.Hkv);
    if (sums.arrived == nullptr) return fail(GRAFT_OUT_OF_MEMORY, "attention: no memory for partial results");
  }
  GRAFT_LAUNCH_EARLY(prefill<D>, dim3(a.Hkv, most, parts), kWarps * kWarp, Room<D>::kBytes, a, sums);
  return GRAFT_OK;
}

}  // namespace

int32_t attend_many(const Attention& a, int32_t D) { return D == 32 ? run<32>(a) : D == 64 ? run<64>(a) : run<128>(a); }

}  // namespace graft::gpu
