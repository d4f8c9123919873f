// graft_attention_step: positions and cache slots of all rows on the device, then the single ops.
#include "../composed/attention_step.h"
#include "device.h"
#include "host.h"

namespace graft::gpu {
namespace {

/// grid: sequences
__global__ void locate(AttentionStep a, int32_t* positions, int32_t* slots, Report* report) {
  const int32_t s = blockIdx.x, begin = a.seq_start[s], count = a.seq_start[s + 1] - begin, start = a.start_pos[s];
  if (start < 0 || start + count > a.longest) {
    if (threadIdx.x == 0) complain(report, kIndex, s, start + count, a.longest);
    return;
  }
  const int32_t* table = a.page_table + static_cast<int64_t>(a.table_rows[s]) * a.table_stride;
  for (int32_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int32_t position = start + i;
    positions[begin + i] = position;
    slots[begin + i] = table[position / a.page_size] * a.page_size + position % a.page_size;
  }
}

/// The attention that follows takes workspace() for itself.
int32_t* rows_of(int32_t N) {
  static int32_t* block = nullptr;
  static int32_t size = 0;
  if (N <= size) return block;
  if (block != nullptr && wait("attention_step") != GRAFT_OK) return nullptr;
  cudaFree(block);
  block = nullptr;
  size = 0;
  if (cudaMalloc(reinterpret_cast<void**>(&block), sizeof(int32_t) * 4 * static_cast<size_t>(N)) != cudaSuccess) {
    fail(GRAFT_OUT_OF_MEMORY, "attention_step: no memory for %d rows", N);
    return nullptr;
  }
  size = 2 * N;
  return block;
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
  const graft::AttentionStep a{o,         q,          k,         v,         k_cache,    v_cache,    q_norm,
                               k_norm,    rope_table, seq_start, start_pos, table_rows, page_table, table_stride,
                               longest,   S,          N,         Hq,        Hkv,        D,          P,
                               page_size, kv_dtype,   norm_eps,  scale};
  GRAFT_TRY(graft::check_attention_step(a));
  if (N == 0 || S == 0) return GRAFT_OK;
  int32_t* rows = rows_of(N);
  if (rows == nullptr) return GRAFT_OUT_OF_MEMORY;
  GRAFT_LAUNCH(locate, dim3(S), kThreads, 0, a, rows, rows + N, report());
  GRAFT_TRY(launched("attention_step"));
  return graft::compose_attention_step(a, rows, rows + N);
}
