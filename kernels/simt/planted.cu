// Kernels with a planted fault each, by which tests see that the emulator finds such faults. Not part of any device's
// library.
#include "host.h"

namespace graft::gpu {
namespace {

enum Fault : int32_t {
  kNoFault = 0,
  kNoBarrier,
  kNoWarpBarrier,
  kGlobalBounds,
  kSharedBounds,
  kNoWait,
  kParting,
  kBlockOrder,
  kNoFence,
  kNoQuestion,
  kEarlyRead,
  kEarlyWrite,
  kNeverWaits,
  kUnaligned
};

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

/// Every block copies its part, and looks at the next one's.
__global__ void neighbours(float* out, const float* in, int32_t fault) {
  const int32_t i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
  out[i] = in[i];
  if (fault == kBlockOrder && out[(i + blockDim.x) % n] == 0) out[i] = 0;
}

/// Blocks reverse their parts into `parts`; the last one to be done puts them one after another.
__global__ void gather(float* out, const float* in, float* parts, uint32_t* done, int32_t fault) {
  auto* last = shared<uint32_t>();
  const uint32_t i = threadIdx.x, threads = blockDim.x, at = blockIdx.x * threads;
  parts[at + i] = in[at + threads - 1 - i];
  if (fault != kNoFence) __threadfence();
  __syncthreads();
  if (i == 0) *last = fault == kNoQuestion ? blockIdx.x == 0 : atomicAdd(done, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!*last) return;
  for (uint32_t b = 0; b < gridDim.x; b++) out[b * threads + i] = parts[b * threads + i];
}

__global__ void precede(float* out, const float* in) {
  depend_launch();
  depend_wait();
  out[threadIdx.x] = in[threadIdx.x];
}

/// out = in + 1, begun while the kernel that writes `in` may still run.
__global__ void follow(float* out, const float* in, int32_t fault) {
  const int32_t i = threadIdx.x;
  float x = 0;
  if (fault == kEarlyRead) x = in[i];
  if (fault == kEarlyWrite) out[i] = 0;
  if (fault != kNeverWaits) {
    depend_wait();
    x += in[i];
  }
  depend_launch();
  if (fault != kNeverWaits) out[i] = x + 1;
}

/// Four floats a thread in one load.
__global__ void load_four(float* out, const float* in, int32_t fault) {
  const int32_t i = threadIdx.x;
  const float4 four = *reinterpret_cast<const float4*>(in + 4 * i + (fault == kUnaligned && i == 0));
  out[4 * i] = four.x;
  out[4 * i + 1] = four.y;
  out[4 * i + 2] = four.z;
  out[4 * i + 3] = four.w;
}

int32_t run_blocks(float* out, const float* in, int32_t count, int32_t fault, int32_t planted) {
  if (fault == kBlockOrder) {
    GRAFT_LAUNCH(neighbours, dim3(count / 32), 32, 0, out, in, planted);
    return launched("planted");
  }
  auto* done = static_cast<uint32_t*>(workspace(256 + count * sizeof(float)));
  cudaMemsetAsync(done, 0, 256, stream());
  GRAFT_LAUNCH(gather, dim3(count / 32), 32, 16, out, in, reinterpret_cast<float*>(done + 64), done, planted);
  return launched("planted");
}

int32_t run_followed(float* out, const float* in, int32_t count, int32_t planted) {
  auto* between = static_cast<float*>(workspace(count * sizeof(float)));
  // One behind the other, so that the second may overlap the first.
  GRAFT_LAUNCH_EARLY(precede, dim3(1), count, 0, between, in);
  GRAFT_LAUNCH_EARLY(follow, dim3(1), count, 0, out, between, planted);
  return launched("planted");
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

/// Runs the kernel that can have this fault, with it or (plant = 0) without; `count` elements, a multiple of 32 up to
/// 256.
extern "C" GRAFT_EXPORT int32_t graft_simt_planted(float* out, const float* in, int32_t count, int32_t fault,
                                                   int32_t plant) {
  const int32_t planted = plant ? fault : static_cast<int32_t>(kNoFault);
  if (fault >= kBlockOrder && fault <= kNoQuestion) return run_blocks(out, in, count, fault, planted);
  if (fault >= kEarlyRead && fault <= kNeverWaits) return run_followed(out, in, count, planted);
  const size_t bytes = count * sizeof(float);
  if (fault == kNoWarpBarrier)
    GRAFT_LAUNCH(rotate, dim3(1), count, bytes, out, in, planted);
  else if (fault == kNoWait)
    GRAFT_LAUNCH(copy, dim3(1), count / 4, bytes, out, in, planted);
  else if (fault == kUnaligned)
    GRAFT_LAUNCH(load_four, dim3(1), count / 4, 0, out, in, planted);
  else if (fault == kParting)
    GRAFT_LAUNCH(part, dim3(1), count, 0, out, in, planted);
  else
    GRAFT_LAUNCH(reverse, dim3(1), count, bytes, out, in, count, planted);
  return launched("planted");
}

/// Work waits until somebody asks for its results, as on a device that is behind; 0: no more.
extern "C" GRAFT_EXPORT void graft_simt_hold(int32_t held) { simt::hold_stream(held != 0); }
