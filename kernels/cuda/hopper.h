// Instructions of compute capability 9.0: barriers on which copies complete, copies by the block, clusters, and
// products of a warpgroup. For device code that is compiled for sm_90a; elsewhere nothing of it exists.
#pragma once
#include "device.h"

#if defined(GRAFT_EMULATE_WGMMA)
#define GRAFT_SM90A 1
#include "wgmma_emulation.h"
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define GRAFT_SM90A 1

namespace graft::gpu {

/// The address of shared memory as instructions take it.
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Barriers and copies take addresses of shared memory as shared_address() gives them.
// ---- barriers in shared memory: a phase ends when as many threads have arrived as init said, and all bytes are there
__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// Makes what barrier_init() did visible to copies and to the cluster; a barrier of the threads follows.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
/// Arrives, and says how many bytes the phase waits for.
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives at the same barrier of block `rank` of the cluster.
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
/// Whether the phase of this parity is over; waits for a moment.
__device__ __forceinline__ bool barrier_try(uint32_t barrier, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(over)
      : "r"(barrier), "r"(parity)
      : "memory");
  return over != 0;
}
/// The same without waiting.
__device__ __forceinline__ bool barrier_test(uint32_t barrier, uint32_t parity) {
  uint32_t over;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.test_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(over)
      : "r"(barrier), "r"(parity)
      : "memory");
  return over != 0;
}

// ---- copies from global to shared memory, multiples of 16 bytes, that complete on a barrier ----
__device__ __forceinline__ void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
/// To the same place in each block of the cluster that `ranks` has a bit for, each completing on its own barrier.
__device__ __forceinline__ void copy_bulk_to(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier,
                                             uint16_t ranks) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], "
      "%4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(ranks)
      : "memory");
}

// ---- clusters ----
__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// All threads of the cluster meet; what they wrote to shared memory is there for all.
__device__ __forceinline__ void cluster_barrier() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}
/// Reads block `rank`'s shared memory.
__device__ __forceinline__ float4 cluster_load(uint32_t p, uint32_t rank) {
  float4 v;
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %4, %5;\n"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there];\n}"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(p), "r"(rank)
      : "memory");
  return v;
}

/// Reads own shared memory.
__device__ __forceinline__ uint4 shared_load(uint32_t p) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(p)
               : "memory");
  return v;
}

/// Some warps of a block meet; `id` 1 to 15.
__device__ __forceinline__ void named_barrier(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- registers: four warps together give some back, or take some ----
template <int Registers>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// ---- products of a warpgroup: four warps, of which warp w has rows 16 w to 16 w + 15 of the sums ----
/// Before the first product, and wherever registers of its operands were written by other instructions.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits for all products of the warp; the sums are there.
template <int Tiles>
__device__ __forceinline__ void wgmma_wait(float (&d)[Tiles][4]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
  for (int j = 0; j < Tiles; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) asm volatile("" : "+f"(d[j][i])::"memory");
}

#define GRAFT_FOUR(v) "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
/// d += a b, or a b where add is 0, of 64 by 8 Tiles by 16: d[j] and a as mma() has them for the warp's 16 rows.
/// Under way until wgmma_wait().
__device__ __forceinline__ void wgmma(float (&d)[8][4], const uint4& a, uint64_t b, uint32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.u32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
      : GRAFT_FOUR(d[0]), GRAFT_FOUR(d[1]), GRAFT_FOUR(d[2]), GRAFT_FOUR(d[3]), GRAFT_FOUR(d[4]), GRAFT_FOUR(d[5]),
        GRAFT_FOUR(d[6]), GRAFT_FOUR(d[7])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&d)[16][4], const uint4& a, uint64_t b, uint32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.u32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, 0;\n}"
      : GRAFT_FOUR(d[0]), GRAFT_FOUR(d[1]), GRAFT_FOUR(d[2]), GRAFT_FOUR(d[3]), GRAFT_FOUR(d[4]), GRAFT_FOUR(d[5]),
        GRAFT_FOUR(d[6]), GRAFT_FOUR(d[7]), GRAFT_FOUR(d[8]), GRAFT_FOUR(d[9]), GRAFT_FOUR(d[10]), GRAFT_FOUR(d[11]),
        GRAFT_FOUR(d[12]), GRAFT_FOUR(d[13]), GRAFT_FOUR(d[14]), GRAFT_FOUR(d[15])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"(add));
}
__device__ __forceinline__ void wgmma(float (&d)[24][4], const uint4& a, uint64_t b, uint32_t add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.u32 p, %101, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31,"
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47,"
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63,"
      " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79,"
      " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
      "{%96, %97, %98, %99}, %100, p, 1, 1, 0;\n}"
      : GRAFT_FOUR(d[0]), GRAFT_FOUR(d[1]), GRAFT_FOUR(d[2]), GRAFT_FOUR(d[3]), GRAFT_FOUR(d[4]), GRAFT_FOUR(d[5]),
        GRAFT_FOUR(d[6]), GRAFT_FOUR(d[7]), GRAFT_FOUR(d[8]), GRAFT_FOUR(d[9]), GRAFT_FOUR(d[10]), GRAFT_FOUR(d[11]),
        GRAFT_FOUR(d[12]), GRAFT_FOUR(d[13]), GRAFT_FOUR(d[14]), GRAFT_FOUR(d[15]), GRAFT_FOUR(d[16]),
        GRAFT_FOUR(d[17]), GRAFT_FOUR(d[18]), GRAFT_FOUR(d[19]), GRAFT_FOUR(d[20]), GRAFT_FOUR(d[21]),
        GRAFT_FOUR(d[22]), GRAFT_FOUR(d[23])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"(add));
}
#undef GRAFT_FOUR

}  // namespace graft::gpu
#endif
