// Row moves, embeddings and element-wise sums.
#include "elements.h"
#include "host.h"
#include "packed.h"

namespace graft::gpu {
namespace {

/// One block a row. y[i] = table[ids[i]]
__global__ void embedding(float* y, const int32_t* ids, const void* table, int32_t V, int32_t C, int32_t dtype,
                          bool packed, Report* report) {
  depend_launch();
  depend_wait();
  const int32_t row = blockIdx.x, id = ids[row];
  if (id < 0 || id >= V) {
    if (threadIdx.x == 0) complain(report, kIndex, row, id, V - 1);
    return;
  }
  for (int32_t c = threadIdx.x; c < C; c += blockDim.x) {
    const int64_t plain = static_cast<int64_t>(id) * C + c;
    float value;
    if (dtype == GRAFT_F32)
      value = static_cast<const float*>(table)[packed ? plain_index(id, c, C) : plain];
    else
      value = to_float(static_cast<const uint16_t*>(table)[packed ? packed_index(id, c, C) : plain]);
    y[static_cast<int64_t>(row) * C + c] = value;
  }
}

/// One block a row: y[to] = x[from], one of the two given by the index.
__global__ void move_rows(float* y, const float* x, const int32_t* index, int32_t C, bool scatter, Report* report) {
  depend_launch();
  depend_wait();
  const int64_t row = blockIdx.x, other = index[row];
  if (other < 0) {
    if (threadIdx.x == 0) complain(report, kIndex, static_cast<int32_t>(row), static_cast<int32_t>(other), 0x7fffffff);
    return;
  }
  const float* from = x + (scatter ? row : other) * C;
  float* to = y + (scatter ? other : row) * C;
  for (int32_t c = threadIdx.x; c < C; c += blockDim.x) to[c] = from[c];
}

__global__ void add(float* y, const float* a, const float* b, uint64_t n) {
  depend_launch();
  depend_wait();
  for_each(n, [&](uint64_t i) { y[i] = a[i] + b[i]; });
}

__global__ void axpy(float* y, const float* x, uint64_t n, float alpha) {
  depend_launch();
  depend_wait();
  for_each(n, [&](uint64_t i) { y[i] = fmaf(alpha, x[i], y[i]); });
}

int32_t move(const char* op, float* y, const float* x, const int32_t* index, int32_t M, int32_t C, bool scatter) {
  GRAFT_CHECK(y && x && index, "Cannot move rows: a pointer is null");
  GRAFT_CHECK(M > 0 && C > 0, "Cannot move rows: M = %d, C = %d, expected positive sizes", M, C);
  GRAFT_LAUNCH_EARLY(move_rows, dim3(M), kThreads, 0, y, x, index, C, scatter, report());
  return launched(op);
}

}  // namespace
}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_embedding(float* y, const int32_t* ids, const void* table, int32_t N, int32_t V, int32_t C,
                                   int32_t dtype, int32_t packed) {
  GRAFT_CHECK(y && ids && table, "Cannot look up embeddings: a pointer is null");
  GRAFT_CHECK(N > 0 && V > 0 && C > 0, "Cannot look up embeddings: N = %d, V = %d, C = %d, expected positive sizes", N,
              V, C);
  GRAFT_CHECK(dtype == GRAFT_F32 || dtype == GRAFT_BF16, "Cannot look up embeddings: dtype is %d, expected 0 or 1",
              dtype);
  GRAFT_LAUNCH_EARLY(embedding, dim3(N), kThreads, 0, y, ids, table, V, C, dtype, packed != 0, report());
  return launched("embedding");
}

extern "C" int32_t graft_gather_rows(float* y, const float* x, const int32_t* index, int32_t M, int32_t C) {
  return move("gather_rows", y, x, index, M, C, false);
}

extern "C" int32_t graft_scatter_rows(float* y, const float* x, const int32_t* index, int32_t M, int32_t C) {
  return move("scatter_rows", y, x, index, M, C, true);
}

extern "C" int32_t graft_add(float* y, const float* a, const float* b, uint64_t n) {
  GRAFT_CHECK(n > 0, "Cannot add vectors: there are no elements");
  GRAFT_CHECK(y && a && b, "Cannot add vectors: a pointer is null");
  GRAFT_LAUNCH_EARLY(add, grid_for(n), kThreads, 0, y, a, b, n);
  return launched("add");
}

extern "C" int32_t graft_axpy(float* y, const float* x, uint64_t n, float alpha) {
  GRAFT_CHECK(n > 0, "Cannot add vectors: there are no elements");
  GRAFT_CHECK(y && x, "Cannot add vectors: a pointer is null");
  GRAFT_LAUNCH_EARLY(axpy, grid_for(n), kThreads, 0, y, x, n, alpha);
  return launched("axpy");
}
