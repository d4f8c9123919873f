// One value head of the gated delta rule inside a block of tokens, shared by the serving and training forms.
//   w_t = v_t - B_t k_tᵀ S0 - sum_{s<t} D_ts (k_t·k_s) u_s,     u_t = beta_t w_t           by forward substitution
//   o_t = scale (B_t q_tᵀ S0 + sum_{s<=t} D_ts (q_t·k_s) u_s)
// D_ts = product of e^{g_r}, s < r <= t, and B_t = product from the block's start: both are kept as products that every
// token multiplies in place, so strong decays lose no digits to differences of large sums. When the block is full,
//   S0 <- B S0 + sum_s D_ns k_s u_sᵀ.
// A row's arithmetic depends on its own place in the block alone, so one row at a time and many give the same bits.
// S0, k and u are of type T. With bfloat16 a key is rounded as it is taken in, u as it is solved and S0 as the block
// ends; every sum reads the rounded ones, and the arithmetic is float32.
#pragma once
#include "tile.h"

namespace graft::gdn {

constexpr int kRun = 16;  // rows whose weights are made before their outputs are summed

struct Shape {
  int Dk, Dv, block;
  float scale;
  int width() const { return padded(Dk); }
  int columns() const { return padded(Dv); }
  int rows() const { return (block + 15) / 16 * 16; }  // of the block, padded
  int64_t coefficients() const { return width() + rows(); }
  int64_t key_elements() const { return static_cast<int64_t>(block) * width(); }
  template <class T>
  int64_t key_floats() const {
    return line_floats<T>(key_elements());
  }
  template <class T>
  int64_t head_floats() const {
    return 16 + rows() + line_floats<T>(static_cast<int64_t>(Dk + block) * columns());
  }
};

/// Memory of one value head: B (16 floats, the first counts), D of the last row [rows], then S0 [Dk, columns] and right
/// behind it u [block, columns]. The keys [block, width] belong to the query/key head and serve all its value heads.
template <class T>
struct Head {
  float *decay, *decays;
  T* state;
  int64_t ahead = 0;  // bytes to the head that is next to read, and is fetched meanwhile; 0: none
  Head(float* memory, const Shape& shape)
      : decay(memory), decays(decay + 16), state(reinterpret_cast<T*>(decays + shape.rows())) {}
  T* u(const Shape& shape, int row) const { return state + static_cast<int64_t>(shape.Dk + row) * shape.columns(); }
};

/// Scratch of a run.
struct Scratch {
  float *query, *key;             // scale q and k [kRun, width]
  float *key_dots, *query_dots;   // k_t·k_s and scale q_t·k_s [kRun, rows]
  float *weights, *partial;       // [2 kRun, coefficients] of w, then of o; their reads of S0 [2 kRun, columns]
  float *scaled_keys, *constant;  // [block, width], [padded Dk]
  int64_t total;

  Scratch(const Shape& shape, graft::Scratch memory) {
    query = memory.floats(kRun * shape.width());
    key = memory.floats(kRun * shape.width());
    key_dots = memory.floats(kRun * shape.rows());
    query_dots = memory.floats(kRun * shape.rows());
    weights = memory.floats(2 * kRun * shape.coefficients());
    partial = memory.floats(2 * kRun * shape.columns());
    scaled_keys = memory.floats(shape.key_elements());
    constant = memory.floats(shape.width());
    total = memory.used();
  }
};

/// Rows r0.. of the block for one query/key head: keys taken in, products with all keys of the block so far.
template <class T>
inline void take_keys(T* keys, const Shape& shape, int r0, int count, const float* q, const float* k, int64_t stride,
                      const Scratch& scratch, int64_t ahead = 0) {
  const int width = shape.width();
  const vf scale = vset(shape.scale);
  for (int i = 0; i < count; i++) {
    float *query = scratch.query + i * width, *own = scratch.key + i * width;
    T* key = keys + static_cast<int64_t>(r0 + i) * width;
    for (int c = 0; c < width; c += VL) {
      vstore(query + c, vmul(vload_n(q + i * stride + c, shape.Dk - c), scale));
      store_narrow(key + c, vload_n(k + i * stride + c, shape.Dk - c));
      vstore(own + c, load_wide(key + c));
    }
    dots(scratch.key_dots + i * shape.rows(), own, keys, width, r0 + i, width, ahead);
    dots(scratch.query_dots + i * shape.rows(), query, keys, width, r0 + i + 1, width);
  }
}

/// e^{g} of `count` <= kRun rows.
inline void decay_factors(float* alpha, const float* g, int64_t stride, int count) {
  float logs[kRun] = {};
  for (int i = 0; i < count; i++) logs[i] = g[i * stride];
  for (int i = 0; i < kRun; i += VL) vstore(alpha + i, vexp(vload(logs + i)));
}

/// D and B of the head move on to row r.
template <class T>
inline void take_decay(const Head<T>& head, int r, float alpha) {
  const vf f = vset(alpha);
  for (int s = 0; s < r; s += VL) vstore(head.decays + s, vmul(vload(head.decays + s), f));
  head.decays[r] = 1;
  head.decay[0] = r == 0 ? alpha : head.decay[0] * alpha;
}

/// Weights of row i of the run (row r of the block): -B k, -D (k·k_s) for w and B q, D (q·k_s) for o.
template <class T>
inline void fill_weights(const Head<T>& head, const Shape& shape, int i, int r, int count, const Scratch& scratch) {
  const int64_t ld = shape.coefficients();
  float *of_w = scratch.weights + i * ld, *of_o = of_w + count * ld;
  const vf decay = vset(head.decay[0]), minus = vset(-head.decay[0]);
  const float *key = scratch.key + i * shape.width(), *query = scratch.query + i * shape.width();
  for (int c = 0; c < shape.width(); c += VL) {
    vstore(of_w + c, vmul(vload(key + c), minus));
    vstore(of_o + c, vmul(vload(query + c), decay));
  }
  const float *key_dots = scratch.key_dots + i * shape.rows(), *query_dots = scratch.query_dots + i * shape.rows();
  for (int s = 0; s <= r; s += VL) {
    const vf d = vload(head.decays + s);
    vstore(of_w + shape.Dk + s, vmul(vload(key_dots + s), vsub(vzero(), d)));
    vstore(of_o + shape.Dk + s, vmul(vload(query_dots + s), d));
  }
}

struct Rows {
  const float *v, *g, *beta;
  float* o;
  int64_t heads;  // value heads per token
  float* w;       // [count, columns] kept for the backward pass, or NULL
};

/// Row r of the forward substitution; `w` starts as the row's read of S0.
template <class T>
inline void substitute(const Head<T>& head, const Shape& shape, int r, const float* weights, const float* v, float beta,
                       float* w) {
  const int columns = shape.columns();
  for (int c = 0; c < columns; c += VL) vstore(w + c, vadd(vload_n(v + c, shape.Dv - c), vload(w + c)));
  multiply(Product<float, T>{.c = w,
                             .ldc = columns,
                             .a = weights + shape.Dk,
                             .am = 0,
                             .ak = 1,
                             .b = head.u(shape, 0),
                             .ldb = columns,
                             .rows = 1,
                             .columns = columns,
                             .depth = r,
                             .init = Init::kAdd,
                             .ahead = head.ahead});
  const vf strength = vset(beta);
  T* u = head.u(shape, r);
  for (int c = 0; c < columns; c += VL) store_narrow(u + c, vmul(vload(w + c), strength));
}

/// Rows r0.. of a block, `count` <= kRun of them, none beyond its end, after take_keys of the same rows.
template <class T>
inline void take_run(const Head<T>& head, const Shape& shape, int r0, int count, const Rows& rows,
                     const Scratch& scratch) {
  const int64_t ld = shape.coefficients();
  const int columns = shape.columns();
  float alpha[kRun];
  decay_factors(alpha, rows.g, rows.heads, count);
  if (head.ahead != 0) tile::fetch<32 / VL>(head.decay, head.ahead);
  for (int i = 0; i < count; i++) {
    take_decay(head, r0 + i, alpha[i]);
    fill_weights(head, shape, i, r0 + i, count, scratch);
  }
  multiply(Product<float, T>{.c = scratch.partial,
                             .ldc = columns,
                             .a = scratch.weights,
                             .am = ld,
                             .ak = 1,
                             .b = head.state,
                             .ldb = columns,
                             .rows = 2 * count,
                             .columns = columns,
                             .depth = shape.Dk,
                             .ahead = head.ahead});
  for (int i = 0; i < count; i++) {
    float* w = scratch.partial + i * columns;
    substitute(head, shape, r0 + i, scratch.weights + i * ld, rows.v + i * rows.heads * shape.Dv,
               rows.beta[i * rows.heads], w);
    if (rows.w != nullptr) std::copy_n(w, columns, rows.w + i * columns);
  }
  multiply(Product<float, T>{.c = rows.o,
                             .ldc = rows.heads * shape.Dv,
                             .a = scratch.weights + count * ld + shape.Dk,
                             .am = ld,
                             .ak = 1,
                             .b = head.u(shape, 0),
                             .ldb = columns,
                             .rows = count,
                             .columns = shape.Dv,
                             .depth = r0 + 1,
                             .init = Init::kAdd,
                             .growing = true,
                             .old = scratch.partial + count * columns,
                             .ld_old = columns});
}

/// out [Dk, columns at ld] = B S0 + sum of the block's first `count` rows; `out` may be S0. scaled_keys, constant:
/// scratch.
template <class Out, class T>
inline void state_after(Out* out, int64_t ld, int columns, const Head<T>& head, const T* keys, const Shape& shape,
                        int count, float* scaled_keys, float* constant) {
  const int width = shape.width();
  for (int s = 0; s < count; s++)
    for (int c = 0; c < width; c += VL)
      vstore(scaled_keys + s * width + c, vmul(load_wide(keys + s * width + c), vset(head.decays[s])));
  std::fill_n(constant, shape.Dk, head.decay[0]);
  multiply(Product<Out, T, T>{.c = out,
                              .ldc = ld,
                              .a = scaled_keys,
                              .am = 1,
                              .ak = width,
                              .b = head.u(shape, 0),
                              .ldb = shape.columns(),
                              .rows = shape.Dk,
                              .columns = columns,
                              .depth = count,
                              .init = count == 0 ? Init::kAdd : Init::kScaleRows,
                              .scale = constant,
                              .old = head.state,
                              .ld_old = shape.columns()});
}

}  // namespace graft::gdn
