// Gated delta rule (GDN and JetBlock), the recurrence itself, token by token in double precision.
//   S̄_t = e^{g_t} S_{t-1}        u_t = beta_t (v_t - S̄_tᵀ k_t)        S_t = S̄_t + k_t u_tᵀ        o_t = scale S_tᵀ q_t
// q, k: [N, Hk, Dk], already normalised; v, o: [N, Hv, Dv]; g, beta: [N, Hv]. S: [Dk, Dv], one per value head; value
// head j reads query/key head j / (Hv/Hk). Backward: the same recurrence in reverse.
#include <algorithm>
#include <cmath>

#include "recurrent_slot.h"

namespace graft {
namespace {

struct Shape {
  int64_t Hk, Hv, Dk, Dv;
  double scale;
  int64_t state() const { return Dk * Dv; }
  int64_t key_row(int64_t t, int64_t j) const { return (t * Hk + j / (Hv / Hk)) * Dk; }
  int64_t value_row(int64_t t, int64_t j) const { return t * Hv + j; }
};

struct Inputs {
  const float *q, *k, *v, *g, *beta;
};

/// y[j] = sum_c x[c] S[c, j]
template <class X>
std::vector<double> read(const std::vector<double>& state, const X* x, const Shape& shape) {
  std::vector<double> y(shape.Dv, 0.0);
  for (int64_t c = 0; c < shape.Dk; c++)
    for (int64_t j = 0; j < shape.Dv; j++) y[j] += x[c] * state[c * shape.Dv + j];
  return y;
}

/// x[c] = sum_j S[c, j] y[j]
template <class Y>
std::vector<double> read_back(const std::vector<double>& state, const Y* y, const Shape& shape) {
  std::vector<double> x(shape.Dk, 0.0);
  for (int64_t c = 0; c < shape.Dk; c++)
    for (int64_t j = 0; j < shape.Dv; j++) x[c] += state[c * shape.Dv + j] * y[j];
  return x;
}

/// state += factor x yᵀ
template <class X, class Y>
void add_outer(std::vector<double>& state, double factor, const X* x, const Y* y, const Shape& shape) {
  for (int64_t c = 0; c < shape.Dk; c++)
    for (int64_t j = 0; j < shape.Dv; j++) state[c * shape.Dv + j] += factor * x[c] * y[j];
}

struct Step {
  std::vector<double> decayed;  // S̄_t
  std::vector<double> w;        // v_t - S̄_tᵀ k_t, so that u_t = beta_t w
};

/// Turns `state` from S_{t-1} into S_t.
Step advance(std::vector<double>& state, const Inputs& in, const Shape& shape, int64_t t, int64_t j,
             const Storage& storage = {}) {
  std::vector<double> k(shape.Dk), u(shape.Dv);
  for (int64_t c = 0; c < shape.Dk; c++) k[c] = storage.round(in.k[shape.key_row(t, j) + c]);
  const int64_t row = shape.value_row(t, j);
  const double decay = std::exp(static_cast<double>(in.g[row]));
  for (double& element : state) element *= decay;
  Step step{state, read(state, k.data(), shape)};
  for (int64_t i = 0; i < shape.Dv; i++) {
    step.w[i] = in.v[row * shape.Dv + i] - step.w[i];
    u[i] = storage.round(in.beta[row] * step.w[i]);
  }
  add_outer(state, 1, k.data(), u.data(), shape);
  return step;
}

/// Tokens first..last-1 of value head j, the first one at `position`.
void run(float* o, std::vector<double>& state, const Inputs& in, const Shape& shape, int64_t j, int64_t first,
         int64_t last, int64_t position = 0, const Storage& storage = {}) {
  for (int64_t t = first; t < last; t++) {
    advance(state, in, shape, t, j, storage);
    const auto y = read(state, in.q + shape.key_row(t, j), shape);
    for (int64_t i = 0; i < shape.Dv; i++)
      o[shape.value_row(t, j) * shape.Dv + i] = static_cast<float>(shape.scale * y[i]);
    storage.settle(state, position + t - first);
  }
}

int32_t check(const char* op, const Inputs& in, const int32_t* seq_start, int32_t S, int32_t N, int32_t Hk, int32_t Hv,
              int32_t Dk, int32_t Dv) {
  GRAFT_TRY(check_ragged(op, seq_start, S, N));
  GRAFT_TRY(check_heads(op, "Hv", Hv, "Hk", Hk, Dk, Dv));
  return check_pointers(op, {{"q", in.q}, {"k", in.k}, {"v", in.v}, {"g", in.g}, {"beta", in.beta}});
}

std::vector<double> first_state(const float* initial, int64_t index, int64_t elements) {
  std::vector<double> state(elements, 0.0);
  if (initial != nullptr) std::copy_n(initial + index * elements, elements, state.begin());
  return state;
}

struct Gradients {
  std::vector<double> dq, dk;  // [N, Hk, Dk], summed over the value heads of a group
  float *dv, *dg, *dbeta;
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += a[i] * b[i];
  return sum;
}

/// Token t of value head j in reverse. G: gradient of S_t on entry, of S_{t-1} on exit.
void backward_step(Gradients& grad, std::vector<double>& G, const float* d_o, const Inputs& in, const Step& step,
                   const std::vector<double>& after, const Shape& shape, int64_t t, int64_t j) {
  const int64_t row = shape.value_row(t, j), key = shape.key_row(t, j), Dv = shape.Dv;
  const double beta = in.beta[row];
  const auto dq = read_back(after, d_o + row * Dv, shape);
  add_outer(G, shape.scale, in.q + key, d_o + row * Dv, shape);
  const auto du = read(G, in.k + key, shape);
  const auto through_u = read_back(G, step.w.data(), shape), through_read = read_back(step.decayed, du.data(), shape);
  for (int64_t c = 0; c < shape.Dk; c++) {
    grad.dq[key + c] += shape.scale * dq[c];
    grad.dk[key + c] += beta * (through_u[c] - through_read[c]);
  }
  for (int64_t i = 0; i < Dv; i++) grad.dv[row * Dv + i] = static_cast<float>(beta * du[i]);
  grad.dbeta[row] = static_cast<float>(dot(du, step.w));
  add_outer(G, -beta, in.k + key, du.data(), shape);  // now the gradient of S̄_t
  grad.dg[row] = static_cast<float>(dot(G, step.decayed));
  const double decay = std::exp(static_cast<double>(in.g[row]));
  for (double& element : G) element *= decay;
}

void backward(Gradients& grad, std::vector<double>& G, const float* d_o, const Inputs& in,
              const std::vector<double>& initial, const Shape& shape, int64_t j, int64_t first, int64_t last) {
  std::vector<std::vector<double>> after;
  std::vector<Step> steps;
  auto state = initial;
  for (int64_t t = first; t < last; t++) {
    steps.push_back(advance(state, in, shape, t, j));
    after.push_back(state);
  }
  for (int64_t t = last - 1; t >= first; t--)
    backward_step(grad, G, d_o, in, steps[t - first], after[t - first], shape, t, j);
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" double graft_gdn_state_floats(int32_t, int32_t Hv, int32_t Dk, int32_t Dv, int32_t, int32_t) {
  return slot_floats(static_cast<int64_t>(Hv) * Dk * Dv);
}

extern "C" int32_t graft_gdn(float* o, float* state, const float* q, const float* k, const float* v, const float* g,
                             const float* beta, const int32_t* slots, const int32_t* seq_start,
                             const int32_t* start_pos, int32_t S, int32_t N, int32_t Hk, int32_t Hv, int32_t Dk,
                             int32_t Dv, int32_t block, int32_t state_dtype, uint64_t state_stride, float scale) {
  const Inputs in{q, k, v, g, beta};
  GRAFT_TRY(check("gdn", in, seq_start, S, N, Hk, Hv, Dk, Dv));
  GRAFT_TRY(check_block("gdn", block, state_dtype));
  GRAFT_TRY(check_slots("gdn", state, state_stride, graft_gdn_state_floats(Hk, Hv, Dk, Dv, block, state_dtype), slots,
                        seq_start, start_pos, S));
  const Shape shape{Hk, Hv, Dk, Dv, scale};
  for (int32_t s = 0; s < S; s++) {
    const int32_t first = seq_start[s], last = seq_start[s + 1];
    if (first == last) continue;
    float* slot = state + static_cast<uint64_t>(slots[s]) * state_stride;
    for (int32_t j = 0; j < Hv; j++) {
      auto head = load_state(slot, j * shape.state(), shape.state(), start_pos[s]);
      run(o, head, in, shape, j, first, last, start_pos[s], {state_dtype, block});
      store_state(slot, j * shape.state(), head);
    }
    set_slot_position(slot, start_pos[s] + last - first);
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_gdn_state_read(float* recurrent, const float* slot_state, int32_t Hk, int32_t Hv, int32_t Dk,
                                        int32_t Dv, int32_t block, int32_t state_dtype, int32_t position) {
  GRAFT_TRY(check_heads("gdn_state_read", "Hv", Hv, "Hk", Hk, Dk, Dv));
  GRAFT_TRY(check_block("gdn_state_read", block, state_dtype));
  return read_state("gdn_state_read", recurrent, slot_state, static_cast<int64_t>(Hv) * Dk * Dv, position);
}

extern "C" double graft_gdn_train_floats(int32_t, int32_t, int32_t, int32_t, int32_t, int32_t) { return 1; }

extern "C" int32_t graft_gdn_train(float* o, float* final_state, float*, const float* q, const float* k, const float* v,
                                   const float* g, const float* beta, const float* initial_state,
                                   const int32_t* seq_start, int32_t S, int32_t N, int32_t Hk, int32_t Hv, int32_t Dk,
                                   int32_t Dv, float scale) {
  const Inputs in{q, k, v, g, beta};
  GRAFT_TRY(check("gdn_train", in, seq_start, S, N, Hk, Hv, Dk, Dv));
  const Shape shape{Hk, Hv, Dk, Dv, scale};
  for (int64_t i = 0; i < static_cast<int64_t>(S) * Hv; i++) {
    auto state = first_state(initial_state, i, shape.state());
    run(o, state, in, shape, i % Hv, seq_start[i / Hv], seq_start[i / Hv + 1]);
    for (int64_t e = 0; final_state != nullptr && e < shape.state(); e++)
      final_state[i * shape.state() + e] = static_cast<float>(state[e]);
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_gdn_backward(float* dq, float* dk, float* dv, float* dg, float* dbeta, float* d_initial,
                                      float*, const float* d_o, const float* d_final, const float* q, const float* k,
                                      const float* v, const float* g, const float* beta, const float* initial_state,
                                      const int32_t* seq_start, int32_t S, int32_t N, int32_t Hk, int32_t Hv,
                                      int32_t Dk, int32_t Dv, float scale) {
  const Inputs in{q, k, v, g, beta};
  GRAFT_TRY(check("gdn_backward", in, seq_start, S, N, Hk, Hv, Dk, Dv));
  const Shape shape{Hk, Hv, Dk, Dv, scale};
  const int64_t keys = static_cast<int64_t>(N) * Hk * Dk;
  Gradients grad{std::vector<double>(keys, 0.0), std::vector<double>(keys, 0.0), dv, dg, dbeta};
  for (int64_t i = 0; i < static_cast<int64_t>(S) * Hv; i++) {
    auto G = first_state(d_final, i, shape.state());
    backward(grad, G, d_o, in, first_state(initial_state, i, shape.state()), shape, i % Hv, seq_start[i / Hv],
             seq_start[i / Hv + 1]);
    for (int64_t e = 0; d_initial != nullptr && e < shape.state(); e++)
      d_initial[i * shape.state() + e] = static_cast<float>(G[e]);
  }
  for (int64_t i = 0; i < keys; i++) {
    dq[i] = static_cast<float>(grad.dq[i]);
    dk[i] = static_cast<float>(grad.dk[i]);
  }
  return GRAFT_OK;
}
