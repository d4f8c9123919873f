// The reference library is never timed: it reports no limits.
#include "status.h"

extern "C" double graft_bench_read(const void*, uint64_t, int32_t) {
  graft::fail(GRAFT_UNSUPPORTED, "Cannot measure the machine with the reference kernels");
  return 0;
}

extern "C" double graft_bench_flops(int32_t, double) {
  graft::fail(GRAFT_UNSUPPORTED, "Cannot measure the machine with the reference kernels");
  return 0;
}
