// graft_attention_step of the host libraries: positions and slots from the page table, then the single ops.
#include "attention_step.h"

#include <vector>

using namespace graft;

namespace {

/// Where each row stands and where its key goes; refuses what no page is there for.
int32_t locate(const AttentionStep& a, std::vector<int32_t>& positions, std::vector<int32_t>& slots) {
  for (int32_t s = 0; s < a.S; s++) {
    const int64_t begin = a.seq_start[s], count = a.seq_start[s + 1] - begin, start = a.start_pos[s];
    GRAFT_CHECK(begin >= 0 && count >= 0 && begin + count <= a.N,
                "attention_step: rows of sequence %d are %lld to %lld", s, static_cast<long long>(begin),
                static_cast<long long>(begin + count));
    GRAFT_CHECK(start >= 0 && start + count <= a.longest,
                "attention_step: sequence %d stands at %lld to %lld, longest is %d", s, static_cast<long long>(start),
                static_cast<long long>(start + count), a.longest);
    GRAFT_CHECK(a.table_rows[s] >= 0, "attention_step: table row of sequence %d is %d", s, a.table_rows[s]);
    const int32_t* table = a.page_table + int64_t{a.table_rows[s]} * a.table_stride;
    for (int64_t i = 0; i < count; i++) {
      const int64_t position = start + i, page = table[position / a.page_size];
      GRAFT_CHECK(page >= 0, "attention_step: page %lld of sequence %d is %lld",
                  static_cast<long long>(position / a.page_size), s, static_cast<long long>(page));
      positions[begin + i] = static_cast<int32_t>(position);
      slots[begin + i] = static_cast<int32_t>(page * a.page_size + position % a.page_size);
    }
  }
  return GRAFT_OK;
}

}  // namespace

extern "C" int32_t graft_attention_step(float* o, float* q, float* k, const float* v, void* k_cache, void* v_cache,
                                        const float* q_norm, const float* k_norm, const float* rope_table,
                                        const int32_t* seq_start, const int32_t* start_pos, const int32_t* table_rows,
                                        const int32_t* page_table, int32_t table_stride, int32_t longest, int32_t S,
                                        int32_t N, int32_t Hq, int32_t Hkv, int32_t D, int32_t P, int32_t page_size,
                                        int32_t kv_dtype, float norm_eps, float scale) {
  const AttentionStep a{o,         q,          k,         v,         k_cache,    v_cache,    q_norm,
                        k_norm,    rope_table, seq_start, start_pos, table_rows, page_table, table_stride,
                        longest,   S,          N,         Hq,        Hkv,        D,          P,
                        page_size, kv_dtype,   norm_eps,  scale};
  GRAFT_TRY(check_attention_step(a));
  if (N == 0 || S == 0) return GRAFT_OK;
  thread_local std::vector<int32_t> positions, slots;
  positions.resize(N);
  slots.resize(N);
  GRAFT_TRY(locate(a, positions, slots));
  return compose_attention_step(a, positions.data(), slots.data());
}
