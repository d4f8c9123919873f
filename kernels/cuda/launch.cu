// The stream, and how what kernels say reaches the caller.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "host.h"

namespace graft::gpu {
namespace {

cudaStream_t the_stream = nullptr;
Report* the_report = nullptr;
int multiprocessors_found = 1, shared_bytes_found = 48 << 10;
/// Whether early launches are possible and wanted, and whether the last thing in the stream was one.
bool early_allowed = false, behind_early = false;

bool wants_early() {
  const char* setting = std::getenv("GRAFT_PDL");
  return setting == nullptr || std::strcmp(setting, "0") != 0;
}

const char* phrase(int32_t complaint) {
  switch (complaint) {
    case kIndex:
      return "row %d names %d, expected 0 to %d";
    case kPosition:
      return "sequence %d starts at %d, its slot holds the state at position %d";
    default:
      return "sequence %d has %d rows, expected %d: there are as many rows as sequences";
  }
}

}  // namespace

Report* report() { return the_report; }

bool starts_early() {
  const bool early = early_allowed && behind_early;
  behind_early = true;
  return early;
}

int32_t complained(const char* op) {
  const Report said = *the_report;
  if (said.complaint == kNone) return GRAFT_OK;
  *the_report = {};
  char text[200];
  snprintf(text, sizeof text, phrase(said.complaint), said.row, said.value, said.limit);
  return fail(GRAFT_INVALID, "%s: %s", op, text);
}

cudaStream_t stream() {
  behind_early = false;
  return the_stream;
}
cudaStream_t early_stream() { return the_stream; }

int32_t num_multiprocessors() { return multiprocessors_found; }
int32_t most_shared_bytes() { return shared_bytes_found; }

#if !defined(GRAFT_SIMT)
bool prepare_early(const void* kernel) {
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess) return false;
  const int most = shared_bytes_found - static_cast<int>(attributes.sharedSizeBytes);
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most) == cudaSuccess &&
         cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared) ==
             cudaSuccess;
}
#endif

int32_t open() {
  if (the_stream != nullptr) return GRAFT_OK;
  int device = 0, major = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&multiprocessors_found, cudaDevAttrMultiProcessorCount, device);
  cudaDeviceGetAttribute(&shared_bytes_found, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  early_allowed = major >= 9 && wants_early();
  cudaError_t error = cudaStreamCreateWithFlags(&the_stream, cudaStreamNonBlocking);
  if (error == cudaSuccess)
    error = cudaHostAlloc(reinterpret_cast<void**>(&the_report), sizeof(Report), cudaHostAllocMapped);
  if (error != cudaSuccess) return fail(GRAFT_DEVICE, "the device cannot be opened: %s", cudaGetErrorString(error));
  *the_report = {};
  return GRAFT_OK;
}

int32_t launched(const char* op) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return fail(GRAFT_DEVICE, "%s: %s", op, cudaGetErrorString(error));
#if defined(GRAFT_SIMT)
  return complained(op);  // it has ended already
#else
  return GRAFT_OK;
#endif
}

int32_t wait(const char* op) {
  const cudaError_t error = cudaStreamSynchronize(the_stream);
  if (error != cudaSuccess) return fail(GRAFT_DEVICE, "%s: %s", op, cudaGetErrorString(error));
  return complained(op);
}

}  // namespace graft::gpu
