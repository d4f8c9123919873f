// graft_attention_step as single ops, once every row's position and cache slot are known.
#pragma once
#include "graft.h"
#include "status.h"

namespace graft {

/// The arguments of graft_attention_step.
struct AttentionStep {
  float *o, *q, *k;
  const float* v;
  void *k_cache, *v_cache;
  const float *q_norm, *k_norm, *rope_table;
  const int32_t *seq_start, *start_pos, *table_rows, *page_table;
  int32_t table_stride, longest, S, N, Hq, Hkv, D, P, page_size, kv_dtype;
  float norm_eps, scale;
};

inline int32_t check_attention_step(const AttentionStep& a) {
  GRAFT_CHECK(a.o && a.q && a.k && a.v && a.k_cache && a.v_cache, "attention_step: a pointer is null");
  GRAFT_CHECK(a.seq_start && a.start_pos && a.table_rows && a.page_table, "attention_step: a pointer is null");
  GRAFT_CHECK(!a.q_norm == !a.k_norm, "attention_step: a norm for one of q and k");
  GRAFT_CHECK(a.S >= 0 && a.N >= 0, "attention_step: S is %d and N is %d, expected neither below 0", a.S, a.N);
  GRAFT_CHECK(a.Hkv > 0 && a.Hq > 0 && a.Hq % a.Hkv == 0, "attention_step: %d query heads over %d key/value heads",
              a.Hq, a.Hkv);
  GRAFT_CHECK(a.D > 0 && a.D % 8 == 0 && a.D <= 256, "attention_step: D is %d, expected a multiple of 8 up to 256",
              a.D);
  GRAFT_CHECK(a.page_size > 0 && a.table_stride > 0, "attention_step: page_size is %d and table_stride %d", a.page_size,
              a.table_stride);
  GRAFT_CHECK(a.longest > 0 && a.longest <= int64_t{a.table_stride} * a.page_size,
              "attention_step: longest is %d, the table has %lld positions", a.longest,
              static_cast<long long>(a.table_stride) * a.page_size);
  return GRAFT_OK;
}

/// positions[N], slots[N]
inline int32_t compose_attention_step(const AttentionStep& a, const int32_t* positions, const int32_t* slots) {
  if (a.q_norm != nullptr) {
    GRAFT_TRY(graft_rms_norm(a.q, a.q, a.q_norm, a.N * a.Hq, a.D, a.norm_eps));
    GRAFT_TRY(graft_rms_norm(a.k, a.k, a.k_norm, a.N * a.Hkv, a.D, a.norm_eps));
  }
  if (a.rope_table != nullptr) {
    GRAFT_TRY(graft_rope(a.q, a.q, positions, a.rope_table, a.N, a.Hq, a.D, a.P, 1));
    GRAFT_TRY(graft_rope(a.k, a.k, positions, a.rope_table, a.N, a.Hkv, a.D, a.P, 1));
  }
  GRAFT_TRY(graft_kv_write(a.k_cache, a.v_cache, a.k, a.v, slots, a.N, a.Hkv, a.D, a.page_size, a.kv_dtype));
  return graft_attention(a.o, a.q, a.k_cache, a.v_cache, a.seq_start, a.start_pos, a.table_rows, a.page_table,
                         a.table_stride, a.S, a.N, a.Hq, a.Hkv, a.D, a.page_size, a.kv_dtype, a.scale);
}

}  // namespace graft
