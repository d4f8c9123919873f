// Launches products of many rows on wgmma, which compute capability 9.0 has.
#if !defined(GRAFT_SIMT)
#include "host.h"
#include "wgmma_sums.h"

namespace graft::gpu {

bool prepare_form(const WgmmaForm& form) {
  const auto* kernel = reinterpret_cast<const void*>(kernel_of(form));
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes_of(form)) == cudaSuccess &&
         cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared) ==
             cudaSuccess;
}

cudaError_t launch_form(ManyRows& plan, const WgmmaForm& form, int32_t* stuck) {
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(form.cluster), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks_of(plan, form, num_multiprocessors()));
  config.blockDim = dim3(threads_of(form));
  config.dynamicSmemBytes = bytes_of(form);
  config.attrs = attributes;
  config.numAttrs = starts_early() ? 2 : 1;
  config.stream = early_stream();
  return cudaLaunchKernelEx(&config, kernel_of(form), plan, stuck);
}

}  // namespace graft::gpu
#endif
