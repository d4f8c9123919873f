// Gated linear attention, backward pass of the training form. One task = one key/value head of one sequence with all
// its query heads, so that no sum crosses threads. Chunks of 64 tokens go in reverse: from the kept state before a
// chunk the three states inside it are made again, then its runs of 16 tokens follow in reverse. For a run with state
// S0 before it and the gradient G of the state behind it, where dP = dO Vᵀ, X = dO S0ᵀ, Z = V Gᵀ and B, K, P as in
// gla.h:
//
//   dq_t = scale (B_t ⊙ X_t + sum_{s<=t} dP_ts k_s ⊙ e^{a_{s+1}+..+a_t})                by Horner's rule over s
//   dk_s = Z_s ⊙ e^{a_{s+1}+..+a_n} + sum_{t>=s} dP_ts scale q_t ⊙ e^{a_{s+1}+..+a_t}   by Horner's rule over t
//   dV = K G + Pᵀ dO,     dS0 = diag(B_n) G + sum_t (scale q_t ⊙ B_t) do_tᵀ
//   da_t = sum_{s>=t} (q_s ⊙ dq_s - k_s ⊙ dk_s) + rows of S ⊙ G behind the last s
//
// The last sum starts anew at every chunk, from the kept state, so that long sequences do not pile up rounding.
#include "gla_train.h"
#include "threads.h"

using namespace graft;
using gla::kChunk;
using gla::kRun;
using gla::kRuns;
using gla::Train;

namespace {

struct Backward {
  float *dq, *dk, *dv, *da, *d_initial;
  const float *d_o, *d_final;
};

/// What the backward pass needs of one run; filled in the forward direction.
struct Run {
  float* state;          // before the run, transposed [columns, width]
  float *decay, *alpha;  // B_n [width]; e^a [kRun, width]
  float *raw, *keys;     // k; K = k decayed to the end of the run [kRun, width]
  float* values;         // [kRun, columns]
  float* scaled;         // scale q [kRun, G, width]
  float* weights;        // [G, kRun, coefficients]: scale q ⊙ B_t, then P with zeros above the diagonal
  float* d_o;            // [G, kRun, columns]
};

struct BackwardScratch {
  Run runs[kRuns];
  float *G, *GT;                         // gradient of the state, [Dk, columns] and transposed [columns, width]
  float *values_t, *dP, *dq, *dk, *sum;  // [columns, kRun], [G, kRun, kRun], [G, kRun, width], [kRun, width], [width]
  int64_t total;
};

BackwardScratch lay_out(const gla::Shape& shape, Scratch memory) {
  BackwardScratch p{};
  const int64_t width = shape.width(), columns = shape.columns(), G = shape.G;
  for (Run& run : p.runs) {
    run.state = memory.floats(columns * width);
    run.decay = memory.floats(width);
    run.alpha = memory.floats(kRun * width);
    run.raw = memory.floats(kRun * width);
    run.keys = memory.floats(kRun * width);
    run.values = memory.floats(kRun * columns);
    run.scaled = memory.floats(kRun * G * width);
    run.weights = memory.floats(G * kRun * shape.coefficients());
    run.d_o = memory.floats(G * kRun * columns);
  }
  p.G = memory.floats(width * columns);
  p.GT = memory.floats(columns * width);
  p.values_t = memory.floats(columns * kRun);
  p.dP = memory.floats(G * kRun * kRun);
  p.dq = memory.floats(G * kRun * width);
  p.dk = memory.floats(kRun * width);
  p.sum = memory.floats(width);
  p.total = memory.used();
  return p;
}

/// One head of one sequence as the backward pass walks it.
struct Walk {
  const Train& call;
  const Backward& grad;
  const gla::Shape& shape;
  BackwardScratch p;
  int64_t s, h, first;
  int width, columns;

  int64_t key_row(int64_t i) const { return (first + i) * call.Hkv + h; }
  int64_t query_row(int64_t i) const { return (first + i) * call.Hq + h * shape.G; }

  void prepare(Run& run, int64_t i, int count) const {
    const int64_t ld = shape.coefficients(), stride = kRun * ld, key = key_row(i), query = query_row(i);
    const gla::Head<float> head(run.decay, run.keys, nullptr);
    copy_padded(run.raw, call.k + key * shape.Dk, call.Hkv * shape.Dk, count, shape.Dk);
    copy_padded(run.values, call.v + key * shape.Dv, call.Hkv * shape.Dv, count, shape.Dv);
    for (int t = 0; t < count; t++) {
      for (int g = 0; g < shape.G; g++)
        std::fill_n(run.weights + g * stride + t * ld + shape.Dk, shape.coefficients() - shape.Dk, 0.f);
      gla::take_row(head, shape, t, call.q + (query + t * call.Hq) * shape.Dk, call.k + (key + t * call.Hkv) * shape.Dk,
                    call.a + (key + t * call.Hkv) * shape.Dk, run.alpha + t * width,
                    run.scaled + static_cast<int64_t>(t) * shape.G * width, run.weights + t * ld, stride);
    }
    for (int g = 0; g < shape.G; g++)
      copy_padded(run.d_o + g * kRun * columns, grad.d_o + (query + g) * shape.Dv, call.Hq * shape.Dv, count, shape.Dv);
  }

  /// The state behind a run from the one before it.
  void advance(const Run& run, float* next, int count) const {
    multiply({.c = next,
              .ldc = width,
              .a = run.values,
              .am = 1,
              .ak = columns,
              .b = run.keys,
              .ldb = width,
              .rows = shape.Dv,
              .columns = width,
              .depth = count,
              .init = Init::kScaleColumns,
              .scale = run.decay,
              .old = run.state,
              .ld_old = width});
  }

  void value_gradient(const Run& run, int64_t i, int count) const {
    Product sum{.c = grad.dv + key_row(i) * shape.Dv,
                .ldc = call.Hkv * shape.Dv,
                .a = run.keys,
                .am = width,
                .ak = 1,
                .b = p.G,
                .ldb = columns,
                .rows = count,
                .columns = shape.Dv,
                .depth = shape.Dk};
    multiply(sum);
    sum.am = 1, sum.ak = shape.coefficients(), sum.ldb = columns, sum.depth = count, sum.init = Init::kAdd;
    for (int g = 0; g < shape.G; g++) {
      sum.a = run.weights + g * kRun * shape.coefficients() + shape.Dk;
      sum.b = run.d_o + g * kRun * columns;
      multiply(sum);
    }
  }

  /// dP, X (into p.dq) and Z (into p.dk).
  void read_gradients(const Run& run, int count) const {
    transpose(p.values_t, kRun, run.values, columns, kRun, columns);
    Product product{.c = p.dk,
                    .ldc = width,
                    .a = run.values,
                    .am = columns,
                    .ak = 1,
                    .b = p.GT,
                    .ldb = width,
                    .rows = count,
                    .columns = width,
                    .depth = shape.Dv};
    multiply(product);
    for (int g = 0; g < shape.G; g++) {
      product.a = run.d_o + g * kRun * columns;
      product.c = p.dq + static_cast<int64_t>(g) * kRun * width, product.ldc = product.columns = width;
      product.b = run.state, product.ldb = width;
      multiply(product);
      product.c = p.dP + g * kRun * kRun, product.ldc = product.columns = kRun;
      product.b = p.values_t, product.ldb = kRun;
      multiply(product);
    }
  }

  /// x = (..(x ⊙ alpha_0 + dP_t0 k_0) ⊙ alpha_1 + ..) ⊙ alpha_t + dP_tt k_t for two rows t at once.
  void finish_queries(const Run& run, int g, int count) const {
    const float* dP = p.dP + g * kRun * kRun;
    float* dq = p.dq + static_cast<int64_t>(g) * kRun * width;
    for (int t = 0; t < count; t += 2) {
      const int pair = t + 1 < count ? 1 : 0;
      float *x0 = dq + t * width, *x1 = x0 + pair * width;
      const float *w0 = dP + t * kRun, *w1 = w0 + pair * kRun;
      for (int c = 0; c < width; c += 4 * VL)
        horner_queries(run, x0, x1, w0, w1, t, pair, c, std::min(4, (width - c) / VL));
    }
  }

  void horner_queries(const Run& run, float* x0, float* x1, const float* w0, const float* w1, int t, int pair, int c,
                      int vectors) const {
    if (vectors == 4) return horner_queries_n<4>(run, x0, x1, w0, w1, t, pair, c);
    for (int v = 0; v < vectors; v++) horner_queries_n<1>(run, x0, x1, w0, w1, t, pair, c + v * VL);
  }

  template <int NV>
  void horner_queries_n(const Run& run, float* x0, float* x1, const float* w0, const float* w1, int t, int pair,
                        int c) const {
    vf a[NV], b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) a[v] = vload(x0 + c + v * VL), b[v] = vload(x1 + c + v * VL);
    for (int s = 0; s <= t; s++) {
      const float *alpha = run.alpha + s * width + c, *k = run.raw + s * width + c;
      const vf y0 = vset(w0[s]), y1 = vset(w1[s]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) {
        const vf f = vload(alpha + v * VL), x = vload(k + v * VL);
        a[v] = vfma(y0, x, vmul(a[v], f));
        b[v] = vfma(y1, x, vmul(b[v], f));
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) vstore(x0 + c + v * VL, a[v]);
    if (pair == 0) return;
    const float *alpha = run.alpha + (t + 1) * width + c, *k = run.raw + (t + 1) * width + c;
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++)
      vstore(x1 + c + v * VL, vfma(vset(w1[t + 1]), vload(k + v * VL), vmul(b[v], vload(alpha + v * VL))));
  }

  /// x_s = (..((x_s + dP_ns q_n) ⊙ alpha_n + ..) ⊙ alpha_{s+1} + dP_ss q_s, summed over the query heads.
  void finish_keys(const Run& run, int count) const {
    for (int s = 0; s < count; s++)
      for (int c = 0; c < width; c += 4 * VL) {
        const int vectors = std::min(4, (width - c) / VL);
        if (vectors == 4)
          horner_keys<4>(run, s, count, c);
        else
          for (int v = 0; v < vectors; v++) horner_keys<1>(run, s, count, c + v * VL);
      }
  }

  template <int NV>
  void horner_keys(const Run& run, int s, int count, int c) const {
    float* row = p.dk + s * width + c;
    vf x[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) x[v] = vload(row + v * VL);
    for (int t = count - 1; t >= s; t--) {
      for (int g = 0; g < shape.G; g++) {
        const vf w = vset(p.dP[(g * kRun + t) * kRun + s]);
        const float* q = run.scaled + (static_cast<int64_t>(t) * shape.G + g) * width + c;
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) x[v] = vfma(w, vload(q + v * VL), x[v]);
      }
      if (t == s) break;
      const float* alpha = run.alpha + t * width + c;
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) x[v] = vmul(x[v], vload(alpha + v * VL));
    }
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) vstore(row + v * VL, x[v]);
  }

  /// Writes dq, dk and da of a run; p.sum goes on from the rows behind it.
  void write_rows(const Run& run, int64_t i, int count) const {
    const int Dk = shape.Dk;
    const vf scale = vset(shape.scale);
    for (int t = count - 1; t >= 0; t--) {
      float *dk = grad.dk + key_row(i + t) * Dk, *da = grad.da + key_row(i + t) * Dk;
      float* dq = grad.dq + query_row(i + t) * Dk;
      for (int c = 0; c < Dk; c += VL) {
        const int lanes = Dk - c;
        const vf x = vload(p.dk + t * width + c);
        vf sum = vfnma(vload(run.raw + t * width + c), x, vload(p.sum + c));
        for (int g = 0; g < shape.G; g++) {
          const vf y = vload(p.dq + (static_cast<int64_t>(g) * kRun + t) * width + c);
          sum = vfma(vload(run.scaled + (static_cast<int64_t>(t) * shape.G + g) * width + c), y, sum);
          vstore_n(dq + g * Dk + c, vmul(y, scale), lanes);
        }
        vstore(p.sum + c, sum);
        vstore_n(dk + c, x, lanes);
        vstore_n(da + c, sum, lanes);
      }
    }
  }

  /// G becomes the gradient of the state before the run.
  void retreat(const Run& run, int count) const {
    Product product{.c = p.G,
                    .ldc = columns,
                    .a = run.weights,
                    .am = 1,
                    .ak = shape.coefficients(),
                    .b = run.d_o,
                    .ldb = columns,
                    .rows = shape.Dk,
                    .columns = columns,
                    .depth = count,
                    .init = Init::kScaleRows,
                    .scale = run.decay};
    for (int g = 0; g < shape.G; g++, product.init = Init::kAdd) {
      product.a = run.weights + g * kRun * shape.coefficients();
      product.b = run.d_o + g * kRun * columns;
      multiply(product);
    }
    transpose(p.GT, width, p.G, columns, shape.Dk, columns);
  }

  /// p.sum = rows of S ⊙ G for the state behind a chunk.
  void anchor_sum(const float* state) const {
    for (int c = 0; c < width; c += VL) {
      vf sum = vzero();
      for (int j = 0; j < shape.Dv; j++) sum = vfma(vload(state + j * width + c), vload(p.GT + j * width + c), sum);
      vstore(p.sum + c, sum);
    }
  }

  void chunk(int64_t index, int64_t T) {
    const int64_t begin = index * kChunk;
    const int runs = static_cast<int>((std::min<int64_t>(kChunk, T - begin) + kRun - 1) / kRun);
    std::copy_n(call.chunk_state(s, index, h), call.state_floats(), p.runs[0].state);
    const auto count = [&](int r) { return static_cast<int>(std::min<int64_t>(kRun, T - begin - r * kRun)); };
    for (int r = 0; r < runs; r++) {
      prepare(p.runs[r], begin + r * kRun, count(r));
      if (r + 1 < runs) advance(p.runs[r], p.runs[r + 1].state, count(r));
    }
    anchor_sum(call.chunk_state(s, index + 1, h));
    for (int r = runs - 1; r >= 0; r--) {
      const Run& run = p.runs[r];
      value_gradient(run, begin + r * kRun, count(r));
      read_gradients(run, count(r));
      for (int g = 0; g < shape.G; g++) finish_queries(run, g, count(r));
      finish_keys(run, count(r));
      write_rows(run, begin + r * kRun, count(r));
      retreat(run, count(r));
    }
  }
};

void backward_head(const Train& call, const Backward& grad, int64_t s, int64_t h, int thread) {
  const gla::Shape& shape = call.shape;
  const int64_t total = lay_out(shape, Scratch(nullptr)).total;
  float* memory = static_cast<float*>(thread_scratch(thread, 0, total * sizeof(float)));
  std::fill_n(memory, total, 0.f);  // padding of every piece is zero from here on
  const int64_t first = call.seq_start[s], T = call.seq_start[s + 1] - first;
  Walk walk{call, grad, shape, lay_out(shape, Scratch(memory)), s, h, first, shape.width(), shape.columns()};
  const int64_t elements = static_cast<int64_t>(shape.Dk) * shape.Dv, index = s * call.Hkv + h;
  if (grad.d_final != nullptr) copy_padded(walk.p.G, grad.d_final + index * elements, shape.Dv, shape.Dk, shape.Dv);
  transpose(walk.p.GT, walk.width, walk.p.G, walk.columns, shape.Dk, walk.columns);
  for (int64_t chunk = (T + kChunk - 1) / kChunk - 1; chunk >= 0; chunk--) walk.chunk(chunk, T);
  if (grad.d_initial == nullptr) return;
  for (int c = 0; c < shape.Dk; c++)
    std::copy_n(walk.p.G + c * walk.columns, shape.Dv, grad.d_initial + index * elements + c * shape.Dv);
}

}  // namespace

extern "C" int32_t graft_gla_backward(float* dq, float* dk, float* dv, float* da, float* d_initial, float* workspace,
                                      const float* d_o, const float* d_final, const float* q, const float* k,
                                      const float* v, const float* a, const float*, const int32_t* seq_start, int32_t S,
                                      int32_t N, int32_t Hq, int32_t Hkv, int32_t Dk, int32_t Dv, float scale) {
  GRAFT_TRY(gla::check_train("gla_backward", seq_start, S, N, Hq, Hkv, Dk, Dv,
                             {{"d_o", d_o},
                              {"dq", dq},
                              {"dk", dk},
                              {"dv", dv},
                              {"da", da},
                              {"workspace", workspace},
                              {"q", q},
                              {"k", k},
                              {"v", v},
                              {"a", a}}));
  const Train call{{Hq / Hkv, Dk, Dv, kRun, scale}, Hq, Hkv, seq_start, q, k, v, a, workspace};
  const Backward grad{dq, dk, dv, da, d_initial, d_o, d_final};
  parallel(static_cast<int64_t>(S) * Hkv,
           [&](int64_t i, int thread) { backward_head(call, grad, i / Hkv, i % Hkv, thread); });
  return GRAFT_OK;
}
