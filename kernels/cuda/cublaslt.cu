// The few functions of cublasLt that one product takes, declared by hand: the library is opened when it is asked for.
#include <dlfcn.h>

#include <cstdlib>

#include "cublaslt.h"
#include "device_time.h"
#include "elements.h"
#include "host.h"

namespace graft::gpu {

#if defined(GRAFT_SIMT)

bool has_cublaslt() { return false; }
double cublaslt_rate(int, double) { return 0; }

#else

namespace {

// From cublasLt.h and cublas_api.h.
using Handle = struct cublasLtContext*;
using Operation = struct cublasLtMatmulDescOpaque_t*;
using Layout = struct cublasLtMatrixLayoutOpaque_t*;
constexpr int kCompute32F = 68, kTransposeLeft = 3, kTransposed = 1, kSuccess = 0;

void* open_library() {
  const char* named = std::getenv("GRAFT_CUBLASLT");
  if (named != nullptr) return dlopen(named, RTLD_LAZY | RTLD_LOCAL);
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"})
    if (void* library = dlopen(name, RTLD_LAZY | RTLD_LOCAL)) return library;
  return nullptr;
}

struct Library {
  void* library = open_library();
  template <class F>
  bool find(F*& function, const char* name) const {
    function = library == nullptr ? nullptr : reinterpret_cast<F*>(dlsym(library, name));
    return function != nullptr;
  }
  int (*create)(Handle*) = nullptr;
  int (*destroy)(Handle) = nullptr;
  int (*create_operation)(Operation*, int, int) = nullptr;
  int (*set)(Operation, int, const void*, size_t) = nullptr;
  int (*destroy_operation)(Operation) = nullptr;
  int (*create_layout)(Layout*, int, uint64_t, uint64_t, int64_t) = nullptr;
  int (*destroy_layout)(Layout) = nullptr;
  int (*multiply)(Handle, Operation, const void*, const void*, Layout, const void*, Layout, const void*, const void*,
                  Layout, void*, Layout, const void*, void*, size_t, cudaStream_t) = nullptr;
  bool complete = find(create, "cublasLtCreate") && find(destroy, "cublasLtDestroy") &&
                  find(create_operation, "cublasLtMatmulDescCreate") && find(set, "cublasLtMatmulDescSetAttribute") &&
                  find(destroy_operation, "cublasLtMatmulDescDestroy") &&
                  find(create_layout, "cublasLtMatrixLayoutCreate") &&
                  find(destroy_layout, "cublasLtMatrixLayoutDestroy") && find(multiply, "cublasLtMatmul");
};

const Library& library() {
  static const Library one;
  return one;
}

__global__ void randomize(uint32_t* to, uint64_t n) {
  for_each(n, [&](uint64_t i) { to[i] = random_pair(static_cast<uint32_t>(i)); });
}

}  // namespace

bool has_cublaslt() { return library().complete; }

double cublaslt_rate(int n, double seconds) {
  const Library& lt = library();
  if (!lt.complete) return 0;
  uint16_t* memory = nullptr;
  const uint64_t elements = static_cast<uint64_t>(n) * n;
  if (cudaMalloc(reinterpret_cast<void**>(&memory), 3 * elements * sizeof(uint16_t)) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  GRAFT_LAUNCH(randomize, grid_for(elements), kThreads, 0, reinterpret_cast<uint32_t*>(memory), elements);
  Handle handle = nullptr;
  Operation operation = nullptr;
  Layout layout = nullptr;
  double rate = 0;
  const float one = 1, zero = 0;
  if (lt.create(&handle) == kSuccess && lt.create_operation(&operation, kCompute32F, CUDA_R_32F) == kSuccess &&
      lt.set(operation, kTransposeLeft, &kTransposed, sizeof kTransposed) == kSuccess &&
      lt.create_layout(&layout, CUDA_R_16BF, n, n, n) == kSuccess) {
    bool worked = true;
    rate = best_rate(2.0 * n * elements, seconds, [&] {
      worked = worked && lt.multiply(handle, operation, &one, memory, layout, memory + elements, layout, &zero,
                                     memory + 2 * elements, layout, memory + 2 * elements, layout, nullptr, nullptr, 0,
                                     stream()) == kSuccess;
    });
    if (!worked) rate = 0;
  }
  if (layout != nullptr) lt.destroy_layout(layout);
  if (operation != nullptr) lt.destroy_operation(operation);
  if (handle != nullptr) lt.destroy(handle);
  cudaStreamSynchronize(stream());
  cudaFree(memory);
  return rate;
}

#endif

}  // namespace graft::gpu
