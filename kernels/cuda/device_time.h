// How long the device takes for what is launched, and numbers to be busy with.
#pragma once
#include "device.h"

#if !defined(GRAFT_SIMT)

namespace graft::gpu {

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

/// FLOP/s of what `launch` launches, best of repeats that take about `seconds` together; the first one is not timed.
template <class Launch>
double best_rate(double flops, double seconds, Launch&& launch) {
  double best = 0, spent = 0;
  seconds_of(launch);
  while (spent < seconds) {
    const double once = seconds_of(launch);
    if (once <= 0 || cudaGetLastError() != cudaSuccess) return 0;
    if (flops / once > best) best = flops / once;
    spent += once;
  }
  return best;
}

/// Two bfloat16 numbers between 0.5 and 2 of either sign. Matrix units draw less power, and run faster, on zeros.
__host__ __device__ constexpr uint32_t random_pair(uint32_t i) {
  uint32_t x = (i ^ i >> 16) * 0x21f0aaadu;
  x = (x ^ x >> 15) * 0x735a2d97u;
  x ^= x >> 15;
  return (x & 0x80ff80ffu) | 0x3f003f00u;
}

}  // namespace graft::gpu

#endif
