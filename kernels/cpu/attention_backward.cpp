// Gradients of causal softmax attention. With s = scale q kᵀ, p = exp(s - lse), delta = rowsum(do ⊙ o), dp = do vᵀ:
//   ds = p ⊙ (dp - delta) scale;   dq = ds k;   dk = dsᵀ q;   dv = pᵀ do
// in tiles of kBlock rows by kBlock keys, so that nothing of size T x T exists. A task owns one query head of one
// sequence; key blocks ascend, and the row blocks of each ascend. The dk and dv of query heads that share a kv head are
// added in ascending order of heads. 5 D products a pair of positions. D: a multiple of 8 from 8 to 256.
#include <utility>
#include <vector>

#include "attention.h"
#include "attention_checks.h"
#include "graft.h"
#include "kv_pages.h"
#include "status.h"
#include "threads.h"

namespace graft {
namespace {

struct Gradients {
  float *dq, *dk, *dv;
  const float *d_o, *o, *lse, *q, *k, *v;
  int64_t Hq, Hkv, D;
  float scale;
};

/// One head of one sequence, copied together: dense [T, D] matrices and their transposed blocks [D, kBlock].
struct Head {
  int64_t T, D;
  float *q, *d_o, *k, *dq, *dk, *dv, *k_turned, *v_turned, *delta, *lse, *p, *ds;

  static int64_t floats(int64_t T, int64_t D) {
    const int64_t padded = (T + kBlock - 1) / kBlock * kBlock;
    return 6 * T * D + 2 * padded * D + 2 * T + 2 * kBlock * kBlock;
  }

  Head(const Gradients& g, int64_t first, int64_t rows, int64_t head, float* at) : T(rows), D(g.D) {
    const int64_t size = T * D, padded = (T + kBlock - 1) / kBlock * kBlock;
    const auto take = [&at](int64_t n) { return std::exchange(at, at + n); };
    p = take(kBlock * kBlock), ds = take(kBlock * kBlock);
    k_turned = take(padded * D), v_turned = take(padded * D);
    q = take(size), d_o = take(size), k = take(size), dq = take(size), dk = take(size), dv = take(size);
    delta = take(T), lse = take(T);
    const int64_t kv = head / (g.Hq / g.Hkv);
    for (int64_t i = 0; i < T; i++) {
      const int64_t row = (first + i) * g.Hq + head;
      const float *from = g.q + row * D, *grad = g.d_o + row * D, *key = g.k + ((first + i) * g.Hkv + kv) * D;
      std::copy(from, from + D, q + i * D);
      std::copy(grad, grad + D, d_o + i * D);
      std::copy(key, key + D, k + i * D);
      delta[i] = row_sum(
          int(D), [&](vf a, int d, int n) { return vfma(load_part(grad + d, n), load_part(g.o + row * D + d, n), a); });
      lse[i] = g.lse[row];
    }
    for (int64_t j = 0; j < T; j += kBlock) {
      const int count = int(std::min<int64_t>(kBlock, T - j));
      transpose_block(k_turned + j * D, k + j * D, D, count, D);
      transpose_block(v_turned + j * D, g.v + ((first + j) * g.Hkv + kv) * D, g.Hkv * D, count, D);
    }
  }
};

/// p and ds of `rows` rows from `row` against the keys from `key`; row r sees the first r - key + 1 of them.
void scores(const Head& h, int64_t row, int rows, int64_t key, float scale) {
  const int64_t D = h.D;
  for (int first = 0; first < rows; first += kTileRows) {
    const int count = std::min(kTileRows, rows - first);
    const int64_t last = row + first + count - 1;
    const int vectors = int(std::min<int64_t>(kBlock, last - key + 1) + VL - 1) / VL;
    float *p = h.p + first * kBlock, *ds = h.ds + first * kBlock;
    tile_product<Start::kZero>(p, kBlock, Operand{h.q + (row + first) * D, D, 1}, Dense<float>{h.k_turned + key * D},
                               kBlock, count, vectors * VL, int(D));
    tile_product<Start::kZero>(ds, kBlock, Operand{h.d_o + (row + first) * D, D, 1}, Dense<float>{h.v_turned + key * D},
                               kBlock, count, vectors * VL, int(D));
    for (int r = 0; r < count; r++, p += kBlock, ds += kBlock) {
      const int64_t i = row + first + r, visible = i - key + 1;
      const vf lse = vset(h.lse[i]), delta = vset(h.delta[i]), by = vset(scale);
      for (int v = 0; v < kKeyVectors; v++) {
        const int64_t left = visible - v * VL;
        vf e = vzero(), d = vzero();
        if (left > 0) {
          e = vexp(vsub(vmul(vload(p + v * VL), by), lse));
          if (left < VL) e = vselect(vfirst(int(left)), e, vzero());
          d = vmul(vmul(e, vsub(vload(ds + v * VL), delta)), by);
        }
        vstore(p + v * VL, e);
        vstore(ds + v * VL, d);
      }
    }
  }
}

/// c[rows from `row`] (+)= a b, in tiles; a's rows and depth have the given strides.
void product(bool add, float* c, Operand a, const float* b, int rows, int64_t D, int depth) {
  if (add)
    tile_product<Start::kAdd>(c, D, a, Dense<float>{b}, D, rows, int(D), depth);
  else
    tile_product<Start::kZero>(c, D, a, Dense<float>{b}, D, rows, int(D), depth);
}

/// Adds the tile of rows from `row` and keys from `key` to dq, dk and dv. On the diagonal the empty half is left out.
void add_products(const Head& h, int64_t row, int rows, int64_t key, int keys) {
  const int64_t D = h.D;
  const bool diagonal = row == key;
  for (int first = 0; first < rows; first += kTileRows) {
    const int count = std::min(kTileRows, rows - first), depth = diagonal ? std::min(keys, first + count) : keys;
    product(key > 0, h.dq + (row + first) * D, {h.ds + first * kBlock, kBlock, 1}, h.k + key * D, count, D, depth);
  }
  for (int first = 0; first < keys; first += kTileRows) {
    const int count = std::min(kTileRows, keys - first), from = diagonal ? first : 0, at = from * kBlock + first;
    const int64_t out = (key + first) * D, in = (row + from) * D;
    product(!diagonal, h.dv + out, {h.p + at, 1, kBlock}, h.d_o + in, count, D, rows - from);
    product(!diagonal, h.dk + out, {h.ds + at, 1, kBlock}, h.q + in, count, D, rows - from);
  }
}

/// Gradients of one query head; its dk and dv go to rows of `stride` floats.
void backward_head(const Gradients& g, int64_t first, int64_t T, int64_t head, float* dk, float* dv, int64_t stride,
                   int thread) {
  const int64_t D = g.D;
  const Head h(g, first, T, head,
               static_cast<float*>(thread_scratch(thread, 0, size_t(Head::floats(T, D)) * sizeof(float))));
  for (int64_t key = 0; key < T; key += kBlock)
    for (int64_t row = key; row < T; row += kBlock) {
      const int rows = int(std::min<int64_t>(kBlock, T - row)), keys = int(std::min<int64_t>(kBlock, T - key));
      scores(h, row, rows, key, g.scale);
      add_products(h, row, rows, key, keys);
    }
  for (int64_t i = 0; i < T; i++) {
    std::copy(h.dq + i * D, h.dq + (i + 1) * D, g.dq + ((first + i) * g.Hq + head) * D);
    std::copy(h.dk + i * D, h.dk + (i + 1) * D, dk + (first + i) * stride);
    std::copy(h.dv + i * D, h.dv + (i + 1) * D, dv + (first + i) * stride);
  }
}

/// out[N, Hkv, D] = sums over the group of heads[N, Hq, D].
void sum_groups(float* out, const float* heads, int64_t N, int64_t Hq, int64_t Hkv, int64_t D) {
  const int64_t group = Hq / Hkv;
  parallel_ranges(N * Hkv, row_grain(D * group), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      vloop(D, [&](int64_t d, int n) {
        vf sum = load_part(heads + i * group * D + d, n);
        for (int64_t j = 1; j < group; j++) sum = vadd(sum, load_part(heads + (i * group + j) * D + d, n));
        store_part(out + i * D + d, sum, n);
      });
  });
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" int32_t graft_attention_backward(float* dq, float* dk, float* dv, const float* d_o, const float* o,
                                            const float* lse, const float* q, const float* k, const float* v,
                                            const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv,
                                            int32_t D, float scale) {
  GRAFT_CHECK(dq && dk && dv && d_o && o && lse && q && k && v && seq_start, "attention_backward: null pointer");
  GRAFT_TRY(check_whole("attention_backward", seq_start, S, N, Hq, Hkv, D));
  const Gradients g{dq, dk, dv, d_o, o, lse, q, k, v, Hq, Hkv, D, scale};
  const bool shared = Hq > Hkv;
  const int64_t size = int64_t(N) * Hq * D;
  float* dk_heads = shared ? static_cast<float*>(thread_scratch(0, 3, size_t(2 * size) * sizeof(float))) : dk;
  float* dv_heads = shared ? dk_heads + size : dv;
  parallel(int64_t(S) * Hq, [&](int64_t i, int thread) {
    const int64_t s = i / Hq, head = i % Hq, first = seq_start[s];
    backward_head(g, first, seq_start[s + 1] - first, head, dk_heads + head * D, dv_heads + head * D, int64_t(Hq) * D,
                  thread);
  });
  if (shared) {
    sum_groups(dk, dk_heads, N, Hq, Hkv, D);
    sum_groups(dv, dv_heads, N, Hq, Hkv, D);
  }
  return GRAFT_OK;
}
