// Statuses of the C ABI: set the text of the last error and return the code. Thread-local, so that a caller reads its
// own.
#pragma once
#include <cstdint>

#include "graft.h"

namespace graft {

/// Keeps a printf-style message for graft_last_error() and returns `status`.
int32_t fail(graft_status status, const char* format, ...) __attribute__((format(printf, 2, 3)));
const char* last_error();

}  // namespace graft

/// Returns GRAFT_INVALID with the message when the condition does not hold.
#define GRAFT_CHECK(condition, ...)                                     \
  do {                                                                  \
    if (!(condition)) return ::graft::fail(GRAFT_INVALID, __VA_ARGS__); \
  } while (0)

/// Leaves the calling op with the status of a failed check.
#define GRAFT_TRY(call)                                 \
  do {                                                  \
    if (const int32_t status_ = (call)) return status_; \
  } while (0)
