#include "status.h"

#include <cstdarg>
#include <cstdio>

namespace graft {
namespace {
thread_local char message[512] = "";
}

int32_t fail(graft_status status, const char* format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return status;
}

const char* last_error() { return message; }

}  // namespace graft

extern "C" const char* graft_last_error(void) { return graft::last_error(); }
extern "C" int32_t graft_abi_version(void) { return GRAFT_ABI_VERSION; }
