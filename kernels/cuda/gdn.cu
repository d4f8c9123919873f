// Gated delta rule (GDN and JetBlock), serving form. Inside a block of tokens, with b_t the sum of log decays up to row
// t:
//   u_t = beta_t (v_t - e^{b_t} k_tᵀ S0 - sum_{s<t} e^{b_t - b_s} (k_t·k_s) u_s)
//   o_t = scale (e^{b_t} q_tᵀ S0 + sum_{s<=t} e^{b_t - b_s} (q_t·k_s) u_s)
// and when it is full  S0 <- e^{b} S0 + sum_s e^{b - b_s} k_s u_sᵀ.
#include "gdn_slot.h"

namespace graft::gpu {
namespace {

struct Gdn {
  Sequences sequences;
  float* o;
  const float *q, *k, *v, *g, *beta;
  int32_t Hk, Hv, Dk, Dv, columns;
  float scale;
  /// Keys and b of every block of threads of its own, where several share a head; else null: they are the slot's.
  float* copies;

  __host__ __device__ GdnShape shape() const { return {Hk, Hv, Dk, Dv, sequences.block}; }
};

template <class T>
using Head = GdnHead<T>;
template <class T>
__device__ Head<T> head_of(const Gdn& call, float* slot, int32_t j) {
  return graft::gpu::head_of<T>(call.shape(), slot, j);
}

constexpr int32_t kRows = kVectors / 2;  // of a run: each reads S0 with its key and its query

/// Floats of shared memory: k and scale q, their products with the block's keys, sums by part (room for kParts rows of
/// keys as well), and u as it is kept.
struct Layout {
  int32_t vectors, products, partial;
};
__host__ __device__ inline Layout layout_of(const Gdn& call) {
  return {kVectors * call.Dk, kVectors * call.sequences.block, max(kVectors * kParts * call.columns, kParts * call.Dk)};
}

/// Rows r0.. of a block, `count` <= kRows of them: token `first` is the first of the run.
template <class T>
__device__ void take_run(const Gdn& call, const Head<T>& head, int32_t j, int32_t first_column, int32_t r0,
                         int32_t count, int64_t first, float* vectors, float* products, float* partial) {
  const int32_t Dk = call.Dk, Dv = call.Dv, columns = call.columns, block = call.sequences.block;
  const int32_t h = j / (call.Hv / call.Hk), warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  if (threadIdx.x == 0) {
    float b = r0 == 0 ? 0.0f : head.b[r0 - 1];
    for (int32_t i = 0; i < count; i++) {
      const float g = call.g[(first + i) * call.Hv + j];
      b = i + r0 == 0 ? g : b + g;
      head.b[r0 + i] = b;
    }
  }
  // Vector 2i is row i's key as it is kept, 2i + 1 its query times scale.
  for (int32_t at = threadIdx.x; at < count * Dk; at += blockDim.x) {
    const int32_t i = at / Dk, c = at % Dk;
    const int64_t from = ((first + i) * call.Hk + h) * Dk + c;
    const T key = narrow<T>(call.k[from]);
    head.keys[(r0 + i) * Dk + c] = key;
    vectors[2 * i * Dk + c] = widen(key);
    vectors[(2 * i + 1) * Dk + c] = call.scale * call.q[from];
  }
  __syncthreads();
  for (int32_t pair = warp; pair < 2 * count * (r0 + count); pair += warps) {
    const int32_t vector = pair / (r0 + count), s = pair % (r0 + count), t = r0 + vector / 2;
    if (s > t) continue;
    const float dot = warp_dot(vectors + vector * Dk, head.keys + static_cast<int64_t>(s) * Dk, Dk);
    if (threadIdx.x % kWarp == 0) products[vector * block + s] = dot * expf(head.b[t] - head.b[s]);
  }
  read_state<T>(partial, vectors, Dk, nullptr, 0, head.state + first_column, nullptr, Dk, Dv, columns, 2 * count,
                [](int32_t) { return 0; });
  __syncthreads();
  // One thread a column: the substitution runs down the rows, and the outputs follow it.
  for (int32_t column = threadIdx.x; column < columns; column += blockDim.x) {
    T* u = head.u + first_column + column;
    for (int32_t i = 0; i < count; i++) {
      const int32_t t = r0 + i;
      const int64_t row = (first + i) * call.Hv + j;
      const float decay = expf(head.b[t]);
      float w = call.v[row * Dv + first_column + column] - decay * sum_parts(partial, 2 * i, column, columns);
      for (int32_t s = 0; s < t; s++) w = fmaf(-products[2 * i * block + s], widen(u[static_cast<int64_t>(s) * Dv]), w);
      u[static_cast<int64_t>(t) * Dv] = narrow<T>(call.beta[row] * w);
      float o = decay * sum_parts(partial, 2 * i + 1, column, columns);
      for (int32_t s = 0; s <= t; s++)
        o = fmaf(products[(2 * i + 1) * block + s], widen(u[static_cast<int64_t>(s) * Dv]), o);
      call.o[row * Dv + first_column + column] = o;
    }
  }
  __syncthreads();
}

/// grid: slices of columns, value heads, sequences
template <class T>
__global__ void __launch_bounds__(512) gdn(Gdn call, int32_t run) {
  const Sequences& sequences = call.sequences;
  const int32_t first_column = blockIdx.x * call.columns, j = blockIdx.y, s = blockIdx.z;
  const int32_t begin = sequences.seq_start[s], count = sequences.seq_start[s + 1] - begin,
                start = sequences.start_pos[s];
  if (count == 0) return;
  Head<T> head = head_of<T>(call, sequences.slot(s), j);
  if (call.copies != nullptr) {
    const int64_t floats = call.shape().key_floats<T>() + call.shape().decay_floats();
    float* own = call.copies + ((static_cast<int64_t>(s) * call.Hv + j) * gridDim.x + blockIdx.x) * floats;
    T* own_keys = reinterpret_cast<T*>(own);
    float* own_b = own + call.shape().key_floats<T>();
    const int32_t known = start % sequences.block;
    for (int32_t at = threadIdx.x; at < known * call.Dk; at += blockDim.x) own_keys[at] = head.keys[at];
    for (int32_t at = threadIdx.x; at < known; at += blockDim.x) own_b[at] = head.b[at];
    head.keys = own_keys;
    head.b = own_b;
  }
  if (start == 0) clear_state(head.state + first_column, call.Dk, call.Dv, call.columns);
  const Layout layout = layout_of(call);
  float *vectors = shared<float>(), *products = vectors + layout.vectors, *partial = products + layout.products;
  __syncthreads();
  for (int32_t i = 0; i < count;) {
    const int32_t r0 = (start + i) % sequences.block, some = min(min(run, sequences.block - r0), count - i);
    take_run(call, head, j, first_column, r0, some, begin + i, vectors, products, partial);
    if (r0 + some == sequences.block) {
      const float last = head.b[sequences.block - 1];
      T* state = head.state + first_column;
      advance_state(
          state, call.Dv, state, head.u + first_column, call.Dk, call.Dv, call.columns, sequences.block, partial,
          [&](int32_t) { return expf(last); },
          [&](int32_t row, int32_t c) { return widen(head.keys[row * call.Dk + c]) * expf(last - head.b[row]); });
      __syncthreads();
    }
    i += some;
  }
  if (call.copies == nullptr && j == 0 && threadIdx.x == 0) move_position(sequences, s);
}

/// After the heads: the rows of the last block go from the first copy of each head to the slot; grid: value heads,
/// sequences
template <class T>
__global__ void keep_rows(Gdn call, int32_t slices) {
  const Sequences& sequences = call.sequences;
  const int32_t j = blockIdx.x, s = blockIdx.y, count = sequences.seq_start[s + 1] - sequences.seq_start[s];
  if (count == 0) return;
  const Head<T> head = head_of<T>(call, sequences.slot(s), j);
  const int64_t floats = call.shape().key_floats<T>() + call.shape().decay_floats();
  const float* own = call.copies + (static_cast<int64_t>(s) * call.Hv + j) * slices * floats;
  const T* own_keys = reinterpret_cast<const T*>(own);
  const int32_t known = (sequences.start_pos[s] + count) % sequences.block;
  for (int32_t at = threadIdx.x; at < known; at += blockDim.x) head.b[at] = own[call.shape().key_floats<T>() + at];
  if (j % (call.Hv / call.Hk) == 0)
    for (int32_t at = threadIdx.x; at < known * call.Dk; at += blockDim.x) head.keys[at] = own_keys[at];
  if (j == 0 && threadIdx.x == 0) move_position(sequences, s);
}

/// grid: value heads
template <class T>
__global__ void read_slot(Gdn call, float* recurrent, int32_t position) {
  const int32_t j = blockIdx.x, count = position % call.sequences.block;
  if (position_of(call.sequences.state) != position) {
    if (j == 0 && threadIdx.x == 0)
      complain(call.sequences.report, kPosition, 0, position, position_of(call.sequences.state));
    return;
  }
  const Head<T> head = head_of<T>(call, call.sequences.state, j);
  const float last = count == 0 ? 0.0f : head.b[count - 1];
  for (int32_t first = 0; first < call.Dv; first += call.columns) {
    advance_state(
        recurrent + static_cast<int64_t>(j) * call.Dk * call.Dv + first, call.Dv, head.state + first, head.u + first,
        call.Dk, call.Dv, call.columns, count, shared<float>(), [&](int32_t) { return expf(last); },
        [&](int32_t row, int32_t c) { return widen(head.keys[row * call.Dk + c]) * expf(last - head.b[row]); });
  }
}

template <class T>
int32_t serve(Gdn call) {
  const Sequences& sequences = call.sequences;
  const bool one_each = sequences.N == sequences.S;
  call.columns = columns_of(call.Dv, one_each);
  const int32_t slices = call.Dv / call.columns, run = one_each ? 1 : kRows;
  // Value heads that share keys cannot write them in place either.
  const bool shared_rows = slices > 1 || call.Hv > call.Hk;
  if (shared_rows) {
    const uint64_t floats = static_cast<uint64_t>(sequences.S) * call.Hv * slices *
                            (call.shape().key_floats<T>() + call.shape().decay_floats());
    call.copies = static_cast<float*>(workspace(floats * sizeof(float)));
    if (call.copies == nullptr) return GRAFT_OUT_OF_MEMORY;
  }
  const Layout layout = layout_of(call);
  const size_t bytes = (layout.vectors + layout.products + layout.partial) * sizeof(float);
  GRAFT_LAUNCH(gdn<T>, dim3(slices, call.Hv, sequences.S), threads_for(call.columns), bytes, call, run);
  if (shared_rows) GRAFT_LAUNCH(keep_rows<T>, dim3(call.Hv, sequences.S), kThreads, 0, call, slices);
  return launched("gdn");
}

Gdn shape_of(int32_t Hk, int32_t Hv, int32_t Dk, int32_t Dv, int32_t block) {
  Gdn call{};
  call.Hk = Hk;
  call.Hv = Hv;
  call.Dk = Dk;
  call.Dv = Dv;
  call.columns = columns_of(Dv, true);
  call.sequences.block = block;
  return call;
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" double graft_gdn_state_floats(int32_t Hk, int32_t Hv, int32_t Dk, int32_t Dv, int32_t block,
                                         int32_t state_dtype) {
  const GdnShape shape{Hk, Hv, Dk, Dv, block};
  return static_cast<double>(state_dtype == GRAFT_BF16 ? shape.slot_floats<bf16_bits>() : shape.slot_floats<float>());
}

extern "C" int32_t graft_gdn(float* o, float* state, const float* q, const float* k, const float* v, const float* g,
                             const float* beta, const int32_t* slots, const int32_t* seq_start,
                             const int32_t* start_pos, int32_t S, int32_t N, int32_t Hk, int32_t Hv, int32_t Dk,
                             int32_t Dv, int32_t block, int32_t state_dtype, uint64_t state_stride, float scale) {
  GRAFT_TRY(check_sizes("gdn", Hv, Hk, Dk, Dv));
  GRAFT_CHECK(o && q && k && v && g && beta, "gdn: a pointer is null");
  const Gdn call{{state, slots, seq_start, start_pos, S, N, block, state_stride, report()},
                 o,
                 q,
                 k,
                 v,
                 g,
                 beta,
                 Hk,
                 Hv,
                 Dk,
                 Dv,
                 Dv,
                 scale,
                 nullptr};
  GRAFT_TRY(check_call("gdn", call.sequences, graft_gdn_state_floats(Hk, Hv, Dk, Dv, block, state_dtype), state_dtype));
  if (S == 0 || N == 0) return GRAFT_OK;
  return state_dtype == GRAFT_BF16 ? serve<bf16_bits>(call) : serve<float>(call);
}

extern "C" int32_t graft_gdn_state_read(float* recurrent, const float* slot_state, int32_t Hk, int32_t Hv, int32_t Dk,
                                        int32_t Dv, int32_t block, int32_t state_dtype, int32_t position) {
  GRAFT_TRY(check_sizes("gdn_state_read", Hv, Hk, Dk, Dv));
  if (position == 0) return graft_zero(recurrent, sizeof(float) * Hv * Dk * Dv);
  Gdn call = shape_of(Hk, Hv, Dk, Dv, block);
  call.sequences.state = const_cast<float*>(slot_state);
  call.sequences.report = report();
  const size_t bytes = kParts * Dk * sizeof(float);
  if (state_dtype == GRAFT_BF16)
    GRAFT_LAUNCH(read_slot<bf16_bits>, dim3(Hv), threads_for(call.columns), bytes, call, recurrent, position);
  else
    GRAFT_LAUNCH(read_slot<float>, dim3(Hv), threads_for(call.columns), bytes, call, recurrent, position);
  return wait("gdn_state_read");
}
