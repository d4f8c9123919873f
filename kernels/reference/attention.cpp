// Causal softmax attention, one query row at a time with every score in double:
//   s_j = scale q·k_j for j <= position;  p = softmax(s);  o = sum_j p_j v_j;  lse = log sum_j exp s_j
// Backward: delta = do·o;  ds_j = p_j (do·v_j - delta);  dq = scale sum_j ds_j k_j;  dk_j += scale ds_j q;  dv_j += p_j
// do Query head h reads key/value head h / (Hq / Hkv). A page of the cache holds its tokens as plain rows [Hkv, D].
#include <cmath>
#include <vector>

#include "attention_checks.h"
#include "bfloat16.h"
#include "graft.h"
#include "status.h"

namespace {

float load(const void* cache, int64_t index, int32_t dtype) {
  return dtype == GRAFT_BF16 ? graft::bf16_to_float(static_cast<const graft::bf16*>(cache)[index])
                             : static_cast<const float*>(cache)[index];
}

void store(void* cache, int64_t index, int32_t dtype, float value) {
  if (dtype == GRAFT_BF16)
    static_cast<graft::bf16*>(cache)[index] = graft::float_to_bf16(value);
  else
    static_cast<float*>(cache)[index] = value;
}

/// o[D] of one query over `keys` keys; key(j, d) and value(j, d) read them. Returns the log of the sum.
template <class Key, class Value>
double attend(float* o, const float* q, int64_t keys, int32_t D, double scale, const Key& key, const Value& value) {
  std::vector<double> p(keys), sum(D, 0);
  double max = -INFINITY, total = 0;
  for (int64_t j = 0; j < keys; j++) {
    for (int32_t d = 0; d < D; d++) p[j] += double(q[d]) * key(j, d);
    p[j] *= scale;
    max = std::fmax(max, p[j]);
  }
  for (int64_t j = 0; j < keys; j++) {
    p[j] = std::exp(p[j] - max);
    total += p[j];
    for (int32_t d = 0; d < D; d++) sum[d] += p[j] * value(j, d);
  }
  for (int32_t d = 0; d < D; d++) o[d] = float(sum[d] / total);
  return max + std::log(total);
}

}  // namespace

extern "C" {

int32_t graft_kv_write(void* k_cache, void* v_cache, const float* k, const float* v, const int32_t* slots, int32_t N,
                       int32_t Hkv, int32_t D, int32_t page_size, int32_t kv_dtype) {
  GRAFT_CHECK(k_cache && v_cache && k && v && slots, "kv_write: null pointer");
  GRAFT_CHECK(N >= 0 && Hkv > 0 && D > 0 && page_size > 0, "kv_write: N %d, Hkv %d, D %d, page_size %d out of range", N,
              Hkv, D, page_size);
  GRAFT_CHECK(D % 8 == 0 && D <= 256, "kv_write: D is %d, expected a multiple of 8 up to 256", D);
  GRAFT_CHECK(kv_dtype == GRAFT_F32 || kv_dtype == GRAFT_BF16, "kv_write: kv_dtype is %d, expected 0 or 1", kv_dtype);
  const int64_t row = int64_t(Hkv) * D;
  for (int32_t i = 0; i < N; i++) GRAFT_CHECK(slots[i] >= 0, "kv_write: slot of row %d is %d", i, slots[i]);
  for (int32_t i = 0; i < N; i++)
    for (int64_t c = 0; c < row; c++) {
      store(k_cache, slots[i] * row + c, kv_dtype, k[i * row + c]);
      store(v_cache, slots[i] * row + c, kv_dtype, v[i * row + c]);
    }
  return GRAFT_OK;
}

int32_t graft_attention(float* o, const float* q, const void* k_cache, const void* v_cache, const int32_t* seq_start,
                        const int32_t* start_pos, const int32_t* table_rows, const int32_t* page_table,
                        int32_t table_stride, int32_t S, int32_t N, int32_t Hq, int32_t Hkv, int32_t D,
                        int32_t page_size, int32_t kv_dtype, float scale) {
  GRAFT_CHECK(o && q && k_cache && v_cache && seq_start && start_pos && table_rows && page_table,
              "attention: null pointer");
  GRAFT_TRY(graft::check_paged(seq_start, start_pos, table_rows, page_table, table_stride, S, N, Hq, Hkv, D, page_size,
                               kv_dtype));
  for (int32_t s = 0; s < S; s++) {
    const int32_t* table = page_table + int64_t(table_rows[s]) * table_stride;
    for (int32_t i = seq_start[s]; i < seq_start[s + 1]; i++)
      for (int32_t h = 0; h < Hq; h++) {
        const int32_t head = h / (Hq / Hkv);
        auto index = [&](int64_t j, int32_t d) {
          const int64_t slot = int64_t(table[j / page_size]) * page_size + j % page_size;
          return (slot * Hkv + head) * D + d;
        };
        const int64_t at = (int64_t(i) * Hq + h) * D, keys = int64_t(start_pos[s]) + i - seq_start[s] + 1;
        attend(
            o + at, q + at, keys, D, scale, [&](int64_t j, int32_t d) { return load(k_cache, index(j, d), kv_dtype); },
            [&](int64_t j, int32_t d) { return load(v_cache, index(j, d), kv_dtype); });
      }
  }
  return GRAFT_OK;
}

int32_t graft_attention_train(float* o, float* lse, const float* q, const float* k, const float* v,
                              const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv, int32_t D,
                              float scale) {
  GRAFT_CHECK(o && lse && q && k && v && seq_start, "attention_train: null pointer");
  GRAFT_TRY(graft::check_whole("attention_train", seq_start, S, N, Hq, Hkv, D));
  for (int32_t s = 0; s < S; s++)
    for (int32_t i = seq_start[s]; i < seq_start[s + 1]; i++)
      for (int32_t h = 0; h < Hq; h++) {
        const int64_t row = int64_t(Hkv) * D, base = seq_start[s] * row + (h / (Hq / Hkv)) * int64_t(D);
        const int64_t at = (int64_t(i) * Hq + h) * D;
        lse[int64_t(i) * Hq + h] = float(attend(
            o + at, q + at, i - seq_start[s] + 1, D, scale, [&](int64_t j, int32_t d) { return k[base + j * row + d]; },
            [&](int64_t j, int32_t d) { return v[base + j * row + d]; }));
      }
  return GRAFT_OK;
}

int32_t graft_attention_backward(float* dq, float* dk, float* dv, const float* d_o, const float* o, const float* lse,
                                 const float* q, const float* k, const float* v, const int32_t* seq_start, int32_t S,
                                 int32_t N, int32_t Hq, int32_t Hkv, int32_t D, float scale) {
  GRAFT_CHECK(dq && dk && dv && d_o && o && lse && q && k && v && seq_start, "attention_backward: null pointer");
  GRAFT_TRY(graft::check_whole("attention_backward", seq_start, S, N, Hq, Hkv, D));
  const int64_t row = int64_t(Hkv) * D;
  std::vector<double> gk(N * row, 0), gv(N * row, 0), gq(D);
  for (int32_t s = 0; s < S; s++)
    for (int32_t i = seq_start[s]; i < seq_start[s + 1]; i++)
      for (int32_t h = 0; h < Hq; h++) {
        const int64_t at = (int64_t(i) * Hq + h) * D, head = (h / (Hq / Hkv)) * int64_t(D);
        double delta = 0;
        for (int32_t d = 0; d < D; d++) delta += double(d_o[at + d]) * o[at + d];
        gq.assign(D, 0);
        for (int32_t j = seq_start[s]; j <= i; j++) {
          const int64_t key = j * row + head;
          double score = 0, dp = 0;
          for (int32_t d = 0; d < D; d++) {
            score += double(q[at + d]) * k[key + d];
            dp += double(d_o[at + d]) * v[key + d];
          }
          const double p = std::exp(score * scale - lse[int64_t(i) * Hq + h]), ds = p * (dp - delta) * scale;
          for (int32_t d = 0; d < D; d++) {
            gq[d] += ds * k[key + d];
            gk[key + d] += ds * q[at + d];
            gv[key + d] += p * d_o[at + d];
          }
        }
        for (int32_t d = 0; d < D; d++) dq[at + d] = float(gq[d]);
      }
  for (int64_t c = 0; c < N * row; c++) {
    dk[c] = float(gk[c]);
    dv[c] = float(gv[c]);
  }
  return GRAFT_OK;
}

}  // extern "C"
