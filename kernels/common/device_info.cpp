#include "device_info.h"

#include <cpuid.h>
#include <sys/sysinfo.h>

#include <cstring>
#include <string>

#include "status.h"

namespace graft {
namespace {

/// The processor's brand string with outer blanks removed.
std::string processor_name() {
  unsigned registers[12] = {};
  if (__get_cpuid_max(0x80000000, nullptr) < 0x80000004) return "unknown";
  for (unsigned i = 0; i < 3; i++) {
    unsigned* r = registers + 4 * i;
    __get_cpuid(0x80000002 + i, r, r + 1, r + 2, r + 3);
  }
  char text[sizeof registers + 1] = {};
  std::memcpy(text, registers, sizeof registers);
  std::string name;
  for (const char* c = text; *c; c++)
    if (*c >= ' ' && *c < 127 && *c != '"' && *c != '\\') name += *c;
  const size_t first = name.find_first_not_of(' '), last = name.find_last_not_of(' ');
  return first == std::string::npos ? "unknown" : name.substr(first, last - first + 1);
}

std::string feature_list() {
  std::string list;
  const auto add = [&list](const char* name, bool present) {
    if (present) list += (list.empty() ? "\"" : ",\"") + std::string(name) + "\"";
  };
  __builtin_cpu_init();
  add("avx2", __builtin_cpu_supports("avx2"));
  add("fma", __builtin_cpu_supports("fma"));
  add("f16c", __builtin_cpu_supports("f16c"));
  add("avx512f", __builtin_cpu_supports("avx512f"));
  add("avx512bw", __builtin_cpu_supports("avx512bw"));
  add("avx512dq", __builtin_cpu_supports("avx512dq"));
  add("avx512vl", __builtin_cpu_supports("avx512vl"));
  add("avx512bf16", __builtin_cpu_supports("avx512bf16"));
  return list;
}

}  // namespace

int32_t write_device_info(char* json, int32_t capacity, const char* backend, const char* isa, int threads) {
  GRAFT_CHECK(json && capacity > 0, "Cannot describe the device: no buffer");
  struct sysinfo info = {};
  sysinfo(&info);
  const std::string text = "{\"name\":\"" + processor_name() + "\",\"backend\":\"" + backend + "\",\"isa\":\"" + isa +
                           "\",\"threads\":" + std::to_string(threads) + ",\"features\":[" + feature_list() +
                           "],\"memory\":" + std::to_string(uint64_t{info.totalram} * info.mem_unit) + "}";
  GRAFT_CHECK(text.size() < static_cast<size_t>(capacity), "Cannot describe the device: %d bytes given, %zu needed",
              capacity, text.size() + 1);
  std::memcpy(json, text.c_str(), text.size() + 1);
  return GRAFT_OK;
}

}  // namespace graft
