// Gated delta rule, backward pass of the training form. One task = one query/key head of one sequence with its value
// heads in order, so that no sum crosses threads. Chunks of 64 tokens go in reverse: from the kept state before a chunk
// the three states inside it are made again, then its runs of 16 tokens follow in reverse. For a run with state S0
// before it and the gradient G of the state behind it, weights as in gdn.h:
//
//   du = (D_n K) G + (weights of o)ᵀ dO + (weights of w)ᵀ dw   from the last row up;     dw_t = dv_t = beta_t du_t
//   dbeta_t = du_t·w_t;   E_ts = D_ts do_t·u_s (s <= t);   F_ts = -D_ts dw_t·u_s (s < t);   X = dO S0ᵀ;   Y = dW S0ᵀ
//   dq_t = scale (B_t X_t + sum_s E_ts k_s)
//   dk_t = D_nt G u_t - B_t Y_t + sum_s E_st scale q_s + sum_s (F + Fᵀ)_ts k_s
//   dS0 = B_n G + sum_t B_t (scale q_t do_tᵀ - k_t dw_tᵀ)
//   dg_t = sum_{s>=t} (q_s·dq_s - k_s·dk_s - 2 dw_s·(v_s - w_s)) + <S, G> behind the last s
//
// The last sum starts anew at every chunk, from the kept state, so that long sequences do not pile up rounding.
#include "gdn_train.h"
#include "threads.h"

using namespace graft;
using gdn::kChunk;
using gdn::kRun;
using gdn::kRuns;
using gdn::Train;

namespace {

struct Backward {
  float *dq, *dk, *dv, *dg, *dbeta, *d_initial;
  const float *d_o, *d_final;
};

/// What the backward pass needs of one run; filled in the forward direction.
struct Run {
  float* state;             // before the run, transposed [columns, width]
  float *keys, *query;      // k, scale q [kRun, width]
  float* end_keys;          // D_ns k_s [kRun, width]
  float* u;                 // [kRun, columns]
  float* weights;           // [2 count, coefficients]: of w, then of o, zeros from (w) or above (o) the diagonal
  float *decays, *factors;  // D [kRun, kRun]; B_t [kRun]
  const float* w;           // [count, columns], in the workspace
};

struct BackwardScratch {
  Run runs[kRuns];
  float *G, *GT;  // gradient of the state, [Dk, columns] and transposed [columns, width]
  float* head;    // decays of the row at hand
  float *key_dots, *query_dots;
  float* u_t;                   // [columns, kRun]
  float* du;                    // [kRun, columns]
  float* dw_do;                 // [2 count, columns]: dw, then dO
  float* reads;                 // [2 count, width]: Y, then X
  float* products;              // [2 count, kRun]: dw·u, then dO·u
  float *E, *F;                 // [kRun, kRun], F symmetric
  float *dq, *dk, *state_keys;  // [kRun, width]; state_keys: G u
  float* constant;              // [columns]
  int64_t total;
};

BackwardScratch lay_out(const gdn::Shape& shape, Scratch memory) {
  BackwardScratch p{};
  const int64_t width = shape.width(), columns = shape.columns();
  for (Run& run : p.runs) {
    run.state = memory.floats(columns * width);
    run.keys = memory.floats(kRun * width);
    run.query = memory.floats(kRun * width);
    run.end_keys = memory.floats(kRun * width);
    run.u = memory.floats(kRun * columns);
    run.weights = memory.floats(2 * kRun * shape.coefficients());
    run.decays = memory.floats(kRun * kRun);
    run.factors = memory.floats(kRun);
  }
  p.G = memory.floats(width * columns);
  p.GT = memory.floats(columns * width);
  p.head = memory.floats(16 + kRun);
  p.key_dots = memory.floats(kRun * kRun);
  p.query_dots = memory.floats(kRun * kRun);
  p.u_t = memory.floats(columns * kRun);
  p.du = memory.floats(kRun * columns);
  p.dw_do = memory.floats(2 * kRun * columns);
  p.reads = memory.floats(2 * kRun * width);
  p.products = memory.floats(2 * kRun * kRun);
  p.E = memory.floats(kRun * kRun);
  p.F = memory.floats(kRun * kRun);
  p.dq = memory.floats(kRun * width);
  p.dk = memory.floats(kRun * width);
  p.state_keys = memory.floats(kRun * width);
  p.constant = memory.floats(columns);
  p.total = memory.used();
  return p;
}

float dot(const float* a, const float* b, int width) {
  vf sum = vzero();
  for (int c = 0; c < width; c += VL) sum = vfma(vload(a + c), vload(b + c), sum);
  return vsum(sum);
}

/// One value head of one sequence as the backward pass walks it.
struct Walk {
  const Train& call;
  const Backward& grad;
  const gdn::Shape& shape;
  BackwardScratch p;
  int64_t s, h, j, first;
  bool add_keys;  // dq and dk already hold another value head's share
  int width, columns;
  float sum = 0;  // dg of the row behind the one at hand

  int64_t value_row(int64_t i) const { return (first + i) * call.Hv + j; }

  void prepare(Run& run, int64_t i, int count) const {
    const int64_t ld = shape.coefficients(), key = call.key_at(first + i, h), row = value_row(i);
    gdn::Scratch scratch(shape, Scratch(nullptr));
    scratch.query = run.query, scratch.key = run.keys, scratch.key_dots = p.key_dots, scratch.query_dots = p.query_dots;
    scratch.weights = run.weights;
    gdn::take_keys(run.keys, shape, 0, count, call.q + key, call.k + key, call.Hk * shape.Dk, scratch);
    const gdn::Head<float> head(p.head, shape);
    float alpha[kRun];
    gdn::decay_factors(alpha, call.g + row, call.Hv, count);
    run.w = call.w(first + i, j);
    for (int t = 0; t < count; t++) {
      gdn::take_decay(head, t, alpha[t]);
      gdn::fill_weights(head, shape, t, t, count, scratch);
      std::fill_n(run.weights + t * ld + shape.Dk + t, shape.coefficients() - shape.Dk - t, 0.f);
      std::fill_n(run.weights + (count + t) * ld + shape.Dk + t + 1, shape.coefficients() - shape.Dk - t - 1, 0.f);
      std::copy_n(head.decays, kRun, run.decays + t * kRun);
      run.factors[t] = head.decay[0];
      const vf strength = vset(call.beta[row + t * call.Hv]);
      for (int c = 0; c < columns; c += VL)
        vstore(run.u + t * columns + c, vmul(vload(run.w + t * columns + c), strength));
    }
    for (int t = 0; t < count; t++)
      for (int c = 0; c < width; c += VL)
        vstore(run.end_keys + t * width + c, vmul(vload(run.keys + t * width + c), vset(head.decays[t])));
  }

  /// The state behind a run from the one before it.
  void advance(const Run& run, float* next, int count) const {
    std::fill_n(p.constant, columns, run.factors[count - 1]);
    multiply({.c = next,
              .ldc = width,
              .a = run.u,
              .am = 1,
              .ak = columns,
              .b = run.end_keys,
              .ldb = width,
              .rows = shape.Dv,
              .columns = width,
              .depth = count,
              .init = Init::kScaleRows,
              .scale = p.constant,
              .old = run.state,
              .ld_old = width});
  }

  /// du and dw; writes dv and dbeta.
  void solve(const Run& run, int64_t i, int count) const {
    const int64_t ld = shape.coefficients();
    float *dw = p.dw_do, *d_o = p.dw_do + count * columns;
    copy_padded(d_o, grad.d_o + value_row(i) * shape.Dv, call.Hv * shape.Dv, count, shape.Dv);
    Product product{.c = p.du,
                    .ldc = columns,
                    .a = run.end_keys,
                    .am = width,
                    .ak = 1,
                    .b = p.G,
                    .ldb = columns,
                    .rows = count,
                    .columns = columns,
                    .depth = shape.Dk};
    multiply(product);
    product.a = run.weights + count * ld + shape.Dk, product.am = 1, product.ak = ld;
    product.b = d_o, product.depth = count, product.init = Init::kAdd;
    multiply(product);
    product.rows = 1;
    for (int t = count - 1; t >= 0; t--) {
      float* du = p.du + t * columns;
      product.c = du, product.a = run.weights + (t + 1) * ld + shape.Dk + t;
      product.b = dw + (t + 1) * columns, product.depth = count - 1 - t;
      multiply(product);
      const int64_t row = value_row(i + t);
      const vf strength = vset(call.beta[row]);
      for (int c = 0; c < columns; c += VL) {
        const vf x = vmul(vload(du + c), strength);
        vstore(dw + t * columns + c, x);
        if (c < shape.Dv) vstore_n(grad.dv + row * shape.Dv + c, x, shape.Dv - c);
      }
      grad.dbeta[row] = dot(du, run.w + t * columns, columns);
    }
  }

  /// Y and X, the products behind E and F, and G u.
  void read_gradients(const Run& run, int count) const {
    Product product{.c = p.reads,
                    .ldc = width,
                    .a = p.dw_do,
                    .am = columns,
                    .ak = 1,
                    .b = run.state,
                    .ldb = width,
                    .rows = 2 * count,
                    .columns = width,
                    .depth = shape.Dv};
    multiply(product);
    transpose(p.u_t, kRun, run.u, columns, kRun, columns);
    product.c = p.products, product.ldc = product.columns = kRun, product.b = p.u_t, product.ldb = kRun;
    multiply(product);
    product.c = p.state_keys, product.ldc = product.columns = width, product.b = p.GT, product.ldb = width;
    product.a = run.u, product.rows = count;
    multiply(product);
    std::fill_n(p.E, kRun * kRun, 0.f);
    std::fill_n(p.F, kRun * kRun, 0.f);
    for (int t = 0; t < count; t++) {
      const float *of_w = p.products + t * kRun, *of_o = of_w + count * kRun, *D = run.decays + t * kRun;
      for (int r = 0; r < t; r++) {
        p.E[t * kRun + r] = D[r] * of_o[r];
        p.F[t * kRun + r] = p.F[r * kRun + t] = -D[r] * of_w[r];
      }
      p.E[t * kRun + t] = of_o[t];
    }
  }

  /// dq (unscaled) and dk of the run.
  void key_gradients(const Run& run, int count) const {
    Product product{.c = p.dq,
                    .ldc = width,
                    .a = p.E,
                    .am = kRun,
                    .ak = 1,
                    .b = run.keys,
                    .ldb = width,
                    .rows = count,
                    .columns = width,
                    .depth = 1,
                    .init = Init::kScaleRows,
                    .scale = run.factors,
                    .growing = true,
                    .old = p.reads + count * width,
                    .ld_old = width};
    multiply(product);
    product.c = p.dk, product.am = 1, product.ak = kRun, product.b = run.query, product.depth = count;
    product.growing = false, product.old = p.state_keys, product.scale = run.decays + (count - 1) * kRun;
    multiply(product);
    product.a = p.F, product.b = run.keys, product.old = nullptr, product.init = Init::kAdd;
    multiply(product);
    for (int t = 0; t < count; t++)
      for (int c = 0; c < width; c += VL)
        vstore(p.dk + t * width + c,
               vfnma(vset(run.factors[t]), vload(p.reads + t * width + c), vload(p.dk + t * width + c)));
  }

  void write_keys(float* out, const float* row, float scale) const {
    for (int c = 0; c < shape.Dk; c += VL) {
      const int lanes = shape.Dk - c;
      const vf x = vmul(vload(row + c), vset(scale));
      vstore_n(out + c, add_keys ? vadd(vload_n(out + c, lanes), x) : x, lanes);
    }
  }

  /// Writes dq, dk and dg; `sum` goes on from the rows behind.
  void write_rows(const Run& run, int64_t i, int count) {
    for (int t = count - 1; t >= 0; t--) {
      const int64_t row = value_row(i + t), key = call.key_at(first + i + t, h);
      const float *dq = p.dq + t * width, *dk = p.dk + t * width, *w = run.w + t * columns;
      const float *dw = p.dw_do + t * columns, *v = call.v + row * shape.Dv;
      vf change = vzero(), read = vzero();
      for (int c = 0; c < width; c += VL) {
        change = vfma(vload(run.query + t * width + c), vload(dq + c), change);
        change = vfnma(vload(run.keys + t * width + c), vload(dk + c), change);
      }
      for (int c = 0; c < columns; c += VL)
        read = vfma(vload(dw + c), vsub(vload_n(v + c, shape.Dv - c), vload(w + c)), read);
      sum += vsum(vfnma(vset(2.f), read, change));
      grad.dg[row] = sum;
      write_keys(grad.dq + key, dq, shape.scale);
      write_keys(grad.dk + key, dk, 1);
    }
  }

  /// G becomes the gradient of the state before the run.
  void retreat(const Run& run, int count) const {
    std::fill_n(p.du, shape.width(), run.factors[count - 1]);
    multiply({.c = p.G,
              .ldc = columns,
              .a = run.weights,
              .am = 1,
              .ak = shape.coefficients(),
              .b = p.dw_do,
              .ldb = columns,
              .rows = shape.Dk,
              .columns = columns,
              .depth = 2 * count,
              .init = Init::kScaleRows,
              .scale = p.du});
    transpose(p.GT, width, p.G, columns, shape.Dk, columns);
  }

  /// <S, G> for the state behind a chunk.
  float anchor_sum(const float* state) const {
    float total = 0;
    for (int v = 0; v < shape.Dv; v++) {
      vf sum = vzero();
      for (int c = 0; c < shape.Dk; c += VL)
        sum = vfma(vload_n(state + v * width + c, shape.Dk - c), vload(p.GT + v * width + c), sum);
      total += vsum(sum);
    }
    return total;
  }

  void chunk(int64_t index, int64_t T) {
    const int64_t begin = index * kChunk;
    const int runs = static_cast<int>((std::min<int64_t>(kChunk, T - begin) + kRun - 1) / kRun);
    std::copy_n(call.chunk_state(s, index, j), call.state_floats(), p.runs[0].state);
    const auto count = [&](int r) { return static_cast<int>(std::min<int64_t>(kRun, T - begin - r * kRun)); };
    for (int r = 0; r < runs; r++) {
      prepare(p.runs[r], begin + r * kRun, count(r));
      if (r + 1 < runs) advance(p.runs[r], p.runs[r + 1].state, count(r));
    }
    sum = anchor_sum(call.chunk_state(s, index + 1, j));
    for (int r = runs - 1; r >= 0; r--) {
      const Run& run = p.runs[r];
      solve(run, begin + r * kRun, count(r));
      read_gradients(run, count(r));
      key_gradients(run, count(r));
      write_rows(run, begin + r * kRun, count(r));
      retreat(run, count(r));
    }
  }
};

void backward_head(const Train& call, const Backward& grad, int64_t s, int64_t h, int64_t j, int thread) {
  const gdn::Shape& shape = call.shape;
  const int64_t total = lay_out(shape, Scratch(nullptr)).total;
  float* memory = static_cast<float*>(thread_scratch(thread, 0, total * sizeof(float)));
  std::fill_n(memory, total, 0.f);  // padding of every piece is zero from here on
  const int64_t first = call.seq_start[s], T = call.seq_start[s + 1] - first;
  const bool add_keys = j != h * (call.Hv / call.Hk);
  Walk walk{call,     grad,          shape,          lay_out(shape, Scratch(memory)), s, h, j, first,
            add_keys, shape.width(), shape.columns()};
  const int64_t elements = static_cast<int64_t>(shape.Dk) * shape.Dv, index = s * call.Hv + j;
  if (grad.d_final != nullptr) copy_padded(walk.p.G, grad.d_final + index * elements, shape.Dv, shape.Dk, shape.Dv);
  transpose(walk.p.GT, walk.width, walk.p.G, walk.columns, shape.Dk, walk.columns);
  for (int64_t chunk = (T + kChunk - 1) / kChunk - 1; chunk >= 0; chunk--) walk.chunk(chunk, T);
  if (grad.d_initial == nullptr) return;
  for (int c = 0; c < shape.Dk; c++)
    std::copy_n(walk.p.G + c * walk.columns, shape.Dv, grad.d_initial + index * elements + c * shape.Dv);
}

}  // namespace

extern "C" int32_t graft_gdn_backward(float* dq, float* dk, float* dv, float* dg, float* dbeta, float* d_initial,
                                      float* workspace, const float* d_o, const float* d_final, const float* q,
                                      const float* k, const float* v, const float* g, const float* beta, const float*,
                                      const int32_t* seq_start, int32_t S, int32_t N, int32_t Hk, int32_t Hv,
                                      int32_t Dk, int32_t Dv, float scale) {
  GRAFT_TRY(gdn::check_train("gdn_backward", seq_start, S, N, Hk, Hv, Dk, Dv,
                             {{"d_o", d_o},
                              {"dq", dq},
                              {"dk", dk},
                              {"dv", dv},
                              {"dg", dg},
                              {"dbeta", dbeta},
                              {"workspace", workspace},
                              {"q", q},
                              {"k", k},
                              {"v", v},
                              {"g", g},
                              {"beta", beta}}));
  const Train call{{Dk, Dv, kRun, scale}, Hk, Hv, N, S, seq_start, q, k, v, g, beta, workspace};
  const Backward grad{dq, dk, dv, dg, dbeta, d_initial, d_o, d_final};
  const int64_t group = Hv / Hk;
  parallel(static_cast<int64_t>(S) * Hk, [&](int64_t i, int thread) {
    const int64_t h = i % Hk;
    for (int64_t j = h * group; j < (h + 1) * group; j++) backward_head(call, grad, i / Hk, h, j, thread);
  });
  return GRAFT_OK;
}
