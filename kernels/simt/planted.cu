// Kernels with a planted fault each, by which tests see that the emulator finds such faults. Not part of any device's
// library.
#include "device.h"

namespace graft::gpu {
namespace {

enum Fault : int32_t { kNoFault = 0, kNoBarrier, kNoWarpBarrier, kGlobalBounds, kSharedBounds, kNoWait, kParting };

/// out[i] = in[n - 1 - i] by way of shared memory; n threads.
__global__ void reverse(float* out, const float* in, int32_t n, int32_t fault) {
  float* tile = shared<float>();
  const int32_t i = threadIdx.x;
  tile[i] = in[i];
  if (fault != kNoBarrier) __syncthreads();
  if (fault == kSharedBounds && i == 0) tile[n] = 1;
  out[fault == kGlobalBounds ? i + 1 : i] = tile[n - 1 - i];
}

/// Lanes read what the next lane wrote.
__global__ void rotate(float* out, const float* in, int32_t fault) {
  float* tile = shared<float>();
  const int32_t i = threadIdx.x, first = i / 32 * 32;
  tile[i] = in[i];
  if (fault != kNoWarpBarrier) __syncwarp();
  out[i] = tile[first + (i + 1) % 32];
}

/// Four floats a thread by asynchronous copies.
__global__ void copy(float* out, const float* in, int32_t fault) {
  float* tile = shared<float>();
  const int32_t i = threadIdx.x;
  copy_async(tile + 4 * i, in + 4 * i);
  copy_commit();
  if (fault != kNoWait) copy_wait<0>();
  for (int32_t j = 0; j < 4; j++) out[4 * i + j] = tile[4 * i + j];
  copy_wait<0>();
}

/// Some lanes leave before the others meet.
__global__ void part(float* out, const float* in, int32_t fault) {
  const int32_t i = threadIdx.x;
  if (fault == kParting && i % 2) return;
  out[i] = __shfl_xor_sync(kAll, in[i], 1);
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

/// Runs the kernel that can have this fault, with it or (plant = 0) without; `count` elements, a multiple of 32 up to
/// 256.
extern "C" GRAFT_EXPORT int32_t graft_simt_planted(float* out, const float* in, int32_t count, int32_t fault,
                                                   int32_t plant) {
  const int32_t planted = plant ? fault : static_cast<int32_t>(kNoFault);
  const size_t bytes = count * sizeof(float);
  if (fault == kNoWarpBarrier)
    GRAFT_LAUNCH(rotate, dim3(1), count, bytes, out, in, planted);
  else if (fault == kNoWait)
    GRAFT_LAUNCH(copy, dim3(1), count / 4, bytes, out, in, planted);
  else if (fault == kParting)
    GRAFT_LAUNCH(part, dim3(1), count, 0, out, in, planted);
  else
    GRAFT_LAUNCH(reverse, dim3(1), count, bytes, out, in, count, planted);
  return launched("planted");
}
