// Start-up, and what the device says of itself.
#include <cstdio>
#include <cstring>

#include "cublaslt.h"
#include "device.h"
#include "linear_many.h"

namespace graft::gpu {
int32_t open();
namespace {

int32_t write_json(char* json, int32_t capacity, const char* text, int length) {
  GRAFT_CHECK(json && capacity > 0, "Cannot describe the device: no buffer");
  GRAFT_CHECK(length < capacity, "Cannot describe the device: %d bytes given, %d needed", capacity, length + 1);
  std::memcpy(json, text, length + 1);
  return GRAFT_OK;
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

#if defined(GRAFT_SIMT)

extern "C" int32_t graft_init(int32_t num_threads) {
  GRAFT_CHECK(num_threads >= 0 && num_threads <= 256, "Cannot start: %d threads asked for, expected 0 to 256",
              num_threads);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
    return graft::fail(GRAFT_DEVICE, "%s", cudaGetErrorString(error));
  return open();
}

extern "C" int32_t graft_device_info(char* json_host, int32_t capacity) {
  size_t unused = 0, total = 0;
  if (cudaMemGetInfo(&unused, &total) != cudaSuccess)
    return graft::fail(GRAFT_DEVICE, "Cannot describe the device: it does not answer");
  char text[256];
  const int length = snprintf(
      text, sizeof text,
      R"({"name":"emulated device","backend":"simt","isa":"simt","threads":1,"features":[],"memory":%zu,"free":%zu})",
      total, unused);
  return write_json(json_host, capacity, text, length);
}

#else

extern "C" int32_t graft_init(int32_t) {
  int count = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  // Zero where there is no libcuda.so.1.
  if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
    return graft::fail(GRAFT_UNSUPPORTED, "the NVIDIA driver's library libcuda.so.1 is not found");
  if (error == cudaErrorInsufficientDriver)
    return graft::fail(GRAFT_UNSUPPORTED, "the NVIDIA driver is too old: it is of CUDA %d.%d, this build needs %d.%d",
                       driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
    return graft::fail(GRAFT_UNSUPPORTED, "the driver shows no device");
  if (error != cudaSuccess) return graft::fail(GRAFT_UNSUPPORTED, "%s", cudaGetErrorString(error));
  cudaDeviceProp device;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess)
    return graft::fail(GRAFT_DEVICE, "the device does not answer");
  if (device.major < 8)
    return graft::fail(GRAFT_UNSUPPORTED, "%s has compute capability %d.%d, expected 8.0 or newer", device.name,
                       device.major, device.minor);
  GRAFT_TRY(open());
  prepare_wgmma();
  return GRAFT_OK;
}

extern "C" int32_t graft_device_info(char* json_host, int32_t capacity) {
  cudaDeviceProp device;
  int driver = 0;
  size_t unused = 0, total = 0;
  cudaDriverGetVersion(&driver);
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess || cudaMemGetInfo(&unused, &total) != cudaSuccess)
    return graft::fail(GRAFT_DEVICE, "Cannot describe the device: it does not answer");
  const char* wgmma = wgmma_state();
  char text[640];
  const int length =
      snprintf(text, sizeof text,
               R"({"name":"%s","backend":"cuda","isa":"sm_%d%d","threads":%d,"features":["driver %d.%d"%s%s%s%s],)"
               R"("memory":%llu,"free":%llu})",
               device.name, device.major, device.minor, device.multiProcessorCount, driver / 1000, driver % 1000 / 10,
               wgmma == nullptr ? "" : ",\"", wgmma == nullptr ? "" : wgmma, wgmma == nullptr ? "" : "\"",
               has_cublaslt() ? ",\"cublasLt\"" : "", (unsigned long long)total, (unsigned long long)unused);
  return write_json(json_host, capacity, text, length);
}

#endif
