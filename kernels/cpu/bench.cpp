// The limits of this machine that kernel speeds are given as shares of: a streaming read, and multiply-adds in
// registers.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "simd.h"
#include "status.h"
#include "threads.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

#if defined(__AVX512F__)
using vi = __m512i;
inline vi load_bits(const char* p) { return _mm512_loadu_si512(p); }
inline vi or_bits(vi a, vi b) { return _mm512_or_si512(a, b); }
#else
using vi = __m256i;
inline vi load_bits(const char* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline vi or_bits(vi a, vi b) { return _mm256_or_si256(a, b); }
#endif

/// Reads whole vectors; the result depends on all of them, so that none can be left out.
char read_all(const char* p, uint64_t bytes) {
  constexpr int kStreams = 8;
  vi acc[kStreams] = {};
  for (uint64_t i = 0; i + kStreams * sizeof(vi) <= bytes; i += kStreams * sizeof(vi))
    for (int s = 0; s < kStreams; s++) acc[s] = or_bits(acc[s], load_bits(p + i + s * sizeof(vi)));
  for (int s = 1; s < kStreams; s++) acc[0] = or_bits(acc[0], acc[s]);
  return static_cast<char>(reinterpret_cast<const char&>(acc[0]));
}

constexpr int kChains = 12;  // independent sums: enough to cover latency times units, few enough for registers

struct FloatUnit {
  static constexpr double flops = 2.0 * VL;
  static vf step(vf sum) { return vfma(vset(1.0000001f), vset(1e-9f), sum); }
};

#if defined(__AVX512BF16__)
struct Bfloat16Unit {
  static constexpr double flops = 4.0 * VL;
  static vf step(vf sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(0x3f803f80), (__m512bh)_mm512_set1_epi32(0x30803080));
  }
};
#endif

/// Steps in bursts until the time is over; returns FLOP/s. The sums go to `keep` so that the work stays.
template <class Unit>
double burn(double seconds, float* keep) {
  constexpr int kBurst = 20000;
  vf sums[kChains];
  for (vf& sum : sums) sum = vzero();
  const auto start = Clock::now();
  double steps = 0, elapsed = 0;
  do {
    for (int i = 0; i < kBurst; i++) {
#pragma GCC unroll 16
      for (int j = 0; j < kChains; j++) sums[j] = Unit::step(sums[j]);
    }
    steps += kBurst;
    elapsed = seconds_since(start);
  } while (elapsed < seconds);
  for (int j = 0; j < kChains; j++) *keep += vsum(sums[j]);
  return steps * kChains * Unit::flops / elapsed;
}

template <class Unit>
double all_threads(double seconds) {
  const int threads = num_threads();
  std::vector<double> rates(threads);
  std::vector<float> keep(threads);
  std::atomic<int> arrived{0};
  parallel(threads, [&](int64_t i) {
    arrived++;  // one task a thread: nobody starts before all are there, so nobody takes a second one
    while (arrived.load() < threads) _mm_pause();
    rates[i] = burn<Unit>(seconds, &keep[i]);
  });
  double sum = 0;
  for (double rate : rates) sum += rate;
  return sum;
}

}  // namespace
}  // namespace graft

extern "C" double graft_bench_read(const void* buffer, uint64_t bytes, int32_t repeats) {
  using namespace graft;
  if (!buffer || bytes == 0 || repeats <= 0) {
    fail(GRAFT_INVALID, "Cannot measure a read: %llu bytes, %d repeats", (unsigned long long)bytes, repeats);
    return 0;
  }
  constexpr uint64_t kChunk = 1 << 19;
  const auto* p = static_cast<const char*>(buffer);
  std::atomic<char> sink{0};
  double best = 1e30;
  for (int i = 0; i < repeats; i++) {
    const auto start = Clock::now();
    parallel_ranges(static_cast<int64_t>(bytes), kChunk, [&](int64_t begin, int64_t end) {
      sink.fetch_or(read_all(p + begin, static_cast<uint64_t>(end - begin)), std::memory_order_relaxed);
    });
    best = std::min(best, seconds_since(start));
  }
  return best;
}

extern "C" double graft_bench_flops(int32_t dtype, double seconds) {
  using namespace graft;
  if (!(seconds > 0 && seconds <= 60) || (dtype != GRAFT_F32 && dtype != GRAFT_BF16)) {
    fail(GRAFT_INVALID, "Cannot measure FLOP/s: dtype %d, %g seconds", dtype, seconds);
    return 0;
  }
  if (dtype == GRAFT_F32) return all_threads<FloatUnit>(seconds);
#if defined(__AVX512BF16__)
  return all_threads<Bfloat16Unit>(seconds);
#else
  return 0;
#endif
}
