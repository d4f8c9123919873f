// Memory in which steps composed of single ops keep what goes from one op to the next.
#pragma once
#include <cstdint>

namespace graft {

/// Buffer `index` of this thread, at least that large, 64-byte aligned; what it held is lost when it grows. NULL where
/// memory is out (graft_last_error says so).
void* scratch(int32_t index, uint64_t bytes);

inline float* scratch_floats(int32_t index, int64_t count) {
  return static_cast<float*>(scratch(index, static_cast<uint64_t>(count) * sizeof(float)));
}

}  // namespace graft
