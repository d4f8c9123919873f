// Graphs of recorded work, and events, which are over when they are recorded because everything is.
#include "graph.h"

#include <utility>
#include <vector>

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st : CUgraph_st {};
struct CUevent_st {};

namespace simt {
namespace {
thread_local CUgraph_st* under_way = nullptr;
thread_local bool spoiled = false;
}  // namespace

bool recording() { return under_way != nullptr; }
void record(std::function<void()> work) { under_way->work.push_back(std::move(work)); }
cudaError_t refuse_recording() {
  spoiled = true;
  return cudaErrorStreamCaptureUnsupported;
}

}  // namespace simt

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  simt::under_way = new CUgraph_st;
  simt::spoiled = false;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = std::exchange(simt::under_way, nullptr);
  if (!simt::spoiled) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{*graph};
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  for (const auto& work : exec->work) work();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  static CUevent_st only;
  *event = &only;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
