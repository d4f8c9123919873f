// Row moves and element-wise sums: embedding (also from a packed tied head), gather, scatter, add, axpy.
// Bound by memory: each element is read and written once. Threads own rows or channels; sums keep row order.
#include <cstring>

#include "panel.h"
#include "row_checks.h"
#include "status.h"
#include "threads.h"

namespace graft {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements a task: below, waking a thread costs more than it saves

void widen_row(float* y, const bf16* x, int64_t n) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) vstore(y + i, vload_bf16(x + i));
  for (; i < n; i++) y[i] = bf16_to_float(x[i]);
}

/// Row `id` of a packed [V, C] weight: one 32-bit lane of every step of its panel.
void unpack_row(float* y, const uint32_t* packed, int64_t id, int64_t V, int64_t C, bool narrow) {
  const int64_t steps = narrow ? (C + 1) / 2 : C, panel = id / kPanel;
  const int width = panel_width(V, panel);
  const uint32_t* word = packed + panel * kPanel * steps + id % kPanel;
  for (int64_t i = 0; i < steps; i++, word += width) {
    if (!narrow) {
      y[i] = std::bit_cast<float>(*word);
      continue;
    }
    y[2 * i] = std::bit_cast<float>(*word << 16);
    if (2 * i + 1 < C) y[2 * i + 1] = std::bit_cast<float>(*word & 0xffff0000u);
  }
}

template <class F>
void for_rows(int64_t rows, int64_t C, F&& f) {
  parallel_ranges(rows, std::max<int64_t>(1, kGrain / C), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) f(i);
  });
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" int32_t graft_embedding(float* y, const int32_t* ids, const void* table, int32_t N, int32_t V, int32_t C,
                                   int32_t dtype, int32_t packed) {
  GRAFT_TRY(check_embedding(y, ids, table, N, V, C, dtype));
  const bool narrow = dtype == GRAFT_BF16;
  for_rows(N, C, [&](int64_t i) {
    float* row = y + i * C;
    const int64_t at = int64_t{ids[i]} * C;
    if (packed)
      unpack_row(row, static_cast<const uint32_t*>(table), ids[i], V, C, narrow);
    else if (narrow)
      widen_row(row, static_cast<const bf16*>(table) + at, C);
    else
      std::memcpy(row, static_cast<const float*>(table) + at, C * sizeof(float));
  });
  return GRAFT_OK;
}

extern "C" int32_t graft_embedding_backward(float* dtable, const int32_t* ids, const float* dy, int32_t N, int32_t V,
                                            int32_t C) {
  GRAFT_TRY(check_embedding(dtable, ids, dy, N, V, C, GRAFT_F32));
  // Ids repeat, so threads share the channels and each takes all rows in order.
  const int64_t grain = int64_t{N} * C < kGrain ? C : std::max<int64_t>(64, (C / num_threads() + 15) / 16 * 16);
  parallel_ranges(C, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < N; i++) {
      float* to = dtable + int64_t{ids[i]} * C + begin;
      const float* from = dy + i * C + begin;
      vloop(end - begin, [&](int64_t j, int lanes) {
        store_part(to + j, vadd(load_part(to + j, lanes), load_part(from + j, lanes)), lanes);
      });
    }
  });
  return GRAFT_OK;
}

extern "C" int32_t graft_gather_rows(float* y, const float* x, const int32_t* index, int32_t M, int32_t C) {
  GRAFT_TRY(check_rows(y, x, index, M, C));
  for_rows(M, C, [&](int64_t i) { std::memcpy(y + i * C, x + int64_t{index[i]} * C, C * sizeof(float)); });
  return GRAFT_OK;
}

extern "C" int32_t graft_scatter_rows(float* y, const float* x, const int32_t* index, int32_t M, int32_t C) {
  GRAFT_TRY(check_rows(y, x, index, M, C));
  for_rows(M, C, [&](int64_t i) { std::memcpy(y + int64_t{index[i]} * C, x + i * C, C * sizeof(float)); });
  return GRAFT_OK;
}

extern "C" int32_t graft_add(float* y, const float* a, const float* b, uint64_t n) {
  GRAFT_TRY(check_elements(y, a, b, n));
  parallel_ranges(static_cast<int64_t>(n), kGrain, [&](int64_t begin, int64_t end) {
    vloop(end - begin, [&](int64_t i, int lanes) {
      const int64_t at = begin + i;
      store_part(y + at, vadd(load_part(a + at, lanes), load_part(b + at, lanes)), lanes);
    });
  });
  return GRAFT_OK;
}

extern "C" int32_t graft_axpy(float* y, const float* x, uint64_t n, float alpha) {
  GRAFT_TRY(check_elements(y, x, x, n));
  parallel_ranges(static_cast<int64_t>(n), kGrain, [&](int64_t begin, int64_t end) {
    vloop(end - begin, [&](int64_t i, int lanes) {
      const int64_t at = begin + i;
      store_part(y + at, vfma(vset(alpha), load_part(x + at, lanes), load_part(y + at, lanes)), lanes);
    });
  });
  return GRAFT_OK;
}
