// How a slot of the gated delta rule lies in memory: position, then per key head its keys [block, Dk], per value head
// b [block] (sums of log decays), S0 [Dk, Dv] and u [block, Dv]; keys, S0 and u in the state's type.
#pragma once
#include "recurrent.h"

namespace graft::gpu {

struct GdnShape {
  int32_t Hk, Hv, Dk, Dv, block;

  template <class T>
  __host__ __device__ int64_t key_floats() const {
    return floats_of<T>(static_cast<int64_t>(block) * Dk);
  }
  __host__ __device__ int64_t decay_floats() const { return line(block); }
  template <class T>
  __host__ __device__ int64_t head_floats() const {
    return decay_floats() + floats_of<T>(static_cast<int64_t>(Dk + block) * Dv);
  }
  template <class T>
  __host__ __device__ int64_t slot_floats() const {
    return kHeader + Hk * key_floats<T>() + Hv * head_floats<T>();
  }
  /// Value heads of one key head.
  __host__ __device__ int32_t group() const { return Hv / Hk; }
};

template <class T>
struct GdnHead {
  T* keys;
  float* b;
  T *state, *u;
};

/// Value head j. Heads of one key head have its keys in common, so only the first of them writes the slot's.
template <class T>
__device__ __forceinline__ GdnHead<T> head_of(const GdnShape& shape, float* slot, int32_t j) {
  float* at = slot + kHeader + shape.Hk * shape.key_floats<T>() + j * shape.head_floats<T>();
  T* state = reinterpret_cast<T*>(at + shape.decay_floats());
  return {reinterpret_cast<T*>(slot + kHeader + j / shape.group() * shape.key_floats<T>()), at, state,
          state + static_cast<int64_t>(shape.Dk) * shape.Dv};
}

}  // namespace graft::gpu
