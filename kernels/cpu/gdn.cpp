// Gated delta rule (GDN and JetBlock), serving form: block-anchored recurrence over state slots (arithmetic in gdn.h).
// A slot: 16 floats (the position), the block's keys per query/key head, then per value head what gdn.h names. One task
// = one query/key head of one sequence with its value heads. Traffic of a decoded token and value head: S0 once and on
// average half the block's rows are read; S0 is written once per block. Dk, Dv: multiples of 8 from 8 to 256 (checked).
#include "gdn.h"

#include "grouped.h"
#include "recurrent_checks.h"

using namespace graft;

namespace {

constexpr int64_t kHeader = 16;
constexpr int64_t kTogether = 16;  // query/key heads whose memory is fetched one behind the other

struct Layout {
  gdn::Shape shape;
  int64_t Hk, Hv;
  template <class T>
  int64_t heads_at() const {
    return kHeader + Hk * shape.key_floats<T>();
  }
  template <class T>
  int64_t floats() const {
    return heads_at<T>() + Hv * shape.head_floats<T>();
  }
};

template <class T>
struct Slot {
  const Layout& layout;
  float* memory;
  T* keys(int64_t h) const { return reinterpret_cast<T*>(memory + kHeader + h * layout.shape.key_floats<T>()); }
  gdn::Head<T> head(int64_t j) const {
    const int64_t at = layout.heads_at<T>() + j * layout.shape.head_floats<T>();
    return {memory + at, layout.shape};
  }
};

struct Serve {
  Layout layout;
  float *o, *state;
  const float *q, *k, *v, *g, *beta;
  const int32_t *slots, *seq_start, *start_pos;
  int64_t S;
  uint64_t stride;
};

gdn::Scratch scratch_of(const gdn::Shape& shape, int thread) {
  const int64_t total = gdn::Scratch(shape, Scratch(nullptr)).total;
  return {shape, Scratch(static_cast<float*>(thread_scratch(thread, 0, total * sizeof(float))))};
}

template <class T>
Slot<T> slot_of(const Serve& call, int64_t s) {
  return {call.layout, call.state + static_cast<uint64_t>(call.slots[s]) * call.stride};
}

template <class P>
int64_t bytes_to(const P* to, const P* from) {
  return static_cast<int64_t>(sizeof(P)) * (to - from);
}

/// Value head j of sequence s; with `fetch` it knows where the next one is.
template <class T>
gdn::Head<T> head_of(const Serve& call, int64_t s, int64_t j, bool fetch) {
  gdn::Head<T> head = slot_of<T>(call, s).head(j);
  const int64_t Hv = call.layout.Hv, next = s * Hv + j + 1;
  if (fetch && next < call.S * Hv) head.ahead = bytes_to(slot_of<T>(call, next / Hv).head(next % Hv).decay, head.decay);
  return head;
}

/// One query/key head h of sequence s with its value heads.
template <class T>
void serve_head(const Serve& call, int64_t s, int64_t h, int thread) {
  const gdn::Shape& shape = call.layout.shape;
  const int64_t Hk = call.layout.Hk, Hv = call.layout.Hv, group = Hv / Hk;
  const int64_t first = call.seq_start[s], tokens = call.seq_start[s + 1] - first, next = s * Hk + h + 1;
  const Slot<T> slot = slot_of<T>(call, s);
  T* keys = slot.keys(h);
  const bool fetch = tokens == 1;
  const int64_t ahead = fetch && next < call.S * Hk ? bytes_to(slot_of<T>(call, next / Hk).keys(next % Hk), keys) : 0;
  if (call.start_pos[s] == 0)
    for (int64_t j = h * group; j < (h + 1) * group; j++)
      std::fill_n(slot.head(j).state, static_cast<int64_t>(shape.Dk) * shape.columns(), T{});
  const gdn::Scratch scratch = scratch_of(shape, thread);
  for (int64_t i = 0; i < tokens;) {
    const int r0 = static_cast<int>((call.start_pos[s] + i) % shape.block);
    const int count = static_cast<int>(std::min<int64_t>({gdn::kRun, shape.block - r0, tokens - i}));
    const int64_t key = ((first + i) * Hk + h) * shape.Dk;
    gdn::take_keys(keys, shape, r0, count, call.q + key, call.k + key, Hk * shape.Dk, scratch, ahead);
    for (int64_t j = h * group; j < (h + 1) * group; j++) {
      const gdn::Head<T> head = head_of<T>(call, s, j, fetch);
      const int64_t row = (first + i) * Hv + j;
      const gdn::Rows rows{call.v + row * shape.Dv, call.g + row, call.beta + row,
                           call.o + row * shape.Dv, Hv,           nullptr};
      gdn::take_run(head, shape, r0, count, rows, scratch);
      if (r0 + count == shape.block)
        gdn::state_after(head.state, shape.columns(), shape.columns(), head, keys, shape, shape.block,
                         scratch.scaled_keys, scratch.constant);
    }
    i += count;
  }
}

template <class T>
void serve(const Serve& call, double cost) {
  const int64_t Hk = call.layout.Hk;
  const auto one = [&](int64_t i, int thread) { serve_head<T>(call, i / Hk, i % Hk, thread); };
  parallel_grouped(call.S * Hk, cost, one, kTogether);
}

template <class T>
void read_slot(float* recurrent, const float* memory, const Layout& layout, int count) {
  const gdn::Shape& shape = layout.shape;
  const Slot<T> slot{layout, const_cast<float*>(memory)};
  const gdn::Scratch scratch = scratch_of(shape, 0);
  for (int64_t j = 0; j < layout.Hv; j++)
    gdn::state_after(recurrent + j * shape.Dk * shape.Dv, shape.Dv, shape.Dv, slot.head(j),
                     slot.keys(j / (layout.Hv / layout.Hk)), shape, count, scratch.scaled_keys, scratch.constant);
}

}  // namespace

extern "C" double graft_gdn_state_floats(int32_t Hk, int32_t Hv, int32_t Dk, int32_t Dv, int32_t block,
                                         int32_t state_dtype) {
  const Layout layout{{Dk, Dv, block, 1}, Hk, Hv};
  return static_cast<double>(state_dtype == GRAFT_BF16 ? layout.floats<bf16>() : layout.floats<float>());
}

extern "C" int32_t graft_gdn(float* o, float* state, const float* q, const float* k, const float* v, const float* g,
                             const float* beta, const int32_t* slots, const int32_t* seq_start,
                             const int32_t* start_pos, int32_t S, int32_t N, int32_t Hk, int32_t Hv, int32_t Dk,
                             int32_t Dv, int32_t block, int32_t state_dtype, uint64_t state_stride, float scale) {
  GRAFT_TRY(check_ragged("gdn", seq_start, S, N));
  GRAFT_TRY(check_heads("gdn", "Hv", Hv, "Hk", Hk, Dk, Dv));
  GRAFT_TRY(check_pointers("gdn", {{"o", o}, {"q", q}, {"k", k}, {"v", v}, {"g", g}, {"beta", beta}}));
  GRAFT_TRY(check_block("gdn", block, state_dtype));
  GRAFT_TRY(check_slots("gdn", state, state_stride, graft_gdn_state_floats(Hk, Hv, Dk, Dv, block, state_dtype), slots,
                        seq_start, start_pos, S));
  const Serve call{
      {{Dk, Dv, block, scale}, Hk, Hv}, o, state, q, k, v, g, beta, slots, seq_start, start_pos, S, state_stride};
  const double cost = static_cast<double>(N) / std::max(S, 1) * Dk * Dv * (Hv / Hk);
  if (state_dtype == GRAFT_BF16)
    serve<bf16>(call, cost);
  else
    serve<float>(call, cost);
  for (int32_t s = 0; s < S; s++) {
    const int32_t T = seq_start[s + 1] - seq_start[s];
    if (T > 0) set_slot_position(state + static_cast<uint64_t>(slots[s]) * state_stride, start_pos[s] + T);
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_gdn_state_read(float* recurrent, const float* slot_state, int32_t Hk, int32_t Hv, int32_t Dk,
                                        int32_t Dv, int32_t block, int32_t state_dtype, int32_t position) {
  GRAFT_TRY(check_heads("gdn_state_read", "Hv", Hv, "Hk", Hk, Dk, Dv));
  GRAFT_TRY(check_block("gdn_state_read", block, state_dtype));
  if (position == 0) {
    std::fill_n(recurrent, static_cast<int64_t>(Hv) * Dk * Dv, 0.f);
    return GRAFT_OK;
  }
  GRAFT_CHECK(slot_position(slot_state) == position, "gdn_state_read: the slot holds the state at position %d, not %d",
              slot_position(slot_state), position);
  const Layout layout{{Dk, Dv, block, 1}, Hk, Hv};
  if (state_dtype == GRAFT_BF16)
    read_slot<bf16>(recurrent, slot_state, layout, position % block);
  else
    read_slot<float>(recurrent, slot_state, layout, position % block);
  return GRAFT_OK;
}
