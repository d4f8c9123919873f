// Causal softmax attention over the paged cache. Three kernels: `decode` for sequences whose queries fit one tile, each
// warp with spans of its own; `prefill` for the others, four tiles that share every block of keys; `plain` in float32
// for a float32 cache and for head sizes the tensor cores' kernels are not made for.
#include "attention.h"
#include "elements.h"
#include "host.h"

namespace graft::gpu {
namespace {

constexpr int32_t kWarps = 4;
constexpr float kLog2E = 1.4426950408889634f;

/// One block a row.
__global__ void kv_write(void* k_cache, void* v_cache, const float* k, const float* v, const int32_t* slots,
                         int32_t Hkv, int32_t D, int32_t page_size, int32_t dtype, Report* report) {
  const int32_t row = blockIdx.x, slot = slots[row];
  if (slot < 0) {
    if (threadIdx.x == 0) complain(report, kIndex, row, slot, 0x7fffffff);
    return;
  }
  const int64_t page = slot / page_size, offset = slot % page_size;
  for (int32_t at = threadIdx.x; at < Hkv * D; at += blockDim.x) {
    const int64_t to = ((page * Hkv + at / D) * page_size + offset) * D + at % D;
    const int64_t from = static_cast<int64_t>(row) * Hkv * D + at;
    if (dtype == GRAFT_F32) {
      static_cast<float*>(k_cache)[to] = k[from];
      static_cast<float*>(v_cache)[to] = v[from];
    } else {
      static_cast<uint16_t*>(k_cache)[to] = to_bf16(k[from]);
      static_cast<uint16_t*>(v_cache)[to] = to_bf16(v[from]);
    }
  }
}

/// Results of the spans of short sequences: [sequence][kv head][span][row of the tile] of {maximum, sum, D values}.
struct SpanResults {
  float* base;
  int32_t max_spans, tile_rows, D;
  /// Whether the one-tile kernel takes a sequence.
  __device__ bool takes(const QueryRows& rows) const { return rows.count * rows.group <= tile_rows; }
  __device__ float* at(const Attention& a, int32_t s, int32_t h, int32_t span, int32_t row) const {
    return base + (((static_cast<int64_t>(s) * a.Hkv + h) * max_spans + span) * tile_rows + row) * (D + 2);
  }
};

template <int32_t D>
__device__ __forceinline__ void store_span(const Partial<D>& part, const SpanResults& results, const Attention& a,
                                           const QueryRows& rows, int32_t s, int32_t h, int32_t span) {
  const int32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int32_t i = 0; i < 2; i++) {
    const int32_t r = lane / 4 + i * 8;
    if (!rows.holds(r)) continue;
    float* to = results.at(a, s, h, span, r);
    if (lane % 4 == 0) {
      to[0] = part.maximum[i];
      to[1] = part.sum[i];
    }
#pragma unroll
    for (int32_t n = 0; n < D / 8; n++)
      *reinterpret_cast<float2*>(to + 2 + n * 8 + lane % 4 * 2) =
          make_float2(part.values[n][2 * i], part.values[n][2 * i + 1]);
  }
}

/// grid: sequences, kv heads, stripes of spans. Warp w of stripe z takes spans z * 4 + w, and so on by 4 * stripes.
template <int32_t D>
__global__ void __launch_bounds__(kWarps* kWarp) decode(Attention a, SpanResults results) {
  const int32_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  const int32_t s = blockIdx.x, h = blockIdx.y;
  const QueryRows rows = query_rows(a, s, h);
  if (!results.takes(rows)) {
    if (a.N == a.S && threadIdx.x == 0) complain(a.report, kRows, s, rows.count, 1);
    return;
  }
  if (rows.count == 0) return;
  const int32_t* table = a.table(s);
  const int32_t length = rows.start + rows.count, spans = (length + kSpan - 1) / kSpan;
  uint16_t* keys = shared<uint16_t>() + warp * 2 * kTileElements<D>;
  uint16_t* values = keys + kTileElements<D>;
  const auto* k_cache = static_cast<const uint16_t*>(a.k_cache);
  const auto* v_cache = static_cast<const uint16_t*>(a.v_cache);
  uint32_t queries[D / 16][4];
  load_queries<D>(queries, a, rows, 0);
  for (int32_t span = blockIdx.z * warps + warp; span < spans; span += gridDim.z * warps) {
    const int32_t begin = span * kSpan, end = min(begin + kSpan, length);
    Partial<D> part;
    part.clear();
    fetch_block<D>(keys, k_cache, a, table, h, begin, length, lane, kWarp);
    copy_commit();
    fetch_block<D>(values, v_cache, a, table, h, begin, length, lane, kWarp);
    copy_commit();
    for (int32_t first = begin; first < end; first += kKeyBlock) {
      const int32_t next = first + kKeyBlock;
      float scores[kKeyBlock / 8][4];
      copy_wait<1>();
      __syncwarp();
      score_block<D>(scores, queries, keys);
      __syncwarp();
      if (next < end) fetch_block<D>(keys, k_cache, a, table, h, next, length, lane, kWarp);
      copy_commit();
      mask_block(scores, rows, 0, first, a.scale);
      weigh_block<D>(part, scores);
      copy_wait<1>();
      __syncwarp();
      add_values<D>(part, scores, values);
      __syncwarp();
      if (next < end) fetch_block<D>(values, v_cache, a, table, h, next, length, lane, kWarp);
      copy_commit();
    }
    copy_wait<0>();
    store_span<D>(part, results, a, rows, s, h, span);
  }
}

/// Merges the spans of a short sequence's rows, one a warp; grid: rows of a tile / warps, kv heads, sequences.
__global__ void merge_spans(Attention a, SpanResults results) {
  constexpr int32_t kChannels = 4;  // of 32 lanes
  const int32_t r = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp, lane = threadIdx.x % kWarp, D = results.D;
  const int32_t h = blockIdx.y, s = blockIdx.z;
  const QueryRows rows = query_rows(a, s, h);
  if (!rows.holds(r) || !results.takes(rows)) return;
  const int32_t spans = (rows.start + rows.count + kSpan - 1) / kSpan;
  float maximum = -INFINITY, sum = 0, values[kChannels] = {};
  for (int32_t span = 0; span < spans; span++) {
    const float* part = results.at(a, s, h, span, r);
    const float top = fmaxf(maximum, part[0]), base = top == -INFINITY ? 0 : top;
    const float own = exp2f(maximum - base), other = exp2f(part[0] - base);
    maximum = top;
    sum = fmaf(sum, own, part[1] * other);
#pragma unroll
    for (int32_t i = 0; i < kChannels; i++)
      if (lane + i * 32 < D) values[i] = fmaf(values[i], own, part[2 + lane + i * 32] * other);
  }
  float* o = a.o + rows.at(r, a.Hq, D);
#pragma unroll
  for (int32_t i = 0; i < kChannels; i++)
    if (lane + i * 32 < D) o[lane + i * 32] = values[i] / sum;
}

/// Which sequence, and which four of its query tiles, a block of `prefill` has: blocks count through the long
/// sequences.
__device__ __forceinline__ bool find_tiles(const Attention& a, int32_t index, int32_t& s, int32_t& first_tile) {
  const int32_t group = a.Hq / a.Hkv;
  for (s = 0; s < a.S; s++) {
    const int32_t rows = (a.seq_start[s + 1] - a.seq_start[s]) * group;
    if (rows <= kQueryTile) continue;
    const int32_t count = (rows + kWarps * kQueryTile - 1) / (kWarps * kQueryTile);
    if (index < count) {
      // The last rows see most: they go first.
      first_tile = (count - 1 - index) * kWarps;
      return true;
    }
    index -= count;
  }
  return false;
}

/// grid: blocks of four query tiles (as many as there may be), kv heads
template <int32_t D>
__global__ void __launch_bounds__(kWarps* kWarp) prefill(Attention a) {
  int32_t s, first_tile;
  if (!find_tiles(a, blockIdx.x, s, first_tile)) return;
  const int32_t h = blockIdx.y, tile = first_tile + threadIdx.x / kWarp;
  const QueryRows rows = query_rows(a, s, h);
  const int32_t* table = a.table(s);
  const int32_t last_row = min((first_tile + kWarps) * kQueryTile, rows.count * rows.group) - 1;
  const int32_t end = rows.position(last_row) + 1;
  uint16_t* tiles = shared<uint16_t>();  // keys, values; twice
  const auto* k_cache = static_cast<const uint16_t*>(a.k_cache);
  const auto* v_cache = static_cast<const uint16_t*>(a.v_cache);
  const auto fetch = [&](int32_t first) {
    uint16_t* keys = tiles + first / kKeyBlock % 2 * 2 * kTileElements<D>;
    fetch_block<D>(keys, k_cache, a, table, h, first, end, threadIdx.x, blockDim.x);
    fetch_block<D>(keys + kTileElements<D>, v_cache, a, table, h, first, end, threadIdx.x, blockDim.x);
  };
  uint32_t queries[D / 16][4];
  load_queries<D>(queries, a, rows, tile);
  Partial<D> total, part;
  total.clear();
  part.clear();
  fetch(0);
  copy_commit();
  for (int32_t first = 0; first < end; first += kKeyBlock) {
    if (first + kKeyBlock < end) fetch(first + kKeyBlock);
    copy_commit();
    copy_wait<1>();
    __syncthreads();
    const uint16_t* keys = tiles + first / kKeyBlock % 2 * 2 * kTileElements<D>;
    float scores[kKeyBlock / 8][4];
    score_block<D>(scores, queries, keys);
    mask_block(scores, rows, tile, first, a.scale);
    weigh_block<D>(part, scores);
    add_values<D>(part, scores, keys + kTileElements<D>);
    if ((first + kKeyBlock) % kSpan == 0) {
      total.merge(part);
      part.clear();
    }
    __syncthreads();
  }
  copy_wait<0>();
  total.merge(part);
  store_rows<D>(a, total, rows, tile);
}

/// One warp a row and query head; grid: rows * query heads / warps. Lanes are keys for the scores and channels for the
/// sum.
template <class Cache>
__global__ void plain(Attention a, int32_t D) {
  constexpr int32_t kChannels = 8;  // of 32 lanes
  const int32_t at = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (at >= a.N * a.Hq) return;
  const int32_t row = at / a.Hq, head = at % a.Hq, h = head / (a.Hq / a.Hkv);
  int32_t s = 0;
  while (a.seq_start[s + 1] <= row) s++;
  const int32_t* table = a.table(s);
  const int32_t length = a.start_pos[s] + row - a.seq_start[s] + 1;
  const float* q = a.q + (static_cast<int64_t>(row) * a.Hq + head) * D;
  const auto* k_cache = static_cast<const Cache*>(a.k_cache);
  const auto* v_cache = static_cast<const Cache*>(a.v_cache);
  const auto read = [](const Cache* p) {
    if constexpr (sizeof(Cache) == 2)
      return to_float(*p);
    else
      return *p;
  };
  float maximum = -INFINITY, sum = 0, values[kChannels] = {};
  for (int32_t first = 0; first < length; first += kWarp) {
    float score = -INFINITY;
    if (first + lane < length) {
      const Cache* key = k_cache + a.key_at(table, first + lane, h, D);
      score = 0;
      for (int32_t d = 0; d < D; d++) score = fmaf(q[d], read(key + d), score);
      score *= a.scale;
    }
    const float top = fmaxf(maximum, warp_max(score)), correction = exp2f(maximum - top), weight = exp2f(score - top);
    maximum = top;
    sum = fmaf(sum, correction, warp_sum(weight));
#pragma unroll
    for (int32_t i = 0; i < kChannels; i++) values[i] *= correction;
    for (int32_t j = 0; j < 32 && first + j < length; j++) {
      const Cache* value = v_cache + a.key_at(table, first + j, h, D);
      const float w = __shfl_sync(kAll, weight, j);
#pragma unroll
      for (int32_t i = 0; i < kChannels; i++)
        if (lane + i * 32 < D) values[i] = fmaf(w, read(value + lane + i * 32), values[i]);
    }
  }
  float* o = a.o + (static_cast<int64_t>(row) * a.Hq + head) * D;
#pragma unroll
  for (int32_t i = 0; i < kChannels; i++)
    if (lane + i * 32 < D) o[lane + i * 32] = values[i] / sum;
}

/// Stripes of spans: enough warps for the device, not more than there may be spans.
int32_t stripes(const Attention& a, int32_t max_spans) {
  constexpr int32_t kEnough = 264;
  const int32_t wanted = blocks(kEnough, a.S * a.Hkv), most = blocks(max_spans, kWarps);
  return wanted < most ? wanted : most;
}

template <int32_t D>
int32_t run(const Attention& a) {
  const int32_t max_spans = blocks(a.table_stride * a.page_size, kSpan), group = a.Hq / a.Hkv;
  const size_t tiles = 2 * kTileElements<D> * sizeof(uint16_t);
  // How the rows part among the sequences is known to the device alone. As many rows as sequences: one of each.
  const bool one_each = a.N == a.S && group <= kQueryTile;
  const bool none_short = group > kQueryTile || (a.S == 1 && a.N * group > kQueryTile);
  if (!none_short) {
    const int32_t tile_rows = one_each ? group : kQueryTile;
    const uint64_t floats = static_cast<uint64_t>(a.S) * a.Hkv * max_spans * tile_rows * (D + 2);
    auto* base = static_cast<float*>(workspace(floats * sizeof(float)));
    if (base == nullptr) return GRAFT_OUT_OF_MEMORY;
    const SpanResults results{base, max_spans, tile_rows, D};
    GRAFT_LAUNCH(decode<D>, dim3(a.S, a.Hkv, stripes(a, max_spans)), kWarps * kWarp, kWarps * tiles, a, results);
    GRAFT_LAUNCH(merge_spans, dim3(blocks(tile_rows, kWarps), a.Hkv, a.S), kWarps * kWarp, 0, a, results);
  }
  if (!one_each && a.N * group > kQueryTile) {
    const int32_t most = a.N * group / (kWarps * kQueryTile) + a.S;
    GRAFT_LAUNCH(prefill<D>, dim3(most, a.Hkv), kWarps * kWarp, 2 * tiles, a);
  }
  return launched("attention");
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_kv_write(void* k_cache, void* v_cache, const float* k, const float* v, const int32_t* slots,
                                  int32_t N, int32_t Hkv, int32_t D, int32_t page_size, int32_t kv_dtype) {
  GRAFT_CHECK(k_cache && v_cache && k && v && slots, "kv_write: null pointer");
  GRAFT_CHECK(N >= 0 && Hkv > 0 && D > 0 && page_size > 0, "kv_write: N %d, Hkv %d, D %d, page_size %d out of range", N,
              Hkv, D, page_size);
  GRAFT_CHECK(D % 8 == 0 && D <= 256, "kv_write: D is %d, expected a multiple of 8 up to 256", D);
  GRAFT_CHECK(kv_dtype == GRAFT_F32 || kv_dtype == GRAFT_BF16, "kv_write: kv_dtype is %d, expected 0 or 1", kv_dtype);
  if (N == 0) return GRAFT_OK;
  GRAFT_LAUNCH(kv_write, dim3(N), kThreads, 0, k_cache, v_cache, k, v, slots, Hkv, D, page_size, kv_dtype, report());
  return launched("kv_write");
}

extern "C" int32_t graft_attention(float* o, const float* q, const void* k_cache, const void* v_cache,
                                   const int32_t* seq_start, const int32_t* start_pos, const int32_t* table_rows,
                                   const int32_t* page_table, int32_t table_stride, int32_t S, int32_t N, int32_t Hq,
                                   int32_t Hkv, int32_t D, int32_t page_size, int32_t kv_dtype, float scale) {
  GRAFT_CHECK(o && q && k_cache && v_cache && seq_start && start_pos && table_rows && page_table,
              "attention: null pointer");
  GRAFT_CHECK(Hkv > 0 && Hq > 0 && Hq % Hkv == 0, "attention: %d query heads over %d key/value heads", Hq, Hkv);
  GRAFT_CHECK(D > 0 && D % 8 == 0 && D <= 256, "attention: D is %d, expected a multiple of 8 up to 256", D);
  GRAFT_CHECK(page_size > 0, "attention: page_size is %d, expected above 0", page_size);
  GRAFT_CHECK(kv_dtype == GRAFT_F32 || kv_dtype == GRAFT_BF16, "attention: kv_dtype is %d, expected 0 or 1", kv_dtype);
  GRAFT_CHECK(S >= 0 && N >= 0, "attention: S is %d and N is %d, expected neither below 0", S, N);
  if (N == 0 || S == 0) return GRAFT_OK;
  const Attention a{o, q, k_cache, v_cache, seq_start, start_pos,      table_rows, page_table, table_stride,
                    S, N, Hq,      Hkv,     page_size, scale * kLog2E, report()};
  if (kv_dtype == GRAFT_BF16 && D == 32) return run<32>(a);
  if (kv_dtype == GRAFT_BF16 && D == 64) return run<64>(a);
  if (kv_dtype == GRAFT_BF16 && D == 128) return run<128>(a);
  const dim3 grid(blocks(N * Hq, kWarps));
  if (kv_dtype == GRAFT_BF16)
    GRAFT_LAUNCH(plain<uint16_t>, grid, kWarps * kWarp, 0, a, D);
  else
    GRAFT_LAUNCH(plain<float>, grid, kWarps * kWarp, 0, a, D);
  return launched("attention");
}
