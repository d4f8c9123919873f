// Gated linear attention, serving form. Inside a block of tokens, with b_t the sum of log decays up to row t:
//   o_t = (scale q_t ⊙ e^{b_t})ᵀ S0 + sum_{s<=t} P_ts v_s,   P_ts = sum_c scale q_t[c] k_s[c] e^{b_t[c] - b_s[c]}
// and when it is full  S0 <- e^{b} ⊙ S0 + sum_s (k_s ⊙ e^{b - b_s}) v_sᵀ. No exponent is above 0.
#include "gla_slot.h"

namespace graft::gpu {
namespace {

struct Gla {
  Sequences sequences;
  float* o;
  const float *q, *k, *v, *a;
  int32_t Hq, Hkv, Dk, Dv, columns;
  float scale;
  /// Rows k and b of every block of threads of its own, where several share a head; else null: they are the slot's.
  float* copies;

  __host__ __device__ GlaShape shape() const { return {Hq, Hkv, Dk, Dv, sequences.block}; }
};

template <class T>
using Head = GlaHead<T>;
template <class T>
__device__ Head<T> head_of(const Gla& call, float* slot, int32_t h) {
  return graft::gpu::head_of<T>(call.shape(), slot, h);
}

/// Floats of shared memory: weights of S0, weights of v, sums by part (room for kParts rows of keys as well).
struct Layout {
  int32_t weights, products, partial;
};
__host__ __device__ inline Layout layout_of(const Gla& call, int32_t rows) {
  const int32_t G = call.Hq / call.Hkv, vectors = min(kVectors, rows * G);
  return {rows * G * call.Dk, rows * G * call.sequences.block, max(vectors * kParts * call.columns, kParts * call.Dk)};
}

/// Rows r0.. of a block, `count` of them: token `first` is the first of the run.
template <class T>
__device__ void take_run(const Gla& call, const Head<T>& head, int32_t h, int32_t first_column, int32_t r0,
                         int32_t count, int64_t first, float* weights, float* products, float* partial) {
  const int32_t G = call.Hq / call.Hkv, Dk = call.Dk, Dv = call.Dv, columns = call.columns,
                block = call.sequences.block;
  const int32_t warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp, lane = threadIdx.x % kWarp;
  for (int32_t c = threadIdx.x; c < Dk; c += blockDim.x) {
    float b = r0 == 0 ? 0.0f : head.b[(r0 - 1) * Dk + c];
    for (int32_t i = 0; i < count; i++) {
      const int64_t from = ((first + i) * call.Hkv + h) * Dk + c;
      b = i + r0 == 0 ? call.a[from] : b + call.a[from];
      head.b[(r0 + i) * Dk + c] = b;
      head.k[(r0 + i) * Dk + c] = call.k[from];
      for (int32_t g = 0; g < G; g++)
        weights[(i * G + g) * Dk + c] = call.scale * call.q[((first + i) * call.Hq + h * G + g) * Dk + c] * expf(b);
    }
  }
  for (int32_t at = threadIdx.x; at < count * columns; at += blockDim.x) {
    const int32_t i = at / columns, column = first_column + at % columns;
    head.v[static_cast<int64_t>(r0 + i) * Dv + column] = narrow<T>(call.v[((first + i) * call.Hkv + h) * Dv + column]);
  }
  __syncthreads();
  for (int32_t pair = warp; pair < count * (r0 + count); pair += warps) {
    const int32_t i = pair / (r0 + count), s = pair % (r0 + count), t = r0 + i;
    if (s > t) continue;
    for (int32_t g = 0; g < G; g++) {
      const float* q = call.q + ((first + i) * call.Hq + h * G + g) * Dk;
      float sum = 0;
      for (int32_t c = lane; c < Dk; c += kWarp)
        sum = fmaf(call.scale * q[c], head.k[s * Dk + c] * expf(head.b[t * Dk + c] - head.b[s * Dk + c]), sum);
      sum = warp_sum(sum);
      if (lane == 0) products[(i * G + g) * block + s] = sum;
    }
  }
  __syncthreads();
  for (int32_t vector = 0; vector < count * G; vector += kVectors) {
    const int32_t some = min(kVectors, count * G - vector);
    read_state(partial, weights + vector * Dk, Dk, products + vector * block, block, head.state + first_column,
               head.v + first_column, Dk, Dv, columns, some, [&](int32_t i) { return r0 + (vector + i) / G + 1; });
    __syncthreads();
    for (int32_t at = threadIdx.x; at < some * columns; at += blockDim.x) {
      const int32_t i = (vector + at / columns) / G, g = (vector + at / columns) % G, column = at % columns;
      call.o[((first + i) * call.Hq + h * G + g) * Dv + first_column + column] =
          sum_parts(partial, at / columns, column, columns);
    }
    __syncthreads();
  }
}

/// grid: slices of columns, kv heads, sequences
template <class T>
__global__ void __launch_bounds__(512) gla(Gla call, int32_t run) {
  const Sequences& sequences = call.sequences;
  const int32_t first_column = blockIdx.x * call.columns, h = blockIdx.y, s = blockIdx.z;
  const int32_t begin = sequences.seq_start[s], count = sequences.seq_start[s + 1] - begin,
                start = sequences.start_pos[s];
  if (count == 0) return;
  Head<T> head = head_of<T>(call, sequences.slot(s), h);
  if (call.copies != nullptr) {
    float* own = call.copies +
                 ((static_cast<int64_t>(s) * call.Hkv + h) * gridDim.x + blockIdx.x) * 2 * call.shape().row_floats();
    const int32_t known = start % sequences.block * call.Dk;
    for (int32_t at = threadIdx.x; at < known; at += blockDim.x) {
      own[at] = head.k[at];
      own[call.shape().row_floats() + at] = head.b[at];
    }
    head.k = own;
    head.b = own + call.shape().row_floats();
  }
  if (start == 0) clear_state(head.state + first_column, call.Dk, call.Dv, call.columns);
  const Layout layout = layout_of(call, run);
  float *weights = shared<float>(), *products = weights + layout.weights, *partial = products + layout.products;
  __syncthreads();
  for (int32_t i = 0; i < count;) {
    const int32_t r0 = (start + i) % sequences.block, some = min(min(run, sequences.block - r0), count - i);
    take_run(call, head, h, first_column, r0, some, begin + i, weights, products, partial);
    if (r0 + some == sequences.block) {
      const float* last = head.b + (sequences.block - 1) * call.Dk;
      T* state = head.state + first_column;
      advance_state(
          state, call.Dv, state, head.v + first_column, call.Dk, call.Dv, call.columns, sequences.block, partial,
          [&](int32_t c) { return expf(last[c]); },
          [&](int32_t row, int32_t c) {
            return head.k[row * call.Dk + c] * expf(last[c] - head.b[row * call.Dk + c]);
          });
      __syncthreads();
    }
    i += some;
  }
  if (call.copies == nullptr && h == 0 && threadIdx.x == 0) move_position(sequences, s);
}

/// After slices: the rows of the last block go to the slot; grid: kv heads, sequences
template <class T>
__global__ void keep_rows(Gla call, int32_t slices) {
  const Sequences& sequences = call.sequences;
  const int32_t h = blockIdx.x, s = blockIdx.y, count = sequences.seq_start[s + 1] - sequences.seq_start[s];
  if (count == 0) return;
  const Head<T> head = head_of<T>(call, sequences.slot(s), h);
  const float* own = call.copies + (static_cast<int64_t>(s) * call.Hkv + h) * slices * 2 * call.shape().row_floats();
  const int32_t known = (sequences.start_pos[s] + count) % sequences.block * call.Dk;
  for (int32_t at = threadIdx.x; at < known; at += blockDim.x) {
    head.k[at] = own[at];
    head.b[at] = own[call.shape().row_floats() + at];
  }
  if (h == 0 && threadIdx.x == 0) move_position(sequences, s);
}

/// grid: kv heads
template <class T>
__global__ void read_slot(Gla call, float* recurrent, int32_t position) {
  const int32_t h = blockIdx.x, count = position % call.sequences.block;
  if (position_of(call.sequences.state) != position) {
    if (h == 0 && threadIdx.x == 0)
      complain(call.sequences.report, kPosition, 0, position, position_of(call.sequences.state));
    return;
  }
  const Head<T> head = head_of<T>(call, call.sequences.state, h);
  const float* last = head.b + (count - 1) * call.Dk;
  for (int32_t first = 0; first < call.Dv; first += call.columns) {
    advance_state(
        recurrent + static_cast<int64_t>(h) * call.Dk * call.Dv + first, call.Dv, head.state + first, head.v + first,
        call.Dk, call.Dv, call.columns, count, shared<float>(),
        [&](int32_t c) { return count == 0 ? 1.0f : expf(last[c]); },
        [&](int32_t row, int32_t c) { return head.k[row * call.Dk + c] * expf(last[c] - head.b[row * call.Dk + c]); });
  }
}

template <class T>
int32_t serve(Gla call) {
  const Sequences& sequences = call.sequences;
  const bool one_each = sequences.N == sequences.S;
  call.columns = columns_of(call.Dv, one_each);
  const int32_t slices = call.Dv / call.columns, run = one_each ? 1 : kRun;
  if (slices > 1) {
    const uint64_t floats = static_cast<uint64_t>(sequences.S) * call.Hkv * slices * 2 * call.shape().row_floats();
    call.copies = static_cast<float*>(workspace(floats * sizeof(float)));
    if (call.copies == nullptr) return GRAFT_OUT_OF_MEMORY;
  }
  const Layout layout = layout_of(call, run);
  const size_t bytes = (layout.weights + layout.products + layout.partial) * sizeof(float);
  GRAFT_LAUNCH(gla<T>, dim3(slices, call.Hkv, sequences.S), threads_for(call.columns), bytes, call, run);
  if (slices > 1) GRAFT_LAUNCH(keep_rows<T>, dim3(call.Hkv, sequences.S), kThreads, 0, call, slices);
  return launched("gla");
}

Gla shape_of(int32_t Hkv, int32_t Dk, int32_t Dv, int32_t block) {
  Gla call{};
  call.Hq = call.Hkv = Hkv;
  call.Dk = Dk;
  call.Dv = Dv;
  call.columns = columns_of(Dv, true);
  call.sequences.block = block;
  return call;
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" double graft_gla_state_floats(int32_t Hkv, int32_t Dk, int32_t Dv, int32_t block, int32_t state_dtype) {
  const GlaShape shape{Hkv, Hkv, Dk, Dv, block};
  return static_cast<double>(state_dtype == GRAFT_BF16 ? shape.slot_floats<bf16_bits>() : shape.slot_floats<float>());
}

extern "C" int32_t graft_gla(float* o, float* state, const float* q, const float* k, const float* v, const float* a,
                             const int32_t* slots, const int32_t* seq_start, const int32_t* start_pos, int32_t S,
                             int32_t N, int32_t Hq, int32_t Hkv, int32_t Dk, int32_t Dv, int32_t block,
                             int32_t state_dtype, uint64_t state_stride, float scale) {
  GRAFT_TRY(check_sizes("gla", Hq, Hkv, Dk, Dv));
  GRAFT_CHECK(o && q && k && v && a, "gla: a pointer is null");
  const Gla call{{state, slots, seq_start, start_pos, S, N, block, state_stride, report()},
                 o,
                 q,
                 k,
                 v,
                 a,
                 Hq,
                 Hkv,
                 Dk,
                 Dv,
                 Dv,
                 scale,
                 nullptr};
  GRAFT_TRY(check_call("gla", call.sequences, graft_gla_state_floats(Hkv, Dk, Dv, block, state_dtype), state_dtype));
  if (S == 0 || N == 0) return GRAFT_OK;
  return state_dtype == GRAFT_BF16 ? serve<bf16_bits>(call) : serve<float>(call);
}

extern "C" int32_t graft_gla_state_read(float* recurrent, const float* slot_state, int32_t Hkv, int32_t Dk, int32_t Dv,
                                        int32_t block, int32_t state_dtype, int32_t position) {
  GRAFT_TRY(check_sizes("gla_state_read", Hkv, Hkv, Dk, Dv));
  if (position == 0) return graft_zero(recurrent, sizeof(float) * Hkv * Dk * Dv);
  Gla call = shape_of(Hkv, Dk, Dv, block);
  call.sequences.state = const_cast<float*>(slot_state);
  call.sequences.report = report();
  const size_t bytes = kParts * Dk * sizeof(float);
  if (state_dtype == GRAFT_BF16)
    GRAFT_LAUNCH(read_slot<bf16_bits>, dim3(Hkv), threads_for(call.columns), bytes, call, recurrent, position);
  else
    GRAFT_LAUNCH(read_slot<float>, dim3(Hkv), threads_for(call.columns), bytes, call, recurrent, position);
  return wait("gla_state_read");
}
