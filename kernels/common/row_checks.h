// Argument checks of linear layers, rows and rope, the same in every host library.
#pragma once
#include <cstdint>

#include "status.h"

namespace graft {

inline int32_t check_embedding(const void* y, const int32_t* ids, const void* table, int32_t N, int32_t V, int32_t C,
                               int32_t dtype) {
  GRAFT_CHECK(y && ids && table, "Cannot look up embeddings: a pointer is null");
  GRAFT_CHECK(N > 0 && V > 0 && C > 0, "Cannot look up embeddings: N = %d, V = %d, C = %d, expected positive sizes", N,
              V, C);
  GRAFT_CHECK(dtype == GRAFT_F32 || dtype == GRAFT_BF16, "Cannot look up embeddings: dtype is %d, expected 0 or 1",
              dtype);
  for (int32_t i = 0; i < N; i++)
    GRAFT_CHECK(ids[i] >= 0 && ids[i] < V, "Cannot look up embeddings: id %d of row %d, expected 0 to %d", ids[i], i,
                V - 1);
  return GRAFT_OK;
}

inline int32_t check_rows(const void* y, const void* x, const int32_t* index, int32_t M, int32_t C) {
  GRAFT_CHECK(y && x && index, "Cannot move rows: a pointer is null");
  GRAFT_CHECK(M > 0 && C > 0, "Cannot move rows: M = %d, C = %d, expected positive sizes", M, C);
  for (int32_t i = 0; i < M; i++)
    GRAFT_CHECK(index[i] >= 0, "Cannot move rows: index %d of row %d, expected 0 or more", index[i], i);
  return GRAFT_OK;
}

inline int32_t check_elements(const void* y, const void* a, const void* b, uint64_t n) {
  GRAFT_CHECK(n > 0, "Cannot add vectors: there are no elements");
  GRAFT_CHECK(y && a && b, "Cannot add vectors: a pointer is null");
  return GRAFT_OK;
}

inline int32_t check_linear(int32_t out, int32_t in, int32_t dtype) {
  GRAFT_CHECK(out > 0 && in > 0, "Cannot run a linear layer: shape is [%d, %d], expected positive sizes", out, in);
  GRAFT_CHECK(dtype == GRAFT_F32 || dtype == GRAFT_BF16, "Cannot run a linear layer: dtype is %d, expected 0 or 1",
              dtype);
  return GRAFT_OK;
}

inline int32_t check_rope(const void* y, const void* x, const int32_t* positions, const void* table, int32_t N,
                          int32_t H, int32_t D, int32_t P, int32_t direction) {
  GRAFT_CHECK(y && x && positions && table, "rope: null pointer");
  GRAFT_CHECK(N >= 0 && H > 0 && D > 0 && D % 2 == 0, "rope: N %d, H %d, D %d, expected N >= 0, H > 0, D even", N, H,
              D);
  GRAFT_CHECK(direction == 1 || direction == -1, "rope: direction is %d, expected 1 or -1", direction);
  for (int32_t i = 0; i < N; i++)
    GRAFT_CHECK(positions[i] >= 0 && positions[i] < P, "rope: position %d of row %d is outside the table of %d",
                positions[i], i, P);
  return GRAFT_OK;
}

}  // namespace graft
