// The instructions of kernels/cuda/hopper.h in plain C++, for the one file that emulates kernels on wgmma: blocks of a
// cluster run in system threads of their own, a copy is done when it is ordered. Shared memory is not watched for
// races.
#pragma once
#include <sched.h>

#include <cstdlib>
#include <map>
#include <mutex>

#include "block.h"
#include "device.h"

#define __trap() std::abort()

namespace simt {

/// A phase ends when all have arrived and all bytes are there.
struct PhaseBarrier {
  int32_t arrivals = 0, missing = 0;
  int64_t bytes = 0;
  uint32_t phase = 0;

  void settle() {
    if (missing < 0) std::abort();  // more arrivals than the barrier was made for
    if (missing != 0 || bytes != 0) return;
    phase ^= 1;
    missing = arrivals;
  }
};

struct ClusterBlock {
  unsigned char* shared = nullptr;
  std::map<uint32_t, PhaseBarrier> barriers;
  unsigned named = 0, named_rounds = 0, arrived = 0;
};

/// The cluster that runs.
struct Cluster {
  static constexpr int32_t kMost = 8;
  ClusterBlock blocks[kMost];
  std::recursive_mutex mutex;
  int32_t size = 1, gathered = 0, arrived = 0, rounds = 0;
};
inline Cluster cluster;
inline thread_local int32_t rank = 0;

inline ClusterBlock& own() { return cluster.blocks[rank]; }
/// Lets other threads of the block run, and other blocks.
inline void step_back() {
  static thread_local uint32_t steps = 0;
  if (++steps % 64 == 0) sched_yield();
  pause();
}

}  // namespace simt

namespace graft::gpu {

inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(p) - simt::shared_memory());
}
inline void* __cvta_shared_to_generic(uint32_t address) { return simt::shared_memory() + address; }

inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
  std::lock_guard lock(simt::cluster.mutex);
  const auto count = static_cast<int32_t>(arrivals);
  simt::own().barriers[barrier] = {count, count, 0, 0};
}
inline void barrier_init_fence() {}
inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  std::lock_guard lock(simt::cluster.mutex);
  simt::PhaseBarrier& one = simt::own().barriers.at(barrier);
  one.bytes += bytes;
  one.missing--;
  one.settle();
}
inline void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
  std::lock_guard lock(simt::cluster.mutex);
  simt::PhaseBarrier& one = simt::cluster.blocks[rank].barriers.at(barrier);
  one.missing--;
  one.settle();
}
inline void barrier_arrive(uint32_t barrier) { barrier_arrive_at(barrier, simt::rank); }
inline bool barrier_try(uint32_t barrier, uint32_t parity) {
  bool over;
  {
    std::lock_guard lock(simt::cluster.mutex);
    over = simt::own().barriers.at(barrier).phase != parity;
  }
  if (!over) simt::step_back();
  return over;
}
inline bool barrier_test(uint32_t barrier, uint32_t parity) { return barrier_try(barrier, parity); }

inline void copy_bulk_to(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier, uint16_t ranks) {
  std::lock_guard lock(simt::cluster.mutex);
  if (to % 16 != 0 || bytes % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) std::abort();
  for (int32_t r = 0; r < simt::Cluster::kMost; r++) {
    if ((ranks >> r & 1) == 0) continue;
    simt::PhaseBarrier& one = simt::cluster.blocks[r].barriers.at(barrier);
    std::memcpy(simt::cluster.blocks[r].shared + to, from, bytes);
    one.bytes -= bytes;
    one.settle();
  }
}
inline void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  copy_bulk_to(to, from, bytes, barrier, static_cast<uint16_t>(1 << simt::rank));
}

inline uint32_t cluster_rank() { return simt::rank; }
inline void cluster_barrier() {
  int32_t round;
  {
    std::lock_guard lock(simt::cluster.mutex);
    round = simt::cluster.rounds;
    if (++simt::own().arrived == simt::running->threads) {
      simt::own().arrived = 0;
      if (++simt::cluster.arrived == simt::cluster.size) {
        simt::cluster.arrived = 0;
        simt::cluster.rounds++;
      }
    }
  }
  const auto met = [&] {
    std::lock_guard lock(simt::cluster.mutex);
    return simt::cluster.rounds != round;
  };
  while (!met()) simt::step_back();
}
inline float4 cluster_load(uint32_t address, uint32_t rank) {
  float4 v;
  std::memcpy(&v, simt::cluster.blocks[rank].shared + address, sizeof v);
  return v;
}
inline uint4 shared_load(uint32_t address) {
  uint4 v;
  std::memcpy(&v, simt::shared_memory() + address, sizeof v);
  return v;
}
inline void named_barrier(uint32_t, uint32_t threads) {
  simt::ClusterBlock& block = simt::own();
  const unsigned round = block.named_rounds;
  if (++block.named == threads) {
    block.named = 0;
    block.named_rounds++;
  }
  while (block.named_rounds == round) simt::pause();
}

template <int Registers>
void give_registers() {}
template <int Registers>
void take_registers() {}

inline void wgmma_fence() {}
inline void wgmma_commit() {}
template <int Tiles>
void wgmma_wait(float (&)[Tiles][4]) {}

/// Two inputs of a row of the right operand: the manual's canonical layout of a matrix with K innermost, in units of 16
/// bytes ((8, n), 2) : ((8, stride), 1), its address bits 4 to 6 exclusive-or bits 7 to 9.
inline uint32_t right_operand(uint64_t descriptor, int32_t row, int32_t k) {
  const uint32_t start = (descriptor & 0x3fff) * 16, stride = (descriptor >> 32 & 0x3fff) * 16;
  uint32_t at = start + row % 8 * 128 + row / 8 * stride + k / 8 * 16;
  if (descriptor >> 62 == 1) at ^= (at >> 7 & 7) << 4;
  uint32_t pair;
  std::memcpy(&pair, simt::shared_memory() + at + k % 8 * 2, sizeof pair);
  return pair;
}
/// Of the 64 rows of the left operand a warp has 16, laid out as for mma(); so are the sums, eight columns after eight.
template <int Tiles>
void wgmma(float (&d)[Tiles][4], const uint4& a, uint64_t b, uint32_t add) {
  const int32_t row = simt::lane() / 4, k = simt::lane() % 4 * 2;
  const uint32_t left[4] = {a.x, a.y, a.z, a.w};
  for (int32_t j = 0; j < Tiles; j++) {
    const uint32_t right[2] = {right_operand(b, j * 8 + row, k), right_operand(b, j * 8 + row, k + 8)};
    for (float& sum : d[j])
      if (!add) sum = 0;
    simt::mma_bf16(d[j], left, right);
  }
}

}  // namespace graft::gpu
