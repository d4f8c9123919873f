// Start-up of the CPU library: does this processor have what the library was compiled for?
#include "device_info.h"
#include "status.h"
#include "threads.h"

namespace graft {
namespace {

#if defined(__AVX512BF16__)
constexpr const char* kIsa = "avx512_bf16";
#elif defined(__AVX512F__)
constexpr const char* kIsa = "avx512";
#else
constexpr const char* kIsa = "avx2";
#endif

/// The first instruction set that is missing, or null.
const char* missing_feature() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2")) return "avx2";
  if (!__builtin_cpu_supports("fma")) return "fma";
  if (!__builtin_cpu_supports("f16c")) return "f16c";
  if (!__builtin_cpu_supports("bmi2")) return "bmi2";
#if defined(__AVX512F__)
  if (!__builtin_cpu_supports("avx512f")) return "avx512f";
  if (!__builtin_cpu_supports("avx512bw")) return "avx512bw";
  if (!__builtin_cpu_supports("avx512dq")) return "avx512dq";
  if (!__builtin_cpu_supports("avx512vl")) return "avx512vl";
#endif
#if defined(__AVX512BF16__)
  if (!__builtin_cpu_supports("avx512bf16")) return "avx512bf16";
#endif
  return nullptr;
}

}  // namespace
}  // namespace graft

extern "C" int32_t graft_init(int32_t num_threads) {
  if (const char* name = graft::missing_feature())
    return graft::fail(GRAFT_UNSUPPORTED, "Cannot use the %s kernels: the processor lacks %s", graft::kIsa, name);
  GRAFT_CHECK(num_threads >= 0 && num_threads <= 256, "Cannot start: %d threads asked for, expected 0 to 256",
              num_threads);
  graft::set_num_threads(num_threads);
  return GRAFT_OK;
}

extern "C" int32_t graft_device_info(char* json_host, int32_t capacity) {
  return graft::write_device_info(json_host, capacity, "cpu", graft::kIsa, graft::num_threads());
}
