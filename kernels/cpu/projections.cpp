// Several linear layers of the same normed rows, and the gated linear layer: the rows are normed and rounded once, all
// panels of outputs are shared among the threads in one region, and what follows a sum is done by the task that has it
// in its cache. The bits of the single ops.
#include <vector>

#include "activation.h"
#include "dense_step_checks.h"
#include "packed_linear.h"

namespace graft {
namespace {

/// One weight of a call, its panels behind those of the ones before.
struct Part {
  Call call;
  int32_t activation;
  int64_t first_panel;
};

/// What rows become before they are multiplied: x itself, or their norm in scratch memory.
int32_t normed_rows(const float** rows, const float* x, const float* weight, const float* bias, int32_t N, int32_t in,
                    float eps) {
  *rows = x;
  if (weight == nullptr) return GRAFT_OK;
  auto* normed = static_cast<float*>(thread_scratch(0, 2, sizeof(float) * N * in));
  *rows = normed;
  return bias != nullptr ? graft_layer_norm(normed, x, weight, bias, N, in, eps)
                         : graft_rms_norm(normed, x, weight, N, in, eps);
}

/// y = f(y) of the columns of one panel.
template <class F>
void follow(const Call& call, int64_t panel, int64_t first, int64_t n, F&& f) {
  const int64_t channel = panel * kPanel, columns = std::min<int64_t>(kPanel, call.layout.out - channel);
  for (int64_t i = 0; i < n; i++) {
    float* y = call.y + (first + i) * call.layout.out + channel;
    vloop(columns, [&](int64_t c, int lanes) { store_part(y + c, f(load_part(y + c, lanes)), lanes); });
  }
}

void activate(const Call& call, int32_t activation, int64_t panel, int64_t first, int64_t n) {
  if (activation == GRAFT_SILU) follow(call, panel, first, n, silu);
  if (activation == GRAFT_GELU_TANH) follow(call, panel, first, n, gelu_tanh);
}

template <class Kind>
void run_parts(const Part* parts, int32_t count, int64_t N) {
  double bytes = 0;
  for (int32_t i = 0; i < count; i++) bytes += static_cast<double>(parts[i].call.layout.bytes);
  const Part& last = parts[count - 1];
  for_panels(last.first_panel + num_panels(last.call.layout.out), bytes, N,
             [&](int64_t panel, int64_t end, int64_t first, int64_t n, int thread) {
               const Part* part = parts;
               for (; panel < end; panel++) {
                 while (part < &last && panel >= part[1].first_panel) part++;
                 run_panel<Kind>(part->call, panel - part->first_panel, first, n, thread);
                 activate(part->call, part->activation, panel - part->first_panel, first, n);
               }
             });
}

/// h = silu(gate) up. Panels of `gate`, then the same panels of `up`: each weight is read in long runs, and both
/// results stay in the cache.
template <class Kind>
void run_gated(const Call& gate, const void* up, int64_t N) {
  constexpr int64_t kTogether = 64 << 10;  // floats
  const Layout& layout = gate.layout;
  const auto body = [&](int64_t panel, int64_t last, int64_t first, int64_t n, int thread) {
    const int64_t most = std::max<int64_t>(1, kTogether / (n * kPanel));
    auto* other = static_cast<float*>(thread_scratch(thread, 3, sizeof(float) * n * kPanel * most));
    for (int64_t end; panel < last; panel = end) {
      end = std::min(last, panel + most);
      const int64_t columns = std::min(end * kPanel, layout.out) - panel * kPanel;
      for (int64_t p = panel; p < end; p++) run_panel<Kind>(gate, p, first, n, thread);
      // A layer of its own: these panels and these rows.
      Call upper = gate;
      upper.packed = static_cast<const uint32_t*>(up) + layout.panel_offset(panel);
      upper.layout.out = columns;
      upper.rows.data = static_cast<const typename Kind::Input*>(gate.rows.data) + first * gate.rows.row;
      upper.y = other;
      for (int64_t p = panel; p < end; p++) run_panel<Kind>(upper, p - panel, 0, n, thread);
      for (int64_t i = 0; i < n; i++) {
        float* y = gate.y + (first + i) * layout.out + panel * kPanel;
        const float* u = other + i * columns;
        vloop(columns, [&](int64_t c, int lanes) {
          store_part(y + c, vmul(silu(load_part(y + c, lanes)), load_part(u + c, lanes)), lanes);
        });
      }
    }
  };
  for_panels(num_panels(layout.out), 2.0 * static_cast<double>(layout.bytes), N, body);
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" int32_t graft_projections(const graft_projection* projections_host, int32_t count, const float* x,
                                     const float* norm_weight, const float* norm_bias, int32_t N, int32_t in,
                                     int32_t dtype, float eps) {
  GRAFT_TRY(check_projections(projections_host, count, x, norm_weight, norm_bias, N, in, dtype));
  const float* normed = nullptr;
  GRAFT_TRY(normed_rows(&normed, x, norm_weight, norm_bias, N, in, eps));
  std::vector<Part> parts;
  int64_t panels = 0, widest = 0;
  for (int32_t i = 0; i < count; i++) widest = std::max<int64_t>(widest, projections_host[i].out);
  const Rows rows = prepare_rows(normed, N, Layout(widest, in, dtype), in, dtype);
  for (int32_t i = 0; i < count; i++) {
    const graft_projection& one = projections_host[i];
    const Layout layout(one.out, in, dtype);
    parts.push_back(
        {{one.y, rows, static_cast<const uint32_t*>(one.packed), one.bias, nullptr, layout}, one.activation, panels});
    panels += num_panels(one.out);
  }
  if (dtype == GRAFT_BF16)
    run_parts<Bfloat16>(parts.data(), count, N);
  else
    run_parts<Float32>(parts.data(), count, N);
  return GRAFT_OK;
}

extern "C" int32_t graft_gated_linear(float* h, const float* x, const float* norm_weight, const void* gate,
                                      const void* up, int32_t N, int32_t out, int32_t in, int32_t dtype, float eps) {
  GRAFT_TRY(check_gated_linear(h, x, norm_weight, gate, up, N, out, in, dtype));
  const float* normed = nullptr;
  GRAFT_TRY(normed_rows(&normed, x, norm_weight, nullptr, N, in, eps));
  const Layout layout(out, in, dtype);
  const Call call = {
      h, prepare_rows(normed, N, layout, in, dtype), static_cast<const uint32_t*>(gate), nullptr, nullptr, layout};
  if (dtype == GRAFT_BF16)
    run_gated<Bfloat16>(call, up, N);
  else
    run_gated<Float32>(call, up, N);
  return GRAFT_OK;
}
