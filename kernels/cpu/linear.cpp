// Serving linear layers: y[N,out] = x[N,in] Wᵀ (+ bias) (+ residual) with W packed once into panels (panel.h).
// Bytes moved: the weights once for up to kRowGroup rows, x once a panel from a near cache, y once. bfloat16 weights:
// the input is rounded to bfloat16 first; with AVX512_BF16 pairs go through vdpbf16ps, otherwise weights are widened in
// registers. Threads own panels (and, with many rows, groups of rows), never part of a sum. Any sizes.
#include "../common/status.h"
#include "panel.h"
#include "threads.h"

namespace graft {
namespace {

constexpr int64_t kRowGroup = 512;  // rows per pass over a panel: their partial sums (128 KiB) stay in the L2 cache

struct Layout {
  int64_t out, steps, bytes;
  Layout(int64_t out, int64_t in, int32_t dtype)
      : out(out), steps(dtype == GRAFT_BF16 ? (in + 1) / 2 : in), bytes((out + VL - 1) / VL * VL * steps * 4) {}
  int64_t panel_offset(int64_t p) const { return p * kPanel * steps; }  // in 32-bit words
};

/// bfloat16 panels of an odd `in` end in a step whose second channel is zero.
void pack_last_channel(uint32_t* step, int width, const bf16* weight, int64_t in, int rows) {
  for (int row = 0; row < rows; row++) step[row] = weight[row * in + in - 1];
  std::fill(step + rows, step + width, 0u);
}

#if defined(__AVX512BF16__)
using Rounded = bf16;
/// Rounds to bfloat16; denormals become zero, as in the dot products that follow.
void round_row(bf16* to, const float* x, int64_t n, int64_t padded) {
  vloop(n, [&](int64_t i, int lanes) {
    _mm256_mask_storeu_epi16(to + i, vfirst(lanes), (__m256i)_mm512_cvtneps_pbh(vload_n(x + i, lanes)));
  });
  if (padded > n) to[n] = 0;
}
#else
using Rounded = float;
void round_row(float* to, const float* x, int64_t n, int64_t padded) {
  for (int64_t i = 0; i < n; i++) to[i] = bf16_to_float(float_to_bf16(x[i]));
  if (padded > n) to[n] = 0;
}
#endif

/// Input rows as the tile kernels of one dtype read them.
struct Rows {
  const void* data;
  int64_t row, step;  // in elements of the kernel's input type
};

Rows prepare_rows(const float* x, int64_t N, int64_t in, int32_t dtype) {
  if (dtype == GRAFT_F32) return {x, in, 1};
  const int64_t padded = (in + 1) / 2 * 2;
  auto* rounded = static_cast<Rounded*>(thread_scratch(0, 0, N * padded * sizeof(Rounded)));
  const int64_t grain = std::max<int64_t>(1, (64 << 10) / padded);
  parallel_ranges(N, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) round_row(rounded + i * padded, x + i * in, in, padded);
  });
  constexpr int64_t words = sizeof(Rounded) == 2 ? 2 : 1;  // pairs are read as one 32-bit word
  return {rounded, padded / words, 2 / words};
}

struct Call {
  float* y;
  Rows rows;
  const uint32_t* packed;
  const float *bias, *residual;
  Layout layout;
};

/// Rows [first, first + n) times one panel.
template <class Kind>
void run_panel(const Call& call, int64_t panel, int64_t first, int64_t n, int thread) {
  const Layout& layout = call.layout;
  const int64_t channel = panel * kPanel, steps = layout.steps;
  const int width = panel_width(layout.out, panel);
  const int64_t block = n <= kTileRows ? steps : kBlockSteps;
  float* partial = block < steps ? static_cast<float*>(thread_scratch(thread, 1, n * width * sizeof(float))) : nullptr;
  for (int64_t start = 0; start < steps; start += block) {
    const bool last = start + block >= steps;
    Tile tile = {};
    tile.a_row = call.rows.row, tile.a_step = call.rows.step;
    tile.b = call.packed + layout.panel_offset(panel) + start * width;
    tile.b_step = width;
    tile.steps = std::min(block, steps - start);
    tile.from_row = width, tile.to_row = last ? layout.out : width;
    tile.cols = last ? static_cast<int>(std::min<int64_t>(kPanel, layout.out - channel)) : width;
    tile.bias = last && call.bias ? call.bias + channel : nullptr;
    for_tiles(n, [&](int64_t r, int rows) {
      const int64_t row = first + r, at = row * layout.out + channel;
      tile.a = static_cast<const typename Kind::Input*>(call.rows.data) + row * tile.a_row + start * tile.a_step;
      tile.from = start ? partial + r * width : nullptr;
      tile.to = last ? call.y + at : partial + r * width;
      tile.residual = last && call.residual ? call.residual + at : nullptr;
      tile_kernel<Kind>(rows, width)(tile);
    });
  }
}

/// Rough time of one thread: weights at cache speed plus the multiplications.
double nanoseconds(double weights, double rows) { return weights * (0.03 + 0.008 * rows); }

template <class Kind>
void run_linear(const Call& call, int64_t N) {
  const int64_t panels = num_panels(call.layout.out);
  const double cost = nanoseconds(static_cast<double>(call.layout.bytes) / 4, static_cast<double>(N));
  const int threads = cost < 5000 ? 1 : num_threads();
  // Enough tasks to share evenly; a task below about 4 microseconds is not worth its hand-over.
  int64_t groups = (N + kRowGroup - 1) / kRowGroup;
  while (threads > 1 && panels * groups < 4 * threads && N / groups > 8 * kTileRows) groups *= 2;
  const int64_t group_rows = (N + groups - 1) / groups;
  const int64_t per_task =
      threads == 1 ? panels
                   : std::clamp<int64_t>(static_cast<int64_t>(4000 * panels * groups / cost), 1,
                                         std::max<int64_t>(1, panels / (2 * threads)));
  const int64_t panel_tasks = (panels + per_task - 1) / per_task;
  const auto body = [&](int64_t task, int thread) {
    const int64_t first = task % groups * group_rows, end = std::min(N, first + group_rows);
    const int64_t panel = task / groups * per_task;
    for (int64_t p = panel; p < std::min(panels, panel + per_task) && first < end; p++)
      run_panel<Kind>(call, p, first, end - first, thread);
  };
  parallel(panel_tasks * groups, body);
}

int32_t check_shape(int32_t out, int32_t in, int32_t dtype) {
  GRAFT_CHECK(out > 0 && in > 0, "Cannot run a linear layer: shape is [%d, %d], expected positive sizes", out, in);
  GRAFT_CHECK(dtype == GRAFT_F32 || dtype == GRAFT_BF16, "Cannot run a linear layer: dtype is %d, expected 0 or 1",
              dtype);
  return GRAFT_OK;
}

}  // namespace
}  // namespace graft

extern "C" double graft_linear_packed_bytes(int32_t out, int32_t in, int32_t dtype) {
  if (graft::check_shape(out, in, dtype) != GRAFT_OK) return 0;
  return static_cast<double>(graft::Layout(out, in, dtype).bytes);
}

extern "C" int32_t graft_linear_pack(void* packed, const void* weight, int32_t out, int32_t in, int32_t dtype) {
  using namespace graft;
  if (const int32_t status = check_shape(out, in, dtype)) return status;
  GRAFT_CHECK(packed && weight, "Cannot pack a linear weight: a pointer is null");
  const Layout layout(out, in, dtype);
  const int64_t element = dtype == GRAFT_BF16 ? 2 : 4, whole = dtype == GRAFT_BF16 ? in / 2 : in;
  parallel(num_panels(out), [&](int64_t p) {
    auto* dst = static_cast<uint32_t*>(packed) + layout.panel_offset(p);
    const char* src = static_cast<const char*>(weight) + p * kPanel * in * element;
    const int width = panel_width(out, p), rows = static_cast<int>(std::min<int64_t>(kPanel, out - p * kPanel));
    pack_words(dst, width, src, in * element, rows, whole);
    if (whole < layout.steps)
      pack_last_channel(dst + whole * width, width, reinterpret_cast<const bf16*>(src), in, rows);
  });
  return GRAFT_OK;
}

extern "C" int32_t graft_linear(float* y, const float* x, const void* packed, const float* bias, const float* residual,
                                int32_t N, int32_t out, int32_t in, int32_t dtype) {
  using namespace graft;
  if (const int32_t status = check_shape(out, in, dtype)) return status;
  GRAFT_CHECK(N > 0, "Cannot run a linear layer: %d rows, expected at least one", N);
  GRAFT_CHECK(y && x && packed, "Cannot run a linear layer: a pointer is null");
  const Call call = {y,    prepare_rows(x, N, in, dtype), static_cast<const uint32_t*>(packed),
                     bias, residual,                      Layout(out, in, dtype)};
  if (dtype == GRAFT_BF16)
    run_linear<Bfloat16>(call, N);
  else
    run_linear<Float32>(call, N);
  return GRAFT_OK;
}
