// A device that fails on demand: after so many launches it is lost and stays lost, as a real one in its process; and
// one with no more memory than is said. For tests.
#pragma once
#include <cstddef>

namespace simt {
/// Counts a launch; false where the device is lost, before or by it.
bool survives_launch();
bool lost();
/// Whether `bytes` more may be given out.
bool has_memory(size_t bytes);
void memory_taken(size_t bytes);
void memory_given_back(size_t bytes);
}  // namespace simt
