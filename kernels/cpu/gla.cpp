// Gated linear attention, serving form: block-anchored recurrence over state slots (arithmetic in gla.h).
// A slot: 16 floats (the position), then per key/value head what gla.h names. One task = one head of one sequence.
// Traffic of a decoded token and head: S0 and on average half the block's rows are read, the key rows written back; S0
// is written once per block. Dk, Dv: multiples of 8 from 8 to 256 (checked).
#include "gla.h"

#include "grouped.h"
#include "recurrent_checks.h"

using namespace graft;

namespace {

constexpr int64_t kHeader = 16;
constexpr int64_t kTogether = 16;  // heads whose memory is fetched one behind the other

struct Serve {
  float *o, *state;
  const float *q, *k, *v, *a;
  const int32_t *slots, *seq_start, *start_pos;
  int64_t Hq, Hkv;
  gla::Shape shape;
  uint64_t stride;
};

/// Memory of task i: head i % Hkv of sequence i / Hkv.
template <class T>
float* memory_of(const Serve& call, int64_t i) {
  float* slot = call.state + static_cast<uint64_t>(call.slots[i / call.Hkv]) * call.stride;
  return slot + kHeader + i % call.Hkv * call.shape.head_floats<T>();
}

template <class T>
void serve_head(const Serve& call, int64_t task, int64_t last, int thread) {
  const gla::Shape& shape = call.shape;
  const int64_t s = task / call.Hkv, h = task % call.Hkv;
  const int64_t first = call.seq_start[s], tokens = call.seq_start[s + 1] - first;
  float* memory = memory_of<T>(call, task);
  gla::Head<T> head(memory, shape);
  if (tokens == 1 && task < last) head.ahead = 4 * (memory_of<T>(call, task + 1) - memory);
  if (call.start_pos[s] == 0) std::fill_n(head.rows, static_cast<int64_t>(shape.Dk) * shape.columns(), T{});
  Scratch sizes(nullptr);
  const int64_t alpha = shape.width(), scaled = static_cast<int64_t>(shape.G) * shape.width();
  const int64_t coefficients = shape.G * gla::kRun * shape.coefficients();
  sizes.floats(alpha + scaled + coefficients);
  float* scratch = static_cast<float*>(thread_scratch(thread, 0, sizes.used() * sizeof(float)));
  for (int64_t i = 0; i < tokens;) {
    const int r0 = static_cast<int>((call.start_pos[s] + i) % shape.block);
    const int count = static_cast<int>(std::min<int64_t>({gla::kRun, shape.block - r0, tokens - i}));
    const int64_t key = (first + i) * call.Hkv + h, query = (first + i) * call.Hq + h * shape.G;
    gla::take_run(head, shape, r0, count, call.o + query * shape.Dv, call.q + query * shape.Dk, call.k + key * shape.Dk,
                  call.v + key * shape.Dv, call.a + key * shape.Dk, {call.Hq, call.Hkv}, scratch, scratch + alpha,
                  scratch + alpha + scaled);
    if (r0 + count == shape.block) gla::advance(head, shape, shape.block);
    i += count;
  }
}

template <class T>
void serve(const Serve& call, int32_t S, double cost) {
  const int64_t tasks = S * call.Hkv;
  parallel_grouped(
      tasks, cost, [&](int64_t i, int thread) { serve_head<T>(call, i, tasks - 1, thread); }, kTogether);
}

template <class T>
void read_slot(float* recurrent, const float* slot, int32_t Hkv, const gla::Shape& shape, int depth) {
  const int64_t elements = static_cast<int64_t>(shape.Dk) * shape.Dv;
  for (int32_t h = 0; h < Hkv; h++) {
    const gla::Head<T> head(const_cast<float*>(slot) + kHeader + h * shape.head_floats<T>(), shape);
    multiply(Product<float, T, T>{.c = recurrent + h * elements,
                                  .ldc = shape.Dv,
                                  .a = head.keys,
                                  .am = 1,
                                  .ak = shape.width(),
                                  .b = head.rows + static_cast<int64_t>(shape.Dk) * shape.columns(),
                                  .ldb = shape.columns(),
                                  .rows = shape.Dk,
                                  .columns = shape.Dv,
                                  .depth = depth,
                                  .init = depth == 0 ? Init::kAdd : Init::kScaleRows,
                                  .scale = head.decay,
                                  .old = head.rows,
                                  .ld_old = shape.columns()});
  }
}

}  // namespace

extern "C" double graft_gla_state_floats(int32_t Hkv, int32_t Dk, int32_t Dv, int32_t block, int32_t state_dtype) {
  const gla::Shape shape{1, Dk, Dv, block, 1};
  return static_cast<double>(
      kHeader + Hkv * (state_dtype == GRAFT_BF16 ? shape.head_floats<bf16>() : shape.head_floats<float>()));
}

extern "C" int32_t graft_gla(float* o, float* state, const float* q, const float* k, const float* v, const float* a,
                             const int32_t* slots, const int32_t* seq_start, const int32_t* start_pos, int32_t S,
                             int32_t N, int32_t Hq, int32_t Hkv, int32_t Dk, int32_t Dv, int32_t block,
                             int32_t state_dtype, uint64_t state_stride, float scale) {
  GRAFT_TRY(check_ragged("gla", seq_start, S, N));
  GRAFT_TRY(check_heads("gla", "Hq", Hq, "Hkv", Hkv, Dk, Dv));
  GRAFT_TRY(check_pointers("gla", {{"o", o}, {"q", q}, {"k", k}, {"v", v}, {"a", a}}));
  GRAFT_TRY(check_block("gla", block, state_dtype));
  GRAFT_TRY(check_slots("gla", state, state_stride, graft_gla_state_floats(Hkv, Dk, Dv, block, state_dtype), slots,
                        seq_start, start_pos, S));
  const Serve call{
      o, state, q, k, v, a, slots, seq_start, start_pos, Hq, Hkv, {Hq / Hkv, Dk, Dv, block, scale}, state_stride};
  const double cost = static_cast<double>(N) / std::max(S, 1) * Dk * Dv * (Hq / Hkv);
  if (state_dtype == GRAFT_BF16)
    serve<bf16>(call, S, cost);
  else
    serve<float>(call, S, cost);
  for (int32_t s = 0; s < S; s++) {
    const int32_t T = seq_start[s + 1] - seq_start[s];
    if (T > 0) set_slot_position(state + static_cast<uint64_t>(slots[s]) * state_stride, start_pos[s] + T);
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_gla_state_read(float* recurrent, const float* slot_state, int32_t Hkv, int32_t Dk, int32_t Dv,
                                        int32_t block, int32_t state_dtype, int32_t position) {
  GRAFT_TRY(check_heads("gla_state_read", "Hkv", Hkv, "Hkv", Hkv, Dk, Dv));
  GRAFT_TRY(check_block("gla_state_read", block, state_dtype));
  if (position == 0) {
    std::fill_n(recurrent, static_cast<int64_t>(Hkv) * Dk * Dv, 0.f);
    return GRAFT_OK;
  }
  GRAFT_CHECK(slot_position(slot_state) == position, "gla_state_read: the slot holds the state at position %d, not %d",
              slot_position(slot_state), position);
  const gla::Shape shape{1, Dk, Dv, block, 1};
  if (state_dtype == GRAFT_BF16)
    read_slot<bf16>(recurrent, slot_state, Hkv, shape, position % block);
  else
    read_slot<float>(recurrent, slot_state, Hkv, shape, position % block);
  return GRAFT_OK;
}
