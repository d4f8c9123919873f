// The product of many rows on wgmma, which compute capability 9.0 has.
#include "many_rows.h"

namespace graft::gpu {

bool uses_wgmma() { return false; }
void multiply_on_wgmma(ManyRows& plan) { multiply_on_mma(plan); }

}  // namespace graft::gpu
