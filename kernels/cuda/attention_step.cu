// graft_attention_step. A call of one row each is one launch: attention's decode kernel norms, turns and writes what is
// new. Otherwise new keys and values first go to their pages, for all rows, and then any row may attend.
#include "../composed/attention_step.h"
#include "attention.h"
#include "host.h"

namespace graft::gpu {
namespace {

constexpr int32_t kWarps = 4, kMostElements = 8;  // of a lane: heads of 256

/// The sequence that row `row` belongs to.
__device__ int32_t sequence_of(const Attention& a, int32_t row) {
  int32_t low = 0, high = a.S;  // seq_start[low] <= row < seq_start[high]
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (a.seq_start[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/// Elements lane, lane + 32, ... of a head's row as load_head() has them, for any D.
__device__ __forceinline__ void load_any_head(float (&y)[kMostElements], const float* x, int32_t D, const float* gain,
                                              const float* turn, float eps) {
  const int32_t lane = threadIdx.x % kWarp, half = D / 2;
  float r = 1;
  if (gain != nullptr) {
    float squares = 0;
    for (int32_t d = lane; d < D; d += kWarp) squares = fmaf(x[d], x[d], squares);
    r = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(D) + eps);
  }
  const auto normed = [&](int32_t d) {
    if (gain == nullptr) return x[d];
    const float value = x[d] * r;
    return value * gain[d];
  };
#pragma unroll
  for (int32_t i = 0; i < kMostElements; i++) {
    const int32_t d = lane + i * 32;
    if (d >= D) break;
    y[i] = normed(d);
    if (turn == nullptr) continue;
    if (d < half) {
      const float other = normed(d + half);
      y[i] = fmaf(y[i], turn[d], -other * turn[half + d]);
    } else {
      const float other = normed(d - half);
      y[i] = fmaf(y[i], turn[d - half], other * turn[d]);
    }
  }
}

/// One warp a row and head: the kv heads' keys and values into the pages, then (where q is given) the heads of q in
/// place.
__global__ void prepare(Attention a, float* q, int32_t D, int32_t dtype) {
  depend_wait();
  const int32_t heads = a.Hkv + (q != nullptr ? a.Hq : 0), lane = threadIdx.x % kWarp;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int32_t row = static_cast<int32_t>(at / heads), head = static_cast<int32_t>(at % heads);
  if (row >= a.N) return;
  const int32_t s = sequence_of(a, row), position = a.start_pos[s] + row - a.seq_start[s];
  if (position < 0 || position >= a.longest) {
    if (lane == 0) complain(a.report, kIndex, s, position, a.longest - 1);
    return;
  }
  const float* turn = a.rope_row(position, D);
  float x[kMostElements];
  if (head >= a.Hkv) {
    float* own = q + (static_cast<int64_t>(row) * a.Hq + head - a.Hkv) * D;
    load_any_head(x, own, D, a.q_norm, turn, a.norm_eps);
    __syncwarp();
#pragma unroll
    for (int32_t i = 0; i < kMostElements; i++)
      if (lane + i * 32 < D) own[lane + i * 32] = x[i];
    return;
  }
  const int64_t from = (static_cast<int64_t>(row) * a.Hkv + head) * D;
  const int32_t cache_row = a.cache_row(a.table(s), position, head);
  if (cache_row < 0) return;
  const int64_t to = static_cast<int64_t>(cache_row) * D;
  const auto store = [&](void* cache) {
#pragma unroll
    for (int32_t i = 0; i < kMostElements; i++) {
      const int32_t d = lane + i * 32;
      if (d >= D) break;
      if (dtype == GRAFT_F32)
        static_cast<float*>(cache)[to + d] = x[i];
      else
        static_cast<uint16_t*>(cache)[to + d] = to_bf16(x[i]);
    }
  };
  load_any_head(x, a.k + from, D, a.k_norm, turn, a.norm_eps);
  store(a.k_cache);
  load_any_head(x, a.v + from, D, nullptr, nullptr, 0);
  store(a.v_cache);
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_attention_step(float* o, float* q, float* k, const float* v, void* k_cache, void* v_cache,
                                        const float* q_norm, const float* k_norm, const float* rope_table,
                                        const int32_t* seq_start, const int32_t* start_pos, const int32_t* table_rows,
                                        const int32_t* page_table, int32_t table_stride, int32_t longest, int32_t S,
                                        int32_t N, int32_t Hq, int32_t Hkv, int32_t D, int32_t P, int32_t page_size,
                                        int32_t kv_dtype, float norm_eps, float scale) {
  GRAFT_TRY(graft::check_attention_step(
      {o,         q,         k,          v,          k_cache,      v_cache,  q_norm, k_norm, rope_table,
       seq_start, start_pos, table_rows, page_table, table_stride, longest,  S,      N,      Hq,
       Hkv,       D,         P,          page_size,  kv_dtype,     norm_eps, scale}));
  GRAFT_TRY(check_sizes("attention_step", S, N, Hq, Hkv, D, table_stride, page_size, kv_dtype));
  if (N == 0 || S == 0) return GRAFT_OK;
  Attention a{.o = o,
              .q = q,
              .k = k,
              .v = v,
              .k_cache = k_cache,
              .v_cache = v_cache,
              .q_norm = q_norm,
              .k_norm = k_norm,
              .rope = rope_table,
              .seq_start = seq_start,
              .start_pos = start_pos,
              .table_rows = table_rows,
              .page_table = page_table,
              .table_stride = table_stride,
              .S = S,
              .N = N,
              .Hq = Hq,
              .Hkv = Hkv,
              .page = PageSize::of(page_size),
              .one_each = N == S,
              .longest = rope_table != nullptr && P < longest ? P : longest,
              .norm_eps = norm_eps,
              .scale = scale * kLog2E,
              .report = report()};
  if (takes_new_keys(a, D, kv_dtype)) return attend("attention_step", a, D, kv_dtype);
  const bool turned = turns_queries(a, D, kv_dtype);
  const int64_t rows = static_cast<int64_t>(N) * (Hkv + (turned ? 0 : Hq));
  GRAFT_LAUNCH_EARLY(prepare, dim3(static_cast<unsigned>(blocks<int64_t>(rows, kWarps))), kWarps * kWarp, 0, a,
                     turned ? nullptr : q, D, kv_dtype);
  GRAFT_TRY(launched("attention_step"));
  a.k = a.v = nullptr;
  return attend("attention_step", a, D, kv_dtype);
}
