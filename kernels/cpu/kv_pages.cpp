// Writing keys and values into the pages of the cache, and the transposition that makes pages (and the backward pass's
// blocks) out of plain rows. A task owns a kv head. Bytes: one read of k and v, one write of each element.
#include "kv_pages.h"

#include "graft.h"
#include "status.h"
#include "threads.h"

namespace graft {
namespace {

inline void put(float* to, float x) { *to = x; }
inline void put(bf16* to, float x) { *to = float_to_bf16(x); }

template <class T>
void write_pages(T* k_cache, T* v_cache, const float* k, const float* v, const int32_t* slots, int64_t N, int64_t Hkv,
                 int64_t D, int64_t page_size) {
  const auto write_head = [&](int64_t h) {
    for (int64_t i = 0; i < N; i++) {
      const int64_t page = slots[i] / page_size, offset = slots[i] % page_size;
      T* keys = k_cache + (page * Hkv + h) * D * page_size + offset;
      T* values = v_cache + ((page * Hkv + h) * page_size + offset) * D;
      const int64_t from = (i * Hkv + h) * D;
      for (int64_t d = 0; d < D; d++) put(keys + d * page_size, k[from + d]);
      for (int64_t d = 0; d < D; d++) put(values + d, v[from + d]);
    }
  };
  if (N * Hkv * D < 8192)
    for (int64_t h = 0; h < Hkv; h++) write_head(h);
  else
    parallel(Hkv, write_head);
}

/// 8 rows of 8 channels turned: out[channel * kBlock + row].
inline void transpose_8x8(float* out, const __m256 (&r)[8]) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
      b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; i++) {
    _mm256_storeu_ps(out + i * kBlock, _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
    _mm256_storeu_ps(out + (i + 4) * kBlock, _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
  }
}

}  // namespace

void transpose_block(float* out, const float* rows, int64_t stride, int count, int64_t D) {
  for (int i = 0; i < kBlock; i += 8)
    for (int64_t d = 0; d < D; d += 8) {
      __m256 r[8];
      for (int j = 0; j < 8; j++)
        r[j] = i + j < count ? _mm256_loadu_ps(rows + (i + j) * stride + d) : _mm256_setzero_ps();
      transpose_8x8(out + d * kBlock + i, r);
    }
}

}  // namespace graft

using namespace graft;

extern "C" int32_t graft_kv_write(void* k_cache, void* v_cache, const float* k, const float* v, const int32_t* slots,
                                  int32_t N, int32_t Hkv, int32_t D, int32_t page_size, int32_t kv_dtype) {
  GRAFT_CHECK(k_cache && v_cache && k && v && slots, "kv_write: null pointer");
  GRAFT_CHECK(N >= 0 && Hkv > 0 && page_size > 0, "kv_write: N %d, Hkv %d, page_size %d out of range", N, Hkv,
              page_size);
  GRAFT_CHECK(D > 0 && D % 8 == 0 && D <= 256, "kv_write: D is %d, expected a multiple of 8 up to 256", D);
  GRAFT_CHECK(kv_dtype == GRAFT_F32 || kv_dtype == GRAFT_BF16, "kv_write: kv_dtype is %d, expected 0 or 1", kv_dtype);
  for (int32_t i = 0; i < N; i++) GRAFT_CHECK(slots[i] >= 0, "kv_write: slot of row %d is %d", i, slots[i]);
  if (kv_dtype == GRAFT_BF16)
    write_pages(static_cast<bf16*>(k_cache), static_cast<bf16*>(v_cache), k, v, slots, N, Hkv, D, page_size);
  else
    write_pages(static_cast<float*>(k_cache), static_cast<float*>(v_cache), k, v, slots, N, Hkv, D, page_size);
  return GRAFT_OK;
}
