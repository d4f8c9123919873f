// Device memory, and host memory that the device copies from and to.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "elements.h"
#include "host.h"

namespace graft::gpu {
namespace {

constexpr uint64_t kLargest = uint64_t{1} << 46;

__device__ float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
  if (exponent == 0)  // zero and denormals: fraction * 2^-24, exact
    return __uint_as_float(__float_as_uint(static_cast<float>(fraction) * 5.9604644775390625e-8f) | sign);
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | (fraction << 13));
  return __uint_as_float(sign | ((exponent + 112) << 23) | (fraction << 13));
}

__global__ void convert(void* dst, const void* src, int32_t dst_dtype, int32_t src_dtype, uint64_t n) {
  for_each(n, [&](uint64_t i) {
    float x;
    if (src_dtype == GRAFT_F32)
      x = static_cast<const float*>(src)[i];
    else if (src_dtype == GRAFT_BF16)
      x = to_float(static_cast<const uint16_t*>(src)[i]);
    else
      x = half_to_float(static_cast<const uint16_t*>(src)[i]);
    if (dst_dtype == GRAFT_F32)
      static_cast<float*>(dst)[i] = x;
    else
      static_cast<uint16_t*>(dst)[i] = to_bf16(x);
  });
}

void* refuse(uint64_t bytes) {
  cudaGetLastError();  // or the next launch is blamed for it
  fail(GRAFT_OUT_OF_MEMORY, "the device has no %llu bytes left", (unsigned long long)bytes);
  return nullptr;
}

/// Workspaces that were outgrown and that recordings may still write to.
std::vector<void*> retired;

}  // namespace

void* workspace(uint64_t bytes) {
  static void* block = nullptr;
  static uint64_t size = 0;
  if (bytes <= size) return block;
  if (recording()) {
    fail(GRAFT_INVALID, "Cannot record: an op needs more memory than ever before");
    return nullptr;
  }
  if (block != nullptr && wait("workspace") != GRAFT_OK) return nullptr;
  if (recorded() && block != nullptr)
    retired.push_back(block);
  else
    cudaFree(block);
  size = 0;
  // With room to spare: growing waits for the device.
  const uint64_t wanted = bytes + bytes / 2;
  if (cudaMalloc(&block, wanted) != cudaSuccess) {
    block = nullptr;
    return refuse(wanted);
  }
  size = wanted;
  return block;
}

void free_retired() {
  for (void* block : retired) cudaFree(block);
  retired.clear();
}

}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" void* graft_alloc(uint64_t bytes) {
  if (bytes > kLargest) return refuse(bytes);
  if (recording()) {
    graft::fail(GRAFT_INVALID, "Cannot allocate %llu bytes while recording", (unsigned long long)bytes);
    return nullptr;
  }
  void* p = nullptr;
  const uint64_t size = bytes == 0 ? 1 : bytes;
  if (cudaMalloc(&p, size) != cudaSuccess) return refuse(bytes);
  if (cudaMemsetAsync(p, 0, size, stream()) == cudaSuccess) return p;
  cudaFree(p);
  return refuse(bytes);
}

extern "C" void graft_free(void* p) {
  if (p == nullptr) return;
  cudaStreamSynchronize(stream());
  cudaFree(p);
}

extern "C" void* graft_host_alloc(uint64_t bytes) {
  if (bytes > kLargest) return refuse(bytes);
  void* p = nullptr;
  if (cudaHostAlloc(&p, bytes == 0 ? 1 : bytes, cudaHostAllocDefault) != cudaSuccess) return refuse(bytes);
  return std::memset(p, 0, bytes);
}
extern "C" void graft_host_free(void* p) { cudaFreeHost(p); }

namespace {

int32_t copied(cudaError_t error, const char* what, uint64_t bytes) {
  if (error == cudaSuccess) return GRAFT_OK;
  return graft::fail(GRAFT_DEVICE, "Cannot %s %llu bytes: %s", what, (unsigned long long)bytes,
                     cudaGetErrorString(error));
}

/// The caller may change its bytes as soon as an upload returns: they wait here until the device has taken them.
struct Ring {
  static constexpr uint64_t kBytes = uint64_t{32} << 20;
  unsigned char* base = nullptr;
  uint64_t used = 0;

  /// Room for `bytes` (at most kBytes), or null. Waits for the device where the ring is full.
  unsigned char* take(uint64_t bytes) {
    if (base == nullptr) base = static_cast<unsigned char*>(graft_host_alloc(kBytes));
    if (base == nullptr) return nullptr;
    if (used + bytes > kBytes) {
      if (cudaStreamSynchronize(stream()) != cudaSuccess) return nullptr;
      used = 0;
    }
    unsigned char* at = base + used;
    used += (bytes + 255) / 256 * 256;
    return at;
  }
};
Ring ring;

}  // namespace

extern "C" int32_t graft_copy(void* dst, const void* src, uint64_t bytes) {
  GRAFT_CHECK(bytes == 0 || (dst && src), "Cannot copy %llu bytes: a pointer is null", (unsigned long long)bytes);
  if (bytes == 0) return GRAFT_OK;
  return copied(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, stream()), "copy", bytes);
}

extern "C" int32_t graft_upload(void* dst, const void* src_host, uint64_t bytes) {
  GRAFT_CHECK(bytes == 0 || (dst && src_host), "Cannot upload %llu bytes: a pointer is null",
              (unsigned long long)bytes);
  GRAFT_CHECK(!recording(), "Cannot upload %llu bytes while recording", (unsigned long long)bytes);
  for (uint64_t at = 0; at < bytes; at += Ring::kBytes) {
    const uint64_t part = bytes - at < Ring::kBytes ? bytes - at : Ring::kBytes;
    unsigned char* staged = ring.take(part);
    if (staged == nullptr) return graft::fail(GRAFT_DEVICE, "Cannot upload: the device does not answer");
    std::memcpy(staged, static_cast<const unsigned char*>(src_host) + at, part);
    const auto error =
        cudaMemcpyAsync(static_cast<unsigned char*>(dst) + at, staged, part, cudaMemcpyHostToDevice, stream());
    GRAFT_TRY(copied(error, "upload", part));
  }
  return GRAFT_OK;
}

extern "C" int32_t graft_download(void* dst_host, const void* src, uint64_t bytes) {
  GRAFT_CHECK(bytes == 0 || (dst_host && src), "Cannot download %llu bytes: a pointer is null",
              (unsigned long long)bytes);
  GRAFT_CHECK(!recording(), "Cannot download %llu bytes while recording", (unsigned long long)bytes);
  if (bytes > 0)
    GRAFT_TRY(copied(cudaMemcpyAsync(dst_host, src, bytes, cudaMemcpyDeviceToHost, stream()), "download", bytes));
  return wait("download");
}

extern "C" int32_t graft_zero(void* dst, uint64_t bytes) {
  GRAFT_CHECK(bytes == 0 || dst, "Cannot zero %llu bytes: the pointer is null", (unsigned long long)bytes);
  if (bytes == 0) return GRAFT_OK;
  return copied(cudaMemsetAsync(dst, 0, bytes, stream()), "zero", bytes);
}

extern "C" int32_t graft_convert(void* dst, const void* src, int32_t dst_dtype, int32_t src_dtype, uint64_t n) {
  GRAFT_CHECK(n == 0 || (dst && src), "Cannot convert %llu elements: a pointer is null", (unsigned long long)n);
  GRAFT_CHECK(dst_dtype == GRAFT_F32 || dst_dtype == GRAFT_BF16, "Cannot convert: target dtype is %d, expected 0 or 1",
              dst_dtype);
  GRAFT_CHECK(src_dtype >= GRAFT_F32 && src_dtype <= GRAFT_F16,
              "Cannot convert: source dtype is %d, expected 0, 1 or 2", src_dtype);
  if (n == 0) return GRAFT_OK;
  if (src_dtype == dst_dtype) return graft_copy(dst, src, n * (dst_dtype == GRAFT_BF16 ? 2 : 4));
  GRAFT_LAUNCH(convert, grid_for(n), kThreads, 0, dst, src, dst_dtype, src_dtype, n);
  return launched("convert");
}
