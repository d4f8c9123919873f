// Plain float32 products of training: y = x Wᵀ, dx = dy W, dw = dyᵀ x, and column sums.
// All three are C[rows, cols] = A B with B[depth, cols] packed into panels (panel.h) for the call. The depth is cut
// into slabs whose packed B stays near the cores; a task is one panel times a group of rows and walks its slab block by
// block, with partial sums in C. Each output element has one accumulator and takes the depth in ascending order, so
// neither threads nor cuts change a bit. Bytes moved: B twice, A once a panel from the L2 cache. Any sizes.
#include "panel.h"
#include "status.h"
#include "threads.h"

namespace graft {
namespace {

constexpr int64_t kSlabFloats = 1 << 20;  // packed B of a slab: 4 MiB
constexpr int64_t kGroupRows = 252;       // rows per task: their block of A (126 KiB) and of C stay in the L2 cache

/// A matrix seen through strides: element (i, k) is data[i * row + k * step].
struct Strided {
  const float* data;
  int64_t row, step;
};

struct Product {
  float* c;
  Strided a;
  Strided b;  // element (k, j) is data[j * row + k * step]; one of the strides is 1
  int64_t rows, cols, depth;
  const float* bias;
  bool accumulate;
};

/// Panel `p` of B for depth [start, start + n).
void pack_panel(float* dst, const Product& m, int64_t p, int64_t start, int64_t n) {
  const int width = panel_width(m.cols, p), valid = static_cast<int>(std::min<int64_t>(kPanel, m.cols - p * kPanel));
  const float* src = m.b.data + p * kPanel * m.b.row + start * m.b.step;
  if (m.b.step == 1) {
    pack_words(reinterpret_cast<uint32_t*>(dst), width, src, m.b.row * 4, valid, n);
    return;
  }
  for (int64_t k = 0; k < n; k++, src += m.b.step, dst += width)
    for (int j = 0; j < width; j += VL) vstore(dst + j, load_part(src + j, std::max(0, valid - j)));
}

/// Rows [first, first + n) times panel `p` over the depth [start, start + depth), whose packed steps begin at `packed`.
void run_panel(const Product& m, const float* packed, int64_t p, int64_t first, int64_t n, int64_t start,
               int64_t depth) {
  const int width = panel_width(m.cols, p);
  Tile tile = {};
  tile.a_row = m.a.row, tile.a_step = m.a.step, tile.b_step = width;
  tile.from_row = tile.to_row = m.cols;
  tile.cols = static_cast<int>(std::min<int64_t>(kPanel, m.cols - p * kPanel));
  for (int64_t k = 0; k < depth; k += kBlockSteps) {
    const bool from = start + k > 0 || m.accumulate, last = start + k + kBlockSteps >= m.depth;
    tile.b = packed + k * width;
    tile.steps = std::min(kBlockSteps, depth - k);
    tile.bias = last && m.bias ? m.bias + p * kPanel : nullptr;
    const float* a = m.a.data + first * m.a.row + (start + k) * m.a.step;
    for_tiles(n, [&](int64_t, int64_t r, int height) {
      tile.a = a + r * m.a.row;
      tile.to = m.c + (first + r) * m.cols + p * kPanel;
      tile.from = from ? tile.to : nullptr;
      tile_kernel<Float32>(height, width)(tile);
    });
  }
}

void run_product(const Product& m) {
  const int64_t panels = num_panels(m.cols), padded = (m.cols + VL - 1) / VL * VL;
  const int64_t slab = std::min(m.depth, std::max(kBlockSteps, kSlabFloats / padded / kBlockSteps * kBlockSteps));
  auto* packed = static_cast<float*>(thread_scratch(0, 0, padded * slab * sizeof(float)));
  const bool alone = static_cast<double>(m.rows) * static_cast<double>(m.cols) * static_cast<double>(m.depth) < 4e5;
  const auto each = [alone](int64_t tasks, auto&& body) {
    if (!alone) return parallel(tasks, body);
    for (int64_t i = 0; i < tasks; i++) body(i);
  };
  int64_t groups = (m.rows + kGroupRows - 1) / kGroupRows;
  while (!alone && panels * groups < 4 * num_threads() && m.rows / groups > 8 * kTileRows) groups *= 2;
  const int64_t group_rows = (m.rows + groups - 1) / groups;
  for (int64_t start = 0; start < m.depth; start += slab) {
    const int64_t depth = std::min(slab, m.depth - start);
    each(panels, [&](int64_t p) { pack_panel(packed + p * kPanel * depth, m, p, start, depth); });
    each(panels * groups, [&](int64_t task) {
      const int64_t p = task / groups, first = task % groups * group_rows, end = std::min(m.rows, first + group_rows);
      if (first < end) run_panel(m, packed + p * kPanel * depth, p, first, end - first, start, depth);
    });
  }
}

int32_t check(const void* out, const void* a, const void* b, int32_t N, int32_t M, int32_t K) {
  GRAFT_CHECK(out && a && b, "Cannot multiply matrices: a pointer is null");
  GRAFT_CHECK(N > 0 && M > 0 && K > 0, "Cannot multiply matrices: N = %d, M = %d, K = %d, expected positive sizes", N,
              M, K);
  return GRAFT_OK;
}

}  // namespace
}  // namespace graft

extern "C" int32_t graft_matmul_nt(float* y, const float* x, const float* w, const float* bias, int32_t N, int32_t M,
                                   int32_t K, int32_t accumulate) {
  GRAFT_TRY(graft::check(y, x, w, N, M, K));
  graft::run_product({y, {x, K, 1}, {w, K, 1}, N, M, K, bias, accumulate != 0});
  return GRAFT_OK;
}

extern "C" int32_t graft_matmul_nn(float* dx, const float* dy, const float* w, int32_t N, int32_t M, int32_t K,
                                   int32_t accumulate) {
  GRAFT_TRY(graft::check(dx, dy, w, N, M, K));
  graft::run_product({dx, {dy, M, 1}, {w, 1, K}, N, K, M, nullptr, accumulate != 0});
  return GRAFT_OK;
}

extern "C" int32_t graft_matmul_tn(float* dw, const float* dy, const float* x, int32_t N, int32_t M, int32_t K,
                                   int32_t accumulate) {
  GRAFT_TRY(graft::check(dw, dy, x, N, M, K));
  graft::run_product({dw, {dy, 1, M}, {x, 1, K}, M, K, N, nullptr, accumulate != 0});
  return GRAFT_OK;
}

extern "C" int32_t graft_sum_rows(float* db, const float* dy, int32_t N, int32_t M, int32_t accumulate) {
  using namespace graft;
  GRAFT_CHECK(db && dy, "Cannot sum rows: a pointer is null");
  GRAFT_CHECK(N > 0 && M > 0, "Cannot sum rows: N = %d, M = %d, expected positive sizes", N, M);
  const int64_t grain = static_cast<int64_t>(N) * M < (1 << 16) ? M : kPanel;
  parallel_ranges(M, grain, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += kPanel) {
      vf sums[kPanelVectors];
      for (int v = 0; v < kPanelVectors; v++) sums[v] = vzero();
      const int cols = static_cast<int>(std::min<int64_t>(kPanel, end - j));
      for (int64_t i = 0; i < N; i++)
        for (int v = 0; v < kPanelVectors; v++)
          if (v * VL < cols) sums[v] = vadd(sums[v], load_part(dy + i * M + j + v * VL, cols - v * VL));
      for (int v = 0; v * VL < cols; v++) {
        float* out = db + j + v * VL;
        const int lanes = cols - v * VL;
        store_part(out, accumulate ? vadd(load_part(out, lanes), sums[v]) : sums[v], lanes);
      }
    }
  });
  return GRAFT_OK;
}
