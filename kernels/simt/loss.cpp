// See loss.h. Counters of the process, whichever thread launches.
#include "loss.h"

#include <atomic>
#include <cstdint>

#include "graft.h"
#include "simt.h"

namespace simt {
namespace {

/// Launches until the loss; negative: it never comes.
std::atomic<int64_t> launches_left{-1};
/// 0: as much as the host has.
std::atomic<uint64_t> memory_limit{0};
std::atomic<uint64_t> memory_used{0};

}  // namespace

bool lost() { return launches_left.load() == 0; }

bool survives_launch() {
  int64_t left = launches_left.load();
  while (left > 0 && !launches_left.compare_exchange_weak(left, left - 1)) {
  }
  return left < 0 || left > 1;
}

bool has_memory(size_t bytes) {
  const uint64_t limit = memory_limit.load();
  return limit == 0 || memory_used.load() + bytes <= limit;
}
void memory_taken(size_t bytes) { memory_used += bytes; }
void memory_given_back(size_t bytes) { memory_used -= bytes; }

}  // namespace simt

cudaError_t cudaMemGetInfo(size_t* unused, size_t* total) {
  if (simt::lost()) return cudaErrorLaunchFailure;
  *total = simt::memory_limit.load();
  const uint64_t used = simt::memory_used.load();
  *unused = used < *total ? *total - used : 0;
  return cudaSuccess;
}

/// The n-th launch from now on loses the device; negative: it is there again.
extern "C" GRAFT_EXPORT void graft_simt_lose(int64_t launches) { simt::launches_left = launches; }
/// The device has that much memory, what is taken already counted in; 0: as much as the host.
extern "C" GRAFT_EXPORT void graft_simt_memory(uint64_t bytes) { simt::memory_limit = bytes; }
/// Bytes given out.
extern "C" GRAFT_EXPORT uint64_t graft_simt_memory_used() { return simt::memory_used; }
