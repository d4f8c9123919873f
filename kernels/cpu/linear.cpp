// Serving linear layers: y[N,out] = x[N,in] Wᵀ (+ bias) (+ residual) with W packed once into panels (panel.h).
// Bytes moved: the weights once for up to kRowGroup rows, x once a panel from a near cache, y once. bfloat16 weights:
// the input is rounded to bfloat16 first; with AVX512_BF16 pairs go through vdpbf16ps, otherwise weights are widened in
// registers. Threads own panels (and, with many rows, groups of rows), never part of a sum. Any sizes.
#include "packed_linear.h"
#include "row_checks.h"

namespace graft {
namespace {

/// bfloat16 panels of an odd `in` end in a step whose second channel is zero.
void pack_last_channel(uint32_t* step, int width, const bf16* weight, int64_t in, int rows) {
  for (int row = 0; row < rows; row++) step[row] = weight[row * in + in - 1];
  std::fill(step + rows, step + width, 0u);
}

}  // namespace
}  // namespace graft

extern "C" double graft_linear_packed_bytes(int32_t out, int32_t in, int32_t dtype) {
  if (graft::check_linear(out, in, dtype) != GRAFT_OK) return 0;
  return static_cast<double>(graft::Layout(out, in, dtype).bytes);
}

extern "C" int32_t graft_linear_pack(void* packed, const void* weight, int32_t out, int32_t in, int32_t dtype) {
  using namespace graft;
  GRAFT_TRY(check_linear(out, in, dtype));
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
  GRAFT_TRY(check_linear(out, in, dtype));
  GRAFT_CHECK(N > 0, "Cannot run a linear layer: %d rows, expected at least one", N);
  GRAFT_CHECK(y && x && packed, "Cannot run a linear layer: a pointer is null");
  const Layout layout(out, in, dtype);
  const Rows rows = prepare_rows(x, N, layout, in, dtype);
  const Call call = {y, rows, static_cast<const uint32_t*>(packed), bias, residual, layout};
  for_panels(num_panels(out), static_cast<double>(layout.bytes), N,
             [&](int64_t panel, int64_t end, int64_t first, int64_t n, int thread) {
               for (; panel < end; panel++) {
                 if (dtype == GRAFT_BF16)
                   run_panel<Bfloat16>(call, panel, first, n, thread);
                 else
                   run_panel<Float32>(call, panel, first, n, thread);
               }
             });
  return GRAFT_OK;
}
