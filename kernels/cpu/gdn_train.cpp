// Gated delta rule, training form, forward. Runs of 16 tokens are the unit of arithmetic (gdn.h with blocks of 16).
// States are kept every 64 tokens in the workspace for the backward pass, and so are the solved rows w. One task = one
// value head of one sequence.
#include "gdn_train.h"

#include "threads.h"

using namespace graft;
using gdn::kChunk;
using gdn::kRun;
using gdn::Train;

namespace {

struct Forward {
  float *o, *final_state;
  const float* initial_state;
};

void forward_head(const Train& call, const Forward& out, int64_t s, int64_t j, int thread) {
  const gdn::Shape& shape = call.shape;
  const int64_t first = call.seq_start[s], T = call.seq_start[s + 1] - first, h = j / (call.Hv / call.Hk);
  const int64_t elements = static_cast<int64_t>(shape.Dk) * shape.Dv, index = s * call.Hv + j;
  const int width = shape.width(), columns = shape.columns();
  const int64_t own = shape.key_floats<float>() + shape.head_floats<float>();
  const int64_t total = gdn::Scratch(shape, Scratch(nullptr)).total + own;
  float* memory = static_cast<float*>(thread_scratch(thread, 0, total * sizeof(float)));
  std::fill_n(memory, own, 0.f);
  float* keys = memory;
  const gdn::Head<float> head(memory + shape.key_floats<float>(), shape);
  const gdn::Scratch scratch(shape, Scratch(memory + own));
  if (out.initial_state != nullptr)
    copy_padded(head.state, out.initial_state + index * elements, shape.Dv, shape.Dk, shape.Dv);
  for (int64_t i = 0; i < T; i += kRun) {
    if (i % kChunk == 0) transpose(call.chunk_state(s, i / kChunk, j), width, head.state, columns, shape.Dk, columns);
    const int count = static_cast<int>(std::min<int64_t>(kRun, T - i));
    const int64_t key = call.key_at(first + i, h), row = (first + i) * call.Hv + j;
    gdn::take_keys(keys, shape, 0, count, call.q + key, call.k + key, call.Hk * shape.Dk, scratch);
    const gdn::Rows rows{call.v + row * shape.Dv, call.g + row, call.beta + row,
                         out.o + row * shape.Dv,  call.Hv,      call.w(first + i, j)};
    gdn::take_run(head, shape, 0, count, rows, scratch);
    gdn::state_after(head.state, columns, columns, head, keys, shape, count, scratch.scaled_keys, scratch.constant);
  }
  transpose(call.chunk_state(s, (T + kChunk - 1) / kChunk, j), width, head.state, columns, shape.Dk, columns);
  if (out.final_state == nullptr) return;
  for (int c = 0; c < shape.Dk; c++)
    std::copy_n(head.state + c * columns, shape.Dv, out.final_state + index * elements + c * shape.Dv);
}

}  // namespace

extern "C" double graft_gdn_train_floats(int32_t N, int32_t S, int32_t, int32_t Hv, int32_t Dk, int32_t Dv) {
  const double states = (N / kChunk + 2.0 * S + 1) * padded(Dk) * padded(Dv);
  return Hv * (states + static_cast<double>(N) * padded(Dv));
}

extern "C" int32_t graft_gdn_train(float* o, float* final_state, float* workspace, const float* q, const float* k,
                                   const float* v, const float* g, const float* beta, const float* initial_state,
                                   const int32_t* seq_start, int32_t S, int32_t N, int32_t Hk, int32_t Hv, int32_t Dk,
                                   int32_t Dv, float scale) {
  GRAFT_TRY(
      gdn::check_train("gdn_train", seq_start, S, N, Hk, Hv, Dk, Dv,
                       {{"o", o}, {"workspace", workspace}, {"q", q}, {"k", k}, {"v", v}, {"g", g}, {"beta", beta}}));
  const Train call{{Dk, Dv, kRun, scale}, Hk, Hv, N, S, seq_start, q, k, v, g, beta, workspace};
  const Forward out{o, final_state, initial_state};
  parallel(static_cast<int64_t>(S) * Hv,
           [&](int64_t i, int thread) { forward_head(call, out, i / Hv, i % Hv, thread); });
  return GRAFT_OK;
}
