// Gated linear attention, the recurrence itself, token by token in double precision.
//   S_t = diag(e^{a_t}) S_{t-1} + k_t v_tᵀ          [Dk, Dv], one per key/value head
//   o_t = scale S_tᵀ q_t                            for each of the Hq/Hkv query heads of the group
// q: [N, Hq, Dk]; k, a: [N, Hkv, Dk]; v: [N, Hkv, Dv]; o: [N, Hq, Dv]. Backward: the same recurrence in reverse.
#include <algorithm>
#include <cmath>

#include "recurrent_slot.h"

namespace graft {
namespace {

struct Shape {
  int64_t Hq, Hkv, Dk, Dv;
  double scale;
  int64_t group() const { return Hq / Hkv; }
  int64_t state() const { return Dk * Dv; }
};

void advance(std::vector<double>& state, const float* k, const float* v, const float* a, const Shape& shape,
             const Storage& storage = {}) {
  for (int64_t c = 0; c < shape.Dk; c++) {
    const double alpha = std::exp(static_cast<double>(a[c]));
    for (int64_t j = 0; j < shape.Dv; j++) {
      double& element = state[c * shape.Dv + j];
      element = alpha * element + static_cast<double>(k[c]) * storage.round(v[j]);
    }
  }
}

void read_out(float* o, const std::vector<double>& state, const float* q, const Shape& shape) {
  for (int64_t j = 0; j < shape.Dv; j++) {
    double sum = 0;
    for (int64_t c = 0; c < shape.Dk; c++) sum += q[c] * state[c * shape.Dv + j];
    o[j] = static_cast<float>(shape.scale * sum);
  }
}

struct Inputs {
  const float *q, *k, *v, *a;
};

/// Tokens first..last-1 of head h, the first one at `position`.
void run(float* o, std::vector<double>& state, const Inputs& in, const Shape& shape, int64_t h, int64_t first,
         int64_t last, int64_t position = 0, const Storage& storage = {}) {
  for (int64_t t = first; t < last; t++) {
    const int64_t row = t * shape.Hkv + h;
    advance(state, in.k + row * shape.Dk, in.v + row * shape.Dv, in.a + row * shape.Dk, shape, storage);
    for (int64_t g = 0; g < shape.group(); g++) {
      const int64_t query = t * shape.Hq + h * shape.group() + g;
      read_out(o + query * shape.Dv, state, in.q + query * shape.Dk, shape);
    }
    storage.settle(state, position + t - first);
  }
}

int32_t check(const char* op, const Inputs& in, const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv,
              int32_t Dk, int32_t Dv) {
  GRAFT_TRY(check_ragged(op, seq_start, S, N));
  GRAFT_TRY(check_heads(op, "Hq", Hq, "Hkv", Hkv, Dk, Dv));
  return check_pointers(op, {{"q", in.q}, {"k", in.k}, {"v", in.v}, {"a", in.a}});
}

std::vector<double> first_state(const float* initial, int64_t index, int64_t elements) {
  std::vector<double> state(elements, 0.0);
  if (initial != nullptr) std::copy_n(initial + index * elements, elements, state.begin());
  return state;
}

struct Gradients {
  float *dq, *dk, *dv, *da;
};

/// One sequence of one head in reverse. G: gradient of the state after the last token on entry, before the first on
/// exit.
void backward(const Gradients& grad, std::vector<double>& G, const float* d_o, const Inputs& in,
              const std::vector<double>& initial, const Shape& shape, int64_t h, int64_t first, int64_t last) {
  const int64_t Dk = shape.Dk, Dv = shape.Dv;
  std::vector<std::vector<double>> states{initial};  // states[i]: before token first + i
  for (int64_t t = first; t < last; t++) {
    const int64_t row = t * shape.Hkv + h;
    states.push_back(states.back());
    advance(states.back(), in.k + row * Dk, in.v + row * Dv, in.a + row * Dk, shape);
  }
  for (int64_t t = last - 1; t >= first; t--) {
    const int64_t row = t * shape.Hkv + h;
    const auto &after = states[t - first + 1], &before = states[t - first];
    for (int64_t g = 0; g < shape.group(); g++) {
      const int64_t query = t * shape.Hq + h * shape.group() + g;
      for (int64_t c = 0; c < Dk; c++) {
        double sum = 0;
        for (int64_t j = 0; j < Dv; j++) {
          sum += after[c * Dv + j] * d_o[query * Dv + j];
          G[c * Dv + j] += shape.scale * in.q[query * Dk + c] * d_o[query * Dv + j];
        }
        grad.dq[query * Dk + c] = static_cast<float>(shape.scale * sum);
      }
    }
    std::vector<double> dv(Dv, 0.0);
    for (int64_t c = 0; c < Dk; c++) {
      const double alpha = std::exp(static_cast<double>(in.a[row * Dk + c]));
      double dk = 0, da = 0;
      for (int64_t j = 0; j < Dv; j++) {
        double& element = G[c * Dv + j];
        dk += element * in.v[row * Dv + j];
        dv[j] += element * in.k[row * Dk + c];
        da += element * alpha * before[c * Dv + j];
        element *= alpha;
      }
      grad.dk[row * Dk + c] = static_cast<float>(dk);
      grad.da[row * Dk + c] = static_cast<float>(da);
    }
    for (int64_t j = 0; j < Dv; j++) grad.dv[row * Dv + j] = static_cast<float>(dv[j]);
  }
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" double graft_gla_state_floats(int32_t Hkv, int32_t Dk, int32_t Dv, int32_t, int32_t) {
  return slot_floats(static_cast<int64_t>(Hkv) * Dk * Dv);
}

extern "C" int32_t graft_gla(float* o, float* state, const float* q, const float* k, const float* v, const float* a,
                             const int32_t* slots, const int32_t* seq_start, const int32_t* start_pos, int32_t S,
                             int32_t N, int32_t Hq, int32_t Hkv, int32_t Dk, int32_t Dv, int32_t block,
                             int32_t state_dtype, uint64_t state_stride, float scale) {
  const Inputs in{q, k, v, a};
  GRAFT_TRY(check("gla", in, seq_start, S, N, Hq, Hkv, Dk, Dv));
  GRAFT_TRY(check_block("gla", block, state_dtype));
  GRAFT_TRY(check_slots("gla", state, state_stride, graft_gla_state_floats(Hkv, Dk, Dv, block, state_dtype), slots,
                        seq_start, start_pos, S));
  const Shape shape{Hq, Hkv, Dk, Dv, scale};
  for (int32_t s = 0; s < S; s++) {
    const int32_t first = seq_start[s], last = seq_start[s + 1];
    if (first == last) continue;
    float* slot = state + static_cast<uint64_t>(slots[s]) * state_stride;
    for (int32_t h = 0; h < Hkv; h++) {
      auto head = load_state(slot, h * shape.state(), shape.state(), start_pos[s]);
      run(o, head, in, shape, h, first, last, start_pos[s], {state_dtype, block});
      store_state(slot, h * shape.state(), head);
    }
    set_slot_position(slot, start_pos[s] + last - first);
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_gla_state_read(float* recurrent, const float* slot_state, int32_t Hkv, int32_t Dk, int32_t Dv,
                                        int32_t block, int32_t state_dtype, int32_t position) {
  GRAFT_TRY(check_heads("gla_state_read", "Hkv", Hkv, "Hkv", Hkv, Dk, Dv));
  GRAFT_TRY(check_block("gla_state_read", block, state_dtype));
  return read_state("gla_state_read", recurrent, slot_state, static_cast<int64_t>(Hkv) * Dk * Dv, position);
}

extern "C" double graft_gla_train_floats(int32_t, int32_t, int32_t, int32_t, int32_t, int32_t) { return 1; }

extern "C" int32_t graft_gla_train(float* o, float* final_state, float*, const float* q, const float* k, const float* v,
                                   const float* a, const float* initial_state, const int32_t* seq_start, int32_t S,
                                   int32_t N, int32_t Hq, int32_t Hkv, int32_t Dk, int32_t Dv, float scale) {
  const Inputs in{q, k, v, a};
  GRAFT_TRY(check("gla_train", in, seq_start, S, N, Hq, Hkv, Dk, Dv));
  const Shape shape{Hq, Hkv, Dk, Dv, scale};
  for (int64_t i = 0; i < static_cast<int64_t>(S) * Hkv; i++) {
    auto state = first_state(initial_state, i, shape.state());
    run(o, state, in, shape, i % Hkv, seq_start[i / Hkv], seq_start[i / Hkv + 1]);
    for (int64_t e = 0; final_state != nullptr && e < shape.state(); e++)
      final_state[i * shape.state() + e] = static_cast<float>(state[e]);
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_gla_backward(float* dq, float* dk, float* dv, float* da, float* d_initial, float*,
                                      const float* d_o, const float* d_final, const float* q, const float* k,
                                      const float* v, const float* a, const float* initial_state,
                                      const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv,
                                      int32_t Dk, int32_t Dv, float scale) {
  const Inputs in{q, k, v, a};
  GRAFT_TRY(check("gla_backward", in, seq_start, S, N, Hq, Hkv, Dk, Dv));
  const Shape shape{Hq, Hkv, Dk, Dv, scale};
  for (int64_t i = 0; i < static_cast<int64_t>(S) * Hkv; i++) {
    auto G = first_state(d_final, i, shape.state());
    backward({dq, dk, dv, da}, G, d_o, in, first_state(initial_state, i, shape.state()), shape, i % Hkv,
             seq_start[i / Hkv], seq_start[i / Hkv + 1]);
    for (int64_t e = 0; d_initial != nullptr && e < shape.state(); e++)
      d_initial[i * shape.state() + e] = static_cast<float>(G[e]);
  }
  return GRAFT_OK;
}
