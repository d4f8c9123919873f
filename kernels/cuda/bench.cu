// What this device can do at most, for shares of the limit: how fast it reads memory and multiplies matrices.
#include "elements.h"
#include "host.h"

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
  for (int32_t i = 0; i < 4; i++) a[i] = threadIdx.x + i;
  for (int32_t i = 0; i < 2; i++) b[i] = threadIdx.x * 3 + i;
  float d[kChains][4] = {};
  for (int32_t step = 0; step < kSteps; step++)
#pragma unroll
    for (int32_t c = 0; c < kChains; c++) mma(d[c], a, b);
  float sum = 0;
  for (int32_t c = 0; c < kChains; c++) sum += d[c][0] + d[c][1] + d[c][2] + d[c][3];
  if (sum == 12345.678f) *out = sum;
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

/// Seconds that the device takes for what `launch` launches.
template <class Launch>
double seconds_of(Launch&& launch) {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  cudaEventRecord(begin, stream());
  launch();
  cudaEventRecord(end, stream());
  cudaEventSynchronize(end);
  float milliseconds = 0;
  cudaEventElapsedTime(&milliseconds, begin, end);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return milliseconds / 1000.0;
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
  constexpr int kBlockThreads = 256;
  const dim3 grid(8 * num_multiprocessors());
  // A warp's mma is 16 * 8 * 16 multiply-adds; a thread's fma is one.
  const double per_thread = double{kChains} * kSteps * 2 * (dtype == GRAFT_BF16 ? 16.0 * 8 * 16 / kWarp : 1);
  double spent = 0, best = 0;
  while (spent < seconds) {
    const double once = seconds_of([&] {
      if (dtype == GRAFT_BF16)
        GRAFT_LAUNCH(multiply_all, grid, kBlockThreads, 0, out);
      else
        GRAFT_LAUNCH(add_all, grid, kBlockThreads, 0, out);
    });
    if (once <= 0) return 0;
    const double rate = per_thread * kBlockThreads * grid.x / once;
    best = rate > best ? rate : best;
    spent += once;
  }
  return best;
}

#endif
