// Blocks of one launch that leave results for whichever of them comes last.
#pragma once
#include "device.h"

namespace graft::gpu {

/// The whole block has stored its results and adds `parts` to `counter`; true in the block with which it reaches
/// `total`: that one sees the results of all others, and the counter is 0 again for the next launch. `flag`: one word
/// of shared memory.
__device__ inline bool arrives_last(int32_t* counter, int32_t parts, int32_t total, int32_t* flag) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const bool last = atomicAdd(counter, parts) + parts == total;
    if (last) *counter = 0;
    *flag = last;
  }
  __syncthreads();
  const bool last = *flag != 0;
  if (last) __threadfence();
  return last;
}

/// What another block of this launch has stored: not from a cache that may be older.
__device__ __forceinline__ float load_arrived(const float* p) {
#if defined(GRAFT_SIMT)
  return *p;
#else
  return __ldcg(p);
#endif
}

// ---- host ----
/// Words that are zero between launches; null where there is no memory for them.
int32_t* counters(uint64_t count);
int32_t multiprocessors();
int32_t shared_bytes_of_multiprocessor();

}  // namespace graft::gpu
