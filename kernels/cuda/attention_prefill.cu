// Softmax attention of many rows, on tensor cores. A block has 128 query rows of one kv head (tokens times the heads of
// the group), 32 a warp, or half as many where that leaves multiprocessors idle; its warps share every block of 64
// keys, the next is on its way while they work on one. What earlier spans of a stretch gave waits in o, what earlier
// stretches gave in memory besides: registers hold one span. Where long contexts meet too few rows to fill the device,
// the stretches of a block's rows are parted among blocks.
#include "host.h"
#include "prefill_sums.h"

namespace graft::gpu {
namespace {

using namespace prefilling;

/// grid: kv heads, blocks of rows (as many as there may be), parts of a block (part p has stretches p, p + parts, ...).
template <int32_t D, int32_t T>
__global__ void __launch_bounds__(kWarps* kWarp, 2) prefill(Attention a, Stretches sums) {
  depend_wait();
  int32_t s = 0, block_row = 0;
  if (!find_rows<T>(a, blockIdx.y, s, block_row)) return;
  const int32_t h = blockIdx.x, warp = threadIdx.x / kWarp;
  const QueryRows rows = query_rows(a, s, h);
  if (!stands_well(a, s, rows.start, rows.count)) return;
  const int32_t first_row = block_row + warp * kWarpRows<T>, all_rows = rows.count * rows.group;
  const int32_t end = rows.position(min(block_row + kBlockRows<T>, all_rows) - 1) + 1;
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
    key_rows.template fetch<D>(Room<D, T>::keys(first / kKeyBlock) + to, a.k_cache);
    key_rows.template fetch<D>(Room<D, T>::values(first / kKeyBlock) + to, a.v_cache);
    copy_commit();
  };
  key_rows.find(a, table, h, begin + warp * kWarpKeys, end);
  fetch(begin);
  key_rows.find(a, table, h, after(begin) + warp * kWarpKeys, end);
  uint16_t* queries = Room<D, T>::queries() + warp * kWarpRows<T> * kRowStride<D>;
  load_queries<D, T>(queries, a, rows, first_row);
  int32_t* positions = Room<D, T>::positions() + warp * kWarpRows<T>;
  const int32_t lane = threadIdx.x % kWarp;
  if (lane < kWarpRows<T>)
    positions[lane] = first_row < all_rows ? rows.position(min(first_row + lane, all_rows - 1)) : -1;
  Sums<D / 8> part[T];
#pragma unroll
  for (int32_t m = 0; m < T; m++) part[m].clear();
  for (int32_t first = begin; first < end; first = after(first)) {
    copy_wait<0>();
    __syncthreads();
    if (after(first) < end) {
      fetch(after(first));
      key_rows.find(a, table, h, after(after(first)) + warp * kWarpKeys, end);
    }
    const int32_t last = positions[kWarpRows<T> - 1];
    if (first > last) continue;
    Scores scores[T];
    score_block<D, T>(scores, queries, Room<D, T>::keys(first / kKeyBlock));
    if (first + kKeyBlock > positions[0] + 1) mask_block(scores, positions, first);
    Weights weights[T];
#pragma unroll
    for (int32_t m = 0; m < T; m++) weigh_block<D>(weights[m], part[m], scores[m], a.scale);
    add_values<D, T>(part, weights, Room<D, T>::values(first / kKeyBlock));
    const int32_t next = first + kKeyBlock;
    if (next % kSpan != 0 && next <= last) continue;
    if (parts == 1)
      end_span<D, T>(part, a, sums, query_rows(a, s, h), block_row, first / kSpan, next > last);
    else
      end_parted_span<D, T>(part, a, sums, query_rows(a, s, h), block_row, first / kSpan, next > last);
#pragma unroll
    for (int32_t m = 0; m < T; m++) part[m].clear();
  }
  if (parts == 1) return;
  auto* flag = reinterpret_cast<int32_t*>(Room<D, T>::states());
  if (arrives_last(sums.arrived + blockIdx.y * a.Hkv + h, 1, parts, flag))
    merge_parts<D, T>(a, sums, query_rows(a, s, h), block_row);
}

/// Over one kv head.
int64_t query_rows_of(const Attention& a) { return static_cast<int64_t>(a.N) * (a.Hq / a.Hkv); }

/// How many parts a block of rows is worth, where `row_blocks` come with long contexts.
int32_t parts_of(int64_t row_blocks, int32_t stretches, uint64_t bytes_of_stretch) {
  constexpr uint64_t kMostBytes = uint64_t{256} << 20;
  const int64_t enough = int64_t{4} * multiprocessors();
  if (stretches == 1 || row_blocks >= enough || stretches * bytes_of_stretch > kMostBytes) return 1;
  const int64_t parts = blocks<int64_t>(enough, row_blocks);
  return static_cast<int32_t>(parts < stretches ? parts : stretches);
}

template <int32_t D, int32_t T>
int32_t run(const Attention& a) {
  // Each sequence has one block at most that is not full, and more rows than decode.
  const int64_t all_rows = query_rows_of(a), long_ones = all_rows / (kDecodeRows + 1);
  const int32_t most = static_cast<int32_t>(all_rows / kBlockRows<T> + (long_ones < a.S ? long_ones : a.S));
  GRAFT_CHECK(most <= 65535, "attention: %d rows of %d sequences are more than one call takes", a.N, a.S);
  const int32_t stretches = blocks(a.longest, kStretchKeys);
  const uint64_t heads = static_cast<uint64_t>(a.N) * a.Hq;
  const int32_t parts =
      parts_of(blocks<int64_t>(all_rows, kBlockRows<T>) * a.Hkv, stretches, heads * (D + 2) * sizeof(float));
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
  GRAFT_LAUNCH_EARLY((prefill<D, T>), dim3(a.Hkv, most, parts), kWarps * kWarp, (Room<D, T>::kBytes), a, sums);
  return GRAFT_OK;
}

/// Two tiles a warp where that makes more than a block for every multiprocessor.
template <int32_t D>
int32_t run(const Attention& a) {
  const bool many = blocks<int64_t>(query_rows_of(a), kBlockRows<2>) * a.Hkv > multiprocessors();
  return many ? run<D, 2>(a) : run<D, 1>(a);
}

}  // namespace

int32_t attend_many(const Attention& a, int32_t D) { return D == 32 ? run<32>(a) : D == 64 ? run<64>(a) : run<128>(a); }

}  // namespace graft::gpu
