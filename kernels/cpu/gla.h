// One key/value head of gated linear attention inside a block of tokens, shared by the serving and training forms.
//   o_t = (scale q_t ⊙ B_t)ᵀ S0 + sum_{s<=t} P_ts v_s,     P_ts = sum_c scale q_t[c] K_s[c]
// where B_t = product of e^{a} over the block's rows up to t, and K_s = k_s ⊙ product of e^{a_r}, s < r <= t: every key
// row is multiplied by each new token's decay in place. That is the difference of log decays without ever forming
// e^{-b}: factors stay in [0, 1], no anchors are needed, and a token costs one exponential per channel. When the block
// is full,
//   S0 <- diag(B) S0 + sum_s K_s v_sᵀ.
// A row's arithmetic depends on its own place in the block alone, so one row at a time and many give the same bits.
// S0 and v are of type T. With bfloat16 a value is rounded as it is taken in and S0 as the block ends; K and B, which
// every token multiplies again, stay float32, and so does all arithmetic.
#pragma once
#include "tile.h"

namespace graft::gla {

struct Shape {
  int G, Dk, Dv, block;  // G query heads share the state
  float scale;
  int width() const { return padded(Dk); }
  int columns() const { return padded(Dv); }
  int64_t coefficients() const { return width() + (block + 15) / 16 * 16; }  // floats of one row of weights
  int64_t key_floats() const { return line_floats<float>(static_cast<int64_t>(1 + block) * width()); }
  template <class T>
  int64_t head_floats() const {
    return key_floats() + line_floats<T>(static_cast<int64_t>(Dk + block) * columns());
  }
};

/// Memory of one head: B [width], K [block, width], then S0 [Dk, columns] and right behind it v [block, columns].
template <class T>
struct Head {
  float *decay, *keys;
  T* rows;
  int64_t ahead = 0;  // bytes to the head that is next to read, and is fetched meanwhile; 0: none
  Head(float* memory, const Shape& shape)
      : decay(memory), keys(decay + shape.width()), rows(reinterpret_cast<T*>(memory + shape.key_floats())) {}
  Head(float* decay, float* keys, T* rows) : decay(decay), keys(keys), rows(rows) {}
};

/// Decays key rows 0..count-1 by alpha and writes their products with x.
inline void decay_and_dot(float* out, float* keys, const float* alpha, const float* x, int count, int width,
                          int64_t ahead) {
  for (int s = 0; s < count; s += 4) {
    float* r0 = keys + static_cast<int64_t>(s) * width;
    vf sum[4] = {vzero(), vzero(), vzero(), vzero()};
    const int many = count - s < 4 ? count - s : 4;
    if (many == 4) {
      for (int i = 0; i < width; i += VL) {
        const vf y = vload(x + i), f = vload(alpha + i);
        for (int j = 0; j < 4; j++) {
          if (ahead != 0) tile::fetch<1>(r0 + j * width + i, ahead);
          const vf k = vmul(vload(r0 + j * width + i), f);
          vstore(r0 + j * width + i, k);
          sum[j] = vfma(y, k, sum[j]);
        }
      }
    } else {
      for (int i = 0; i < width; i += VL)
        for (int j = 0; j < many; j++) {
          const vf k = vmul(vload(r0 + j * width + i), vload(alpha + i));
          vstore(r0 + j * width + i, k);
          sum[j] = vfma(vload(x + i), k, sum[j]);
        }
    }
    alignas(16) float sums[4];
    _mm_store_ps(sums, vsum4(sum[0], sum[1], sum[2], sum[3]));
    for (int j = 0; j < many; j++) out[s + j] = sums[j];
  }
}

/// Takes in row r of the block: alpha [width] = e^a; the head's decay and keys move on to r; weights of query head g at
/// coefficients + g*stride = [scale q ⊙ B (Dk), P_r0 .. P_rr]; scaled queries [G, width]. q: [G, Dk]; k, a: [Dk].
template <class T>
inline void take_row(const Head<T>& head, const Shape& shape, int r, const float* q, const float* k, const float* a,
                     float* alpha, float* scaled, float* coefficients, int64_t stride) {
  const int width = shape.width(), Dk = shape.Dk;
  float* key = head.keys + static_cast<int64_t>(r) * width;
  for (int i = 0; i < width; i += VL) {
    if (head.ahead != 0) tile::fetch<1>(head.decay + i, head.ahead);
    const int lanes = Dk - i;
    const vf f = vexp(vload_n(a + i, lanes));
    vstore(alpha + i, f);
    vstore(key + i, vload_n(k + i, lanes));
    vstore(head.decay + i, r == 0 ? f : vmul(vload(head.decay + i), f));
  }
  const vf scale = vset(shape.scale);
  for (int g = 0; g < shape.G; g++) {
    float *x = scaled + static_cast<int64_t>(g) * width, *weights = coefficients + g * stride;
    for (int i = 0; i < width; i += VL) {
      const vf y = vmul(vload_n(q + static_cast<int64_t>(g) * Dk + i, Dk - i), scale);
      vstore(x + i, y);
      vstore(weights + i, vmul(y, vload(head.decay + i)));
    }
    if (g == 0)
      decay_and_dot(weights + Dk, head.keys, alpha, x, r, width, head.ahead);
    else
      dots(weights + Dk, x, head.keys, width, r, width);
    dots(weights + Dk + r, x, key, width, 1, width);
  }
}

/// S0 moves on over the block's first `count` rows.
template <class T>
inline void advance(const Head<T>& head, const Shape& shape, int count) {
  const int columns = shape.columns();
  multiply(Product<T, T>{.c = head.rows,
                         .ldc = columns,
                         .a = head.keys,
                         .am = 1,
                         .ak = shape.width(),
                         .b = head.rows + static_cast<int64_t>(shape.Dk) * columns,
                         .ldb = columns,
                         .rows = shape.Dk,
                         .columns = columns,
                         .depth = count,
                         .init = Init::kScaleRows,
                         .scale = head.decay});
}

constexpr int kRun = 16;  // rows whose weights are made before their outputs are summed

struct RowStrides {
  int64_t q, kv;  // heads per token: Hq and Hkv
};

/// Rows r0.. of a block, `count` <= kRun of them, none beyond its end: o rows out, the head moved on.
/// alpha [width], scaled [G, width], coefficients [G, kRun, shape.coefficients()] are scratch.
template <class T>
inline void take_run(const Head<T>& head, const Shape& shape, int r0, int count, float* o, const float* q,
                     const float* k, const float* v, const float* a, const RowStrides& heads, float* alpha,
                     float* scaled, float* coefficients) {
  const int64_t ld = shape.coefficients(), stride = kRun * ld;
  const int Dk = shape.Dk, Dv = shape.Dv, columns = shape.columns();
  for (int i = 0; i < count; i++) {
    const int64_t row = i * heads.kv;
    take_row(head, shape, r0 + i, q + i * heads.q * Dk, k + row * Dk, a + row * Dk, alpha, scaled,
             coefficients + i * ld, stride);
    copy_padded(head.rows + static_cast<int64_t>(Dk + r0 + i) * columns, v + row * Dv, 0, 1, Dv);
  }
  Product<float, T> sum{.c = o,
                        .ldc = Dv,
                        .a = coefficients,
                        .am = stride,
                        .ak = 1,
                        .b = head.rows,
                        .ldb = columns,
                        .rows = shape.G,
                        .columns = Dv,
                        .depth = Dk + r0 + 1,
                        .ahead = head.ahead};
  if (count == 1) return multiply(sum);  // all query heads read the state together
  sum.ldc = heads.q * Dv;
  sum.am = ld;
  sum.rows = count;
  sum.growing = true;
  for (int g = 0; g < shape.G; g++, sum.c += Dv, sum.a += stride) multiply(sum);
}

}  // namespace graft::gla
