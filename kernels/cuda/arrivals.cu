// What launches whose blocks part their work ask of the host: how many blocks a device runs at once, and counters.
#include "arrivals.h"
#include "host.h"

namespace graft::gpu {

#if defined(GRAFT_SIMT)
/// Few, so that a small case has runs that begin and end anywhere.
int32_t multiprocessors() { return 3; }
int32_t shared_bytes_of_multiprocessor() { return 227 << 10; }
#else
int32_t multiprocessors() { return num_multiprocessors(); }
int32_t shared_bytes_of_multiprocessor() {
  static const int32_t bytes = [] {
    int value = 0;
    cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerMultiprocessor, 0);
    return value;
  }();
  return bytes;
}
#endif

/// Grown ones leave the old where they are: a recorded launch may use them.
int32_t* counters(uint64_t count) {
  static int32_t* words = nullptr;
  static uint64_t size = 0;
  if (count <= size) return words;
  if (recording()) return nullptr;
  const uint64_t wanted = count > (1 << 18) ? 2 * count : 1 << 18;
  int32_t* fresh = nullptr;
  if (cudaMalloc(reinterpret_cast<void**>(&fresh), wanted * sizeof(int32_t)) != cudaSuccess ||
      cudaMemsetAsync(fresh, 0, wanted * sizeof(int32_t), stream()) != cudaSuccess) {
    cudaGetLastError();  // or the next launch is blamed for it
    return nullptr;
  }
  words = fresh;
  size = wanted;
  return words;
}

}  // namespace graft::gpu
