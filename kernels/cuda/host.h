// Sizes of launches and the library's own device memory. Knows no op.
#pragma once
#include <cstdint>

#include "device.h"

namespace graft::gpu {

/// Threads of a block that goes over elements.
constexpr unsigned kThreads = 256;

/// Blocks for n elements, each thread taking several where there are many.
inline dim3 grid_for(uint64_t n) {
  const uint64_t wanted = blocks<uint64_t>(n, kThreads);
  return dim3(static_cast<unsigned>(wanted < 65'536 ? wanted : 65'536));
}

/// How many multiprocessors the device has.
int32_t num_multiprocessors();
/// Shared memory that a block can have.
int32_t most_shared_bytes();

/// Device memory for one op, valid until the next call; grows as needed, but not while recording. Null where there is
/// none left. What a recording was given stays as long as there are recordings.
void* workspace(uint64_t bytes);
void free_retired();

/// Whether what is launched now is recorded, and whether there are recordings.
bool recording();
bool recorded();

}  // namespace graft::gpu
