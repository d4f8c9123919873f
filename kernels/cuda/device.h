// What every .cu file stands on: launching, statuses, bfloat16, warp sums, and the instructions that C++ has no words
// for. nvcc compiles it for the device; with g++ kernels/simt/simt.h stands in for the language.
#pragma once
#if !defined(GRAFT_SIMT)
#include <cuda_runtime.h>
#endif
#include <cstdint>

#include "graft.h"
#include "status.h"

namespace graft::gpu {

constexpr unsigned kWarp = 32, kAll = 0xffffffffu;

/// The one stream that all work of this process goes through. A launch behind what asks for it starts no earlier than
/// that is done.
cudaStream_t stream();

/// What a kernel has to say against its arguments, read by the host after it.
enum Complaint : int32_t { kNone = 0, kIndex, kPosition, kRows };
struct Report {
  int32_t complaint, row, value, limit;
};
/// Where kernels leave it: memory that host and device share.
Report* report();

/// The status of what was launched last: GRAFT_OK, or the launch's error. A kernel's own complaint shows at the next
/// wait() on a device, at once in the emulator.
int32_t launched(const char* op);
/// Waits for all that was launched. GRAFT_INVALID with the first complaint where a kernel made one.
int32_t wait(const char* op);
/// GRAFT_INVALID with the first complaint of what has been waited for.
int32_t complained(const char* op);

#if defined(GRAFT_SIMT)
#define GRAFT_LAUNCH(kernel, grid, block, shared_bytes, ...) \
  (::graft::gpu::stream(), ::simt::launch_kernel(#kernel, kernel, dim3(grid), dim3(block), shared_bytes, __VA_ARGS__))
#else
#define GRAFT_LAUNCH(kernel, grid, block, shared_bytes, ...)                                                     \
  do {                                                                                                           \
    if ((shared_bytes) > 48 * 1024)                                                                              \
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)); \
    kernel<<<grid, block, shared_bytes, ::graft::gpu::stream()>>>(__VA_ARGS__);                                  \
  } while (0)
#endif

// ---- early launches (programmatic dependent launch, compute capability 9.0) ----
// A kernel launched by GRAFT_LAUNCH_EARLY may start while the one before it still runs, to fetch what no kernel
// changes: weights. The rules:
// - Every thread calls depend_wait(), on every path. Before it a thread reads weights (and its parameters) only and
//   writes nothing but registers and shared memory. After it all that earlier launches wrote is there: the kernel
//   before ended only after it had itself waited for its own, and so on.
// - What earlier launches wrote is read by plain loads, never through load_streaming() or __ldg().
// - depend_launch() lets the next kernel start once every block has called it or ended; a block calls it when it has
//   issued its last large load, also before depend_wait(). It says nothing about results: the next kernel waits.
// - Threads, registers and shared memory of both kernels should fit a multiprocessor together (half each), or the next
//   one starts when blocks of this one end.
// - Only a launch right behind another early one starts early: behind GRAFT_LAUNCH, a copy or a replay (all that asks
//   for stream()) it starts when that is done. So a kernel may write weights as long as it is launched plainly.
// It works in recorded graphs. GRAFT_PDL=0 in the environment turns it off.

/// Whether the next launch may start before the one behind which it stands; notes that it is an early one.
bool starts_early();
/// The stream as starts_early() leaves it.
cudaStream_t early_stream();

#if defined(GRAFT_SIMT)
#define GRAFT_LAUNCH_EARLY(kernel, grid, block, shared_bytes, ...)                                           \
  ::simt::launch_early(#kernel, ::graft::gpu::starts_early(), kernel, dim3(grid), dim3(block), shared_bytes, \
                       __VA_ARGS__)
#else
/// Lets a kernel have all of a block's shared memory, and gives early kernels one and the same division of L1 and
/// shared memory: a multiprocessor has to run empty before it changes it.
bool prepare_early(const void* kernel);

template <class... P, class... A>
void launch_early(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, A... args) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.attrs = &early;
  config.numAttrs = starts_early() ? 1 : 0;
  config.stream = early_stream();
  cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
}

#define GRAFT_LAUNCH_EARLY(kernel, grid, block, shared_bytes, ...)                                   \
  do {                                                                                               \
    static const bool prepared = ::graft::gpu::prepare_early(reinterpret_cast<const void*>(kernel)); \
    (void)prepared;                                                                                  \
    ::graft::gpu::launch_early(kernel, grid, block, static_cast<size_t>(shared_bytes), __VA_ARGS__); \
  } while (0)
#endif

/// Waits until all that was launched before is done and seen.
__device__ __forceinline__ void depend_wait() {
#if defined(GRAFT_SIMT)
  simt::grid_wait();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Lets the next kernel start, as far as this block is concerned.
__device__ __forceinline__ void depend_launch() {
#if defined(GRAFT_SIMT)
  simt::grid_release();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#if defined(GRAFT_SIMT)
inline unsigned char* shared_bytes() { return simt::shared_memory(); }
#else
extern __shared__ __align__(16) unsigned char dynamic_shared[];
__device__ __forceinline__ unsigned char* shared_bytes() { return dynamic_shared; }
#endif
/// The block's dynamic shared memory; every kernel lays it out itself.
template <class T>
__device__ __forceinline__ T* shared() {
  return reinterpret_cast<T*>(shared_bytes());
}

/// Says once what is wrong with row `row`; the first complaint stays.
__device__ inline void complain(Report* report, Complaint complaint, int32_t row, int32_t value, int32_t limit) {
  if (atomicCAS(&report->complaint, kNone, static_cast<int>(complaint)) != kNone) return;
  report->row = row;
  report->value = value;
  report->limit = limit;
}

// ---- bfloat16 ----
__device__ __forceinline__ float to_float(uint16_t x) { return __uint_as_float(static_cast<uint32_t>(x) << 16); }
__device__ __forceinline__ float low_float(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_float(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
/// Nearest even; NaN stays NaN.
__device__ __forceinline__ uint16_t to_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}
/// Two numbers in one register, the first in the low half.
__device__ __forceinline__ uint32_t to_bf16_pair(float low, float high) {
#if defined(GRAFT_SIMT)
  return to_bf16(low) | static_cast<uint32_t>(to_bf16(high)) << 16;
#else
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

// ---- a warp together: every lane gets the same bits, because addition of two numbers commutes ----
__device__ __forceinline__ float warp_sum(float x) {
  for (int with = 16; with > 0; with /= 2) x += __shfl_xor_sync(kAll, x, with);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int with = 16; with > 0; with /= 2) x = fmaxf(x, __shfl_xor_sync(kAll, x, with));
  return x;
}

/// The sum over all threads of a block, the same bits in each; `scratch` holds one float per warp and is free again
/// after the next barrier.
__device__ inline float block_sum(float x, float* scratch) {
  const unsigned warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  x = warp_sum(x);
  if (threadIdx.x % kWarp == 0) scratch[warp] = x;
  __syncthreads();
  float sum = 0;
  for (unsigned w = 0; w < warps; w++) sum += scratch[w];
  return sum;
}

// ---- tensor cores and asynchronous copies ----
/// d += a b of one warp: m16n8k16, bfloat16 in, float out; fragments as in the PTX manual.
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(GRAFT_SIMT)
  simt::mma_bf16(d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/// Four 8 x 8 matrices of bfloat16 from shared memory; lane l names row l % 8 of matrix l / 8, 16 bytes. Lane l then
/// holds elements 2 (l % 4) and the next of row l / 4 of each; transposed: of column l / 4.
template <bool Transposed>
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* row) {
#if defined(GRAFT_SIMT)
  simt::load_matrix_x4(r, row, Transposed);
#else
  const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
#endif
}

/// 16 bytes from global to shared memory, there after copy_wait() and a barrier; zeros where `there` is false.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool there = true) {
#if defined(GRAFT_SIMT)
  simt::copy_async(shared, global, 16, !there);
#else
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(there ? 16 : 0) : "memory");
#endif
}
/// 8 bytes, as copy_async().
__device__ __forceinline__ void copy_async_8(void* shared, const void* global) {
#if defined(GRAFT_SIMT)
  simt::copy_async(shared, global, 8, false);
#else
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(global) : "memory");
#endif
}
__device__ __forceinline__ void copy_commit() {
#if defined(GRAFT_SIMT)
  simt::copy_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/// Waits until at most `Left` of the thread's committed groups are under way.
template <int Left>
__device__ __forceinline__ void copy_wait() {
#if defined(GRAFT_SIMT)
  simt::copy_wait(Left);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
#endif
}

/// Read once, kept in no cache: weights and states stream past.
__device__ __forceinline__ uint4 load_streaming(const uint4* p) {
#if defined(GRAFT_SIMT)
  return *p;
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
#endif
}

/// ceil(a / b) of a launch.
template <class T>
__host__ __device__ constexpr T blocks(T a, T b) {
  return (a + b - 1) / b;
}

}  // namespace graft::gpu
