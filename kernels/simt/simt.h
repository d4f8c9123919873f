// The CUDA language as far as kernels/cuda uses it, for g++: a block's threads run as fibers, one block after another.
// Included in front of every .cu file. Functions marked SIMT_NATIVE see memory that kernels may not touch; all other
// code is compiled with access hooks, by which access.cpp finds out-of-bounds accesses and races on shared memory.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#define GRAFT_SIMT 1
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define SIMT_NATIVE __attribute__((noinline, no_sanitize("thread")))

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

using std::isnan;
using std::max;
using std::min;

namespace simt {

// ---- where a thread stands ----
dim3 thread_index();
dim3 block_index();
dim3 block_size();
dim3 grid_size();

// ---- a block's threads together ----
void barrier();       // __syncthreads
void warp_barrier();  // __syncwarp
constexpr unsigned kLanes = 32, kExchange = 48;
/// Every lane of the warp leaves `bytes` bytes; the result, valid until the next exchange, is lane l's at [l *
/// kExchange].
const unsigned char* exchange(unsigned mask, const void* mine, unsigned bytes);
unsigned lane();
unsigned char* shared_memory();

// ---- asynchronous copies: done only when waited for ----
void copy_async(void* shared, const void* global, unsigned bytes, bool zero);
void copy_commit();
void copy_wait(unsigned groups_left);

// ---- tensor cores: d += a b, m16n8k16 bf16, fragments as in the PTX manual ----
void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]);
void load_matrix_x4(uint32_t r[4], const void* row, bool transposed);

// ---- what blocks and launches say to one another ----
void fence();                                   // __threadfence
void note_atomic(const void* p, size_t bytes);  // before an atomic on p
/// Before it, a kernel that was launched early touches nothing that kernels before it write, and writes nothing.
void grid_wait();     // griddepcontrol.wait
void grid_release();  // griddepcontrol.launch_dependents

// ---- launching ----
/// body(argument) for every thread of every block, where `argument` is a copy of these bytes that the threads may read.
struct Launch {
  const char* kernel;
  dim3 grid, block;
  size_t shared_bytes;
  /// Made to begin before the kernels before it have ended, and whether this launch may.
  bool early, overlaps;
  void (*body)(void*);
  const void* argument;
  size_t bytes;
};
void launch(const Launch& launch);

template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<P...> params;
  static void run(void* self) {
    auto* call = static_cast<Call*>(self);
    std::apply(call->kernel, call->params);
  }
};

template <class... P, class... A>
void launch_any(const char* name, bool early, bool overlaps, void (*kernel)(P...), dim3 grid, dim3 block,
                size_t shared_bytes, A... args) {
  const Call<P...> call{kernel, std::tuple<P...>(static_cast<P>(args)...)};
  static_assert(alignof(Call<P...>) <= 16);
  launch({name, grid, block, shared_bytes, early, overlaps, &Call<P...>::run, &call, sizeof call});
}
template <class K, class... A>
void launch_kernel(const char* name, K kernel, A... args) {
  launch_any(name, false, false, kernel, args...);
}
template <class K, class... A>
void launch_early(const char* name, bool overlaps, K kernel, A... args) {
  launch_any(name, true, overlaps, kernel, args...);
}

template <class T>
SIMT_NATIVE T shuffle(unsigned mask, T value, unsigned from) {
  static_assert(sizeof(T) <= kExchange && std::is_trivially_copyable_v<T>);
  const unsigned char* all = exchange(mask, &value, sizeof value);
  T result;
  std::memcpy(&result, all + (from % kLanes) * kExchange, sizeof result);
  return result;
}

}  // namespace simt

#define threadIdx (::simt::thread_index())
#define blockIdx (::simt::block_index())
#define blockDim (::simt::block_size())
#define gridDim (::simt::grid_size())

inline void __syncthreads() { simt::barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) { simt::warp_barrier(); }
inline void __threadfence() { simt::fence(); }
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return simt::shuffle(mask, value, (simt::lane() & ~(width - 1)) + (from & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with) {
  return simt::shuffle(mask, value, simt::lane() ^ with);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by) {
  const unsigned from = simt::lane() + by;
  return simt::shuffle(mask, value, from < 32 ? from : simt::lane());
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  const unsigned at = simt::lane();
  return simt::shuffle(mask, value, at >= by ? at - by : at);
}
SIMT_NATIVE inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const unsigned char* all = simt::exchange(mask, &predicate, sizeof predicate);
  unsigned bits = 0;
  for (unsigned l = 0; l < 32; l++) {
    int one;
    std::memcpy(&one, all + l * simt::kExchange, sizeof one);
    bits |= unsigned(one != 0) << l;
  }
  return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }

// Threads are fibers of one system thread, so a plain update is atomic.
#define SIMT_ATOMIC(name, update)                           \
  template <class T>                                        \
  SIMT_NATIVE T name(T* p, std::type_identity_t<T> value) { \
    simt::note_atomic(p, sizeof(T));                        \
    const T old = *p;                                       \
    *p = update;                                            \
    return old;                                             \
  }
SIMT_ATOMIC(atomicAdd, old + value)
SIMT_ATOMIC(atomicExch, value)
SIMT_ATOMIC(atomicMax, std::max(old, value))
SIMT_ATOMIC(atomicMin, std::min(old, value))
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicAnd, old& value)
SIMT_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
#undef SIMT_ATOMIC
template <class T>
SIMT_NATIVE T atomicCAS(T* p, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  simt::note_atomic(p, sizeof(T));
  const T old = *p;
  if (old == compare) *p = value;
  return old;
}

inline float __uint_as_float(uint32_t x) { return __builtin_bit_cast(float, x); }
inline uint32_t __float_as_uint(float x) { return __builtin_bit_cast(uint32_t, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t((uint64_t(a) * b) >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcg(T* p, std::type_identity_t<T> value) {
  *p = value;
}
template <class T>
void __stcs(T* p, std::type_identity_t<T> value) {
  *p = value;
}

#include "host_api.h"
