// Argument checks of softmax attention, the same in every host library. Knows shapes and tables, no arithmetic.
#pragma once
#include <cstdint>

#include "status.h"

namespace graft {

/// Whole sequences without a cache.
inline int32_t check_whole(const char* op, const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv,
                           int32_t D) {
  GRAFT_CHECK(Hkv > 0 && Hq > 0 && Hq % Hkv == 0, "%s: %d query heads over %d key/value heads", op, Hq, Hkv);
  GRAFT_CHECK(D > 0 && D % 8 == 0 && D <= 256, "%s: D is %d, expected a multiple of 8 up to 256", op, D);
  GRAFT_CHECK(S >= 0 && N >= 0 && seq_start[0] == 0 && seq_start[S] == N,
              "%s: seq_start runs from %d to %d, expected 0 to %d", op, seq_start[0], seq_start[S], N);
  for (int32_t s = 0; s < S; s++)
    GRAFT_CHECK(seq_start[s + 1] >= seq_start[s], "%s: seq_start falls at sequence %d", op, s);
  return GRAFT_OK;
}

/// New rows of sequences whose keys lie in pages: every position has its page.
inline int32_t check_paged(const int32_t* seq_start, const int32_t* start_pos, const int32_t* table_rows,
                           const int32_t* page_table, int32_t table_stride, int32_t S, int32_t N, int32_t Hq,
                           int32_t Hkv, int32_t D, int32_t page_size, int32_t kv_dtype) {
  GRAFT_TRY(check_whole("attention", seq_start, S, N, Hq, Hkv, D));
  GRAFT_CHECK(page_size > 0, "attention: page_size is %d, expected above 0", page_size);
  GRAFT_CHECK(kv_dtype == GRAFT_F32 || kv_dtype == GRAFT_BF16, "attention: kv_dtype is %d, expected 0 or 1", kv_dtype);
  for (int32_t s = 0; s < S; s++) {
    const int64_t last = int64_t(start_pos[s]) + seq_start[s + 1] - seq_start[s];
    GRAFT_CHECK(start_pos[s] >= 0 && table_rows[s] >= 0, "attention: sequence %d is at position %d, table row %d", s,
                start_pos[s], table_rows[s]);
    GRAFT_CHECK(last <= int64_t(table_stride) * page_size,
                "attention: sequence %d needs %lld positions, its table has %lld", s, (long long)last,
                (long long)table_stride * page_size);
    const int32_t* table = page_table + int64_t(table_rows[s]) * table_stride;
    for (int64_t j = 0; j * page_size < last; j++)
      GRAFT_CHECK(table[j] >= 0, "attention: page %lld of sequence %d is %d", (long long)j, s, table[j]);
  }
  return GRAFT_OK;
}

}  // namespace graft
