// Gated linear attention, training form, forward. Runs of 16 tokens are the unit of arithmetic (gla.h with blocks of
// 16: small blocks do the least work inside, and what a block costs outside does not depend on its length). States are
// kept every 64 tokens in the workspace for the backward pass. One task = one key/value head of one sequence with all
// its query heads.
#include "gla_train.h"

#include "threads.h"

using namespace graft;
using gla::kChunk;
using gla::kRun;
using gla::Train;

namespace {

struct Forward {
  float *o, *final_state;
  const float* initial_state;
};

void forward_head(const Train& call, const Forward& out, int64_t s, int64_t h, int thread) {
  const gla::Shape& shape = call.shape;
  const int64_t first = call.seq_start[s], T = call.seq_start[s + 1] - first;
  const int64_t elements = static_cast<int64_t>(shape.Dk) * shape.Dv;
  const int width = shape.width(), columns = shape.columns();
  const auto lay_out = [&](Scratch memory) {
    struct Pieces {
      float *head, *alpha, *scaled, *coefficients;
      int64_t total;
    } p{};
    p.head = memory.floats(shape.head_floats<float>() + VL * columns);  // room for whole vectors of state rows
    p.alpha = memory.floats(width);
    p.scaled = memory.floats(static_cast<int64_t>(shape.G) * width);
    p.coefficients = memory.floats(shape.G * kRun * shape.coefficients());
    p.total = memory.used();
    return p;
  };
  const int64_t total = lay_out(Scratch(nullptr)).total;
  const auto p = lay_out(Scratch(static_cast<float*>(thread_scratch(thread, 0, total * sizeof(float)))));
  const gla::Head<float> head(p.head, shape);
  std::fill_n(head.rows, static_cast<int64_t>(shape.Dk + kRun) * columns, 0.f);
  if (out.initial_state != nullptr)
    copy_padded(head.rows, out.initial_state + (s * call.Hkv + h) * elements, shape.Dv, shape.Dk, shape.Dv);
  for (int64_t i = 0; i < T; i += kRun) {
    if (i % kChunk == 0) transpose(call.chunk_state(s, i / kChunk, h), width, head.rows, columns, shape.Dk, columns);
    const int count = static_cast<int>(std::min<int64_t>(kRun, T - i));
    const int64_t key = (first + i) * call.Hkv + h, query = (first + i) * call.Hq + h * shape.G;
    gla::take_run(head, shape, 0, count, out.o + query * shape.Dv, call.q + query * shape.Dk, call.k + key * shape.Dk,
                  call.v + key * shape.Dv, call.a + key * shape.Dk, {call.Hq, call.Hkv}, p.alpha, p.scaled,
                  p.coefficients);
    gla::advance(head, shape, count);
  }
  transpose(call.chunk_state(s, (T + kChunk - 1) / kChunk, h), width, head.rows, columns, shape.Dk, columns);
  if (out.final_state == nullptr) return;
  float* final_state = out.final_state + (s * call.Hkv + h) * elements;
  for (int c = 0; c < shape.Dk; c++) std::copy_n(head.rows + c * columns, shape.Dv, final_state + c * shape.Dv);
}

}  // namespace

extern "C" double graft_gla_train_floats(int32_t N, int32_t S, int32_t, int32_t Hkv, int32_t Dk, int32_t Dv) {
  return (static_cast<double>(N) / kChunk + 2.0 * S + 1) * Hkv * padded(Dk) * padded(Dv);
}

extern "C" int32_t graft_gla_train(float* o, float* final_state, float* workspace, const float* q, const float* k,
                                   const float* v, const float* a, const float* initial_state, const int32_t* seq_start,
                                   int32_t S, int32_t N, int32_t Hq, int32_t Hkv, int32_t Dk, int32_t Dv, float scale) {
  GRAFT_TRY(gla::check_train("gla_train", seq_start, S, N, Hq, Hkv, Dk, Dv,
                             {{"o", o}, {"workspace", workspace}, {"q", q}, {"k", k}, {"v", v}, {"a", a}}));
  const Train call{{Hq / Hkv, Dk, Dv, kRun, scale}, Hq, Hkv, seq_start, q, k, v, a, workspace};
  const Forward out{o, final_state, initial_state};
  parallel(static_cast<int64_t>(S) * Hkv,
           [&](int64_t i, int thread) { forward_head(call, out, i / Hkv, i % Hkv, thread); });
  return GRAFT_OK;
}
