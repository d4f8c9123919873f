// Start-up of the reference library: plain C++ for any x86-64, one thread.
#include "device_info.h"
#include "status.h"

extern "C" int32_t graft_init(int32_t num_threads) {
  GRAFT_CHECK(num_threads >= 0 && num_threads <= 256, "Cannot start: %d threads asked for, expected 0 to 256",
              num_threads);
  return GRAFT_OK;
}

extern "C" int32_t graft_device_info(char* json_host, int32_t capacity) {
  return graft::write_device_info(json_host, capacity, "reference", "scalar", 1);
}
