// How a slot of gated linear attention lies in memory: position, then per key/value head k and b [block, Dk] in float32
// (b: sums of log decays), S0 [Dk, Dv] and v [block, Dv] in the state's type.
#pragma once
#include "recurrent.h"

namespace graft::gpu {

struct GlaShape {
  int32_t Hq, Hkv, Dk, Dv, block;

  __host__ __device__ int64_t row_floats() const { return line(static_cast<int64_t>(block) * Dk); }
  template <class T>
  __host__ __device__ int64_t head_floats() const {
    return 2 * row_floats() + floats_of<T>(static_cast<int64_t>(Dk + block) * Dv);
  }
  template <class T>
  __host__ __device__ int64_t slot_floats() const {
    return kHeader + Hkv * head_floats<T>();
  }
  /// Query heads of one key/value head.
  __host__ __device__ int32_t group() const { return Hq / Hkv; }
};

template <class T>
struct GlaHead {
  float *k, *b;
  T *state, *v;
};

template <class T>
__device__ __forceinline__ GlaHead<T> head_of(const GlaShape& shape, float* slot, int32_t h) {
  float* at = slot + kHeader + h * shape.head_floats<T>();
  T* state = reinterpret_cast<T*>(at + 2 * shape.row_floats());
  return {at, at + shape.row_floats(), state, state + static_cast<int64_t>(shape.Dk) * shape.Dv};
}

}  // namespace graft::gpu
