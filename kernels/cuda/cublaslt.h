// NVIDIA's library of matrix products, as a peer to measure by; found when the program runs, never needed.
#pragma once

namespace graft::gpu {

/// Whether libcublasLt is there (GRAFT_CUBLASLT may name it).
bool has_cublaslt();
/// FLOP/s of its bfloat16 product of n by n matrices of random numbers, best of repeats; 0 where there is none.
double cublaslt_rate(int n, double seconds);

}  // namespace graft::gpu
