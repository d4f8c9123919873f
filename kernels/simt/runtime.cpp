// The host side of the CUDA runtime over plain memory: every call is done when it returns.
#include <sys/mman.h>

#include <cstdlib>

#include "block.h"
#include "graph.h"
#include "loss.h"
#include "memory.h"

cudaError_t cudaMalloc(void** p, size_t bytes) {
  if (simt::recording()) return simt::refuse_recording();
  if (simt::lost()) return cudaErrorLaunchFailure;
  if (!simt::has_memory(bytes)) return cudaErrorMemoryAllocation;
  *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*p == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xff, bytes);  // NaN: device memory begins with anything
  simt::add_allocation(*p, bytes);
  simt::memory_taken(bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  if (p == nullptr) return cudaSuccess;
  simt::memory_given_back(simt::remove_allocation(p));
  std::free(p);
  return simt::lost() ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (simt::recording()) {
    simt::record([=] { std::memmove(dst, src, bytes); });
    return cudaSuccess;
  }
  if (simt::lost()) return cudaErrorLaunchFailure;
  std::memmove(dst, src, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  if (simt::recording()) {
    simt::record([=] { std::memset(p, value, bytes); });
    return cudaSuccess;
  }
  if (simt::lost()) return cudaErrorLaunchFailure;
  std::memset(p, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  if (simt::recording()) return simt::refuse_recording();
  return simt::lost() ? cudaErrorLaunchFailure : cudaSuccess;
}
cudaError_t cudaGetLastError() { return simt::lost() ? cudaErrorLaunchFailure : cudaSuccess; }
const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorStreamCaptureUnsupported) return "operation not permitted when stream is capturing";
  if (error == cudaErrorLaunchFailure) return "unspecified launch failure";
  return error == cudaErrorMemoryAllocation ? "out of memory" : "no error";
}
