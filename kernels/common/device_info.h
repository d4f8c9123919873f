// What the host libraries tell about the machine. Knows no kernel.
#pragma once
#include <cstdint>

namespace graft {

/// Writes the JSON of graft_device_info for a host library.
int32_t write_device_info(char* json, int32_t capacity, const char* backend, const char* isa, int threads);

}  // namespace graft
