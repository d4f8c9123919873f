// What this device can do at most, for shares of the limit: how fast it reads memory and multiplies matrices.
#include "cublaslt.h"
#include "device_time.h"
#include "elements.h"
#include "hopper.h"
#include "host.h"
#include "linear_many.h"
#include "wgmma_forms.h"

namespace graft::gpu {
namespace {

#if !defined(GRAFT_SIMT)

/// Sums everything, so that nothing is left out.
__global__ void read_all(const uint4* data, uint64_t n, uint32_t* sum) {
  uint32_t x = 0;
  for_each(n, [&](uint64_t i) {
    const uint4 v = load_streaming(data + i);
    x ^= v.x ^ v.y ^ v.z ^ v.w;
  });
  if (x == 0x9e3779b9u) *sum = x;
}

constexpr int32_t kChains = 8, kSteps = 4096;

/// Tensor cores on registers alone: kChains independent sums a warp.
__global__ void multiply_all(float* out) {
  uint32_t a[4], b[2];
  for (int32_t i = 0; i < 4; i++) a[i] = random_pair(threadIdx.x * 8 + i);
  for (int32_t i = 0; i < 2; i++) b[i] = random_pair(threadIdx.x * 8 + 4 + i);
  float d[kChains][4] = {};
  for (int32_t step = 0; step < kSteps; step++)
#pragma unroll
    for (int32_t c = 0; c < kChains; c++) mma(d[c], a, b);
  float sum = 0;
  for (int32_t c = 0; c < kChains; c++) sum += d[c][0] + d[c][1] + d[c][2] + d[c][3];
  if (sum == 12345.678f) *out = sum;
}

constexpr int32_t kWgmmaRows = 192, kWgmmaSteps = 1024, kWgmmaThreads = 256;
constexpr int32_t kWgmmaBytes = kWgmmaRows * kSquare * 2 + 1024;

/// Tensor cores as products of many rows use them: weights from registers, rows from shared memory that stay the same.
__global__ void __launch_bounds__(kWgmmaThreads, 1) multiply_shared(float* out) {
#if defined(GRAFT_SM90A)
  const uint32_t rows = (shared_address(shared_bytes()) + 1023) / 1024 * 1024;
  auto* words = static_cast<uint32_t*>(__cvta_shared_to_generic(rows));
  for (int32_t i = threadIdx.x; i < kWgmmaRows * kSquare / 2; i += kWgmmaThreads) words[i] = random_pair(i);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  uint4 a[kChunkTiles];
  for (int32_t k = 0; k < kChunkTiles; k++) {
    const uint32_t seed = (threadIdx.x * kChunkTiles + k) * 4 + 99999;
    a[k] = make_uint4(random_pair(seed), random_pair(seed + 1), random_pair(seed + 2), random_pair(seed + 3));
  }
  float d[kWgmmaRows / 8][4] = {};
  for (int32_t step = 0; step < kWgmmaSteps; step++) {
    wgmma_fence();
#pragma unroll
    for (int32_t k = 0; k < kChunkTiles; k++) wgmma(d, a[k], rows_descriptor(rows) + 2 * k, 1);
    wgmma_commit();
    wgmma_wait(d);
  }
  float sum = 0;
#pragma unroll
  for (int32_t j = 0; j < kWgmmaRows / 8; j++) sum += d[j][0] + d[j][1] + d[j][2] + d[j][3];
  if (sum == 12345.678f) *out = sum;
#endif
}

/// float32 multiply-adds on registers alone.
__global__ void add_all(float* out) {
  float d[kChains];
  for (int32_t c = 0; c < kChains; c++) d[c] = threadIdx.x + c;
  for (int32_t step = 0; step < kSteps; step++)
#pragma unroll
    for (int32_t c = 0; c < kChains; c++) d[c] = fmaf(d[c], 1.0000001f, 0.5f);
  float sum = 0;
  for (int32_t c = 0; c < kChains; c++) sum += d[c];
  if (sum == 12345.678f) *out = sum;
}

/// FLOP/s of products on tensor cores, the most that any way of asking for them gives.
double matrix_rate(float* out, double seconds) {
  const int32_t units = num_multiprocessors();
  const double chains = 8.0 * units * kThreads / kWarp * kSteps * kChains * 2 * 16 * 8 * 16;
  double best = best_rate(chains, seconds / 3, [&] { GRAFT_LAUNCH(multiply_all, dim3(8 * units), kThreads, 0, out); });
  if (uses_wgmma()) {
    const double shared = 4.0 * units * kWgmmaSteps * kTileOutputs * kWgmmaRows * kSquare * 2;
    const double rate = best_rate(
        shared, seconds / 3, [&] { GRAFT_LAUNCH(multiply_shared, dim3(4 * units), kWgmmaThreads, kWgmmaBytes, out); });
    best = rate > best ? rate : best;
  }
  const double peer = cublaslt_rate(8192, seconds / 3);
  return peer > best ? peer : best;
}

#else

double refuse(const char* what) {
  graft::fail(GRAFT_UNSUPPORTED, "Cannot measure %s: this device is emulated", what);
  return 0;
}

#endif

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

#if defined(GRAFT_SIMT)

extern "C" double graft_bench_read(const void*, uint64_t, int32_t) { return refuse("reading"); }
extern "C" double graft_bench_flops(int32_t, double) { return refuse("arithmetic"); }

#else

extern "C" double graft_bench_read(const void* buffer, uint64_t bytes, int32_t repeats) {
  auto* sum = static_cast<uint32_t*>(workspace(sizeof(uint32_t)));
  const dim3 grid(8 * num_multiprocessors());
  double best = 0;
  for (int32_t i = 0; i < repeats && sum != nullptr; i++) {
    const double seconds = seconds_of(
        [&] { GRAFT_LAUNCH(read_all, grid, 512, 0, static_cast<const uint4*>(buffer), bytes / sizeof(uint4), sum); });
    if (best == 0 || seconds < best) best = seconds;
  }
  return best;
}

extern "C" double graft_bench_flops(int32_t dtype, double seconds) {
  auto* out = static_cast<float*>(workspace(sizeof(float)));
  if (out == nullptr) return 0;
  if (dtype == GRAFT_BF16) return matrix_rate(out, seconds);
  const dim3 grid(8 * num_multiprocessors());
  const double flops = double{kChains} * kSteps * 2 * kThreads * grid.x;
  return best_rate(flops, seconds, [&] { GRAFT_LAUNCH(add_all, grid, kThreads, 0, out); });
}

#endif
