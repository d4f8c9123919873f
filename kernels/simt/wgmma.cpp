// Runs the kernels of wgmma_sums.h, clusters and all, so that tests see their order of copies, barriers and sums.
#define GRAFT_EMULATE_WGMMA 1
#include <thread>
#include <vector>

#include "simt.h"
// The language stands before the kernels.
#include "wgmma_sums.h"

namespace graft::gpu {
namespace {

struct FormCall {
  Kernel kernel;
  ManyRows plan;
  static void run(void* self) {
    auto* call = static_cast<FormCall*>(self);
    call->kernel(call->plan, nullptr);
  }
};

/// Block `index` of the grid, as block `rank` of the cluster, in this system thread.
std::string run_alone(FormCall call, const WgmmaForm& form, unsigned grid, unsigned index, int32_t rank) {
  const unsigned threads = threads_of(form);
  simt::rank = rank;
  simt::Block& block = simt::resources(threads);
  block.threads = threads;
  block.warps.resize(threads / kWarp);
  block.kernel = "wgmma_sums";
  block.grid = dim3(grid);
  block.size = dim3(threads);
  block.index = dim3(index);
  block.shared_bytes = bytes_of(form);
  block.body = &FormCall::run;
  block.argument = &call;
  block.fault.clear();
  for (unsigned t = 0; t < threads; t++) {
    block.fibers[t].thread = t;
    block.fibers[t].warp = t / kWarp;
    block.fibers[t].index = dim3(t);
  }
  {
    std::lock_guard lock(simt::cluster.mutex);
    simt::own().shared = block.shared;
    simt::cluster.gathered++;
  }
  const auto all_there = [] {
    std::lock_guard lock(simt::cluster.mutex);
    return simt::cluster.gathered == simt::cluster.size;
  };
  while (!all_there()) sched_yield();
  simt::running = &block;
  simt::run_block(block);
  simt::running = nullptr;
  return block.fault;
}

}  // namespace
}  // namespace graft::gpu

/// In one launch y[N, out] = x Wᵀ + bias + residual and gated[N, gated_out] = silu(x gateᵀ) ⊙ (x upᵀ), by the form-th
/// of kWgmmaForms on a device of so many multiprocessors.
extern "C" GRAFT_EXPORT int32_t graft_simt_wgmma(int32_t form_index, int32_t units, float* y, const void* packed,
                                                 const float* bias, const float* residual, int32_t out, float* gated,
                                                 const void* gate, const void* up, int32_t gated_out, const float* x,
                                                 int32_t N, int32_t in) {
  using namespace graft::gpu;
  const WgmmaForm& form = kWgmmaForms[form_index];
  void* arranged = nullptr;
  GRAFT_CHECK(cudaMalloc(&arranged, arranged_bytes(N, in)) == cudaSuccess, "Cannot multiply: no memory");
  arrange_many_rows(static_cast<uint16_t*>(arranged), x, N, in);
  const Product products[] = {{y, packed, nullptr, bias, residual, out, GRAFT_IDENTITY},
                              {gated, gate, up, nullptr, nullptr, gated_out, GRAFT_IDENTITY}};
  FormCall call{kernel_of(form), plan_of(products, 2, static_cast<uint16_t*>(arranged), N, in)};
  const int32_t grid = blocks_of(call.plan, form, units);
  std::string fault;
  for (int32_t first = 0; first < grid && fault.empty(); first += form.cluster) {
    simt::cluster.size = form.cluster;
    simt::cluster.gathered = simt::cluster.arrived = simt::cluster.rounds = 0;
    std::vector<std::thread> threads;
    std::string faults[simt::Cluster::kMost];
    for (int32_t r = 0; r < form.cluster; r++)
      threads.emplace_back([&, r] { faults[r] = run_alone(call, form, grid, first + r, r); });
    for (std::thread& thread : threads) thread.join();
    for (const std::string& one : faults)
      if (fault.empty()) fault = one;
  }
  cudaFree(arranged);
  if (!fault.empty()) return graft::fail(GRAFT_DEVICE, "%s", fault.c_str());
  return launched("wgmma");
}
