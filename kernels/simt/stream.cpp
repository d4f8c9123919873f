// The stream: work done at once, held until somebody waits, or kept as a graph. Copies between the device and plain
// host memory are what CUDA makes of them: such an upload has read its source when it returns, such a download waits;
// pinned memory is read and written when the stream comes to it.
#include <cstdlib>
#include <deque>
#include <utility>

#include "block.h"
#include "loss.h"
#include "memory.h"

using Work = std::function<void()>;

struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};
struct CUevent_st {
  uint64_t recorded = 0, done = 0;
};
struct CUstream_st {
  std::deque<Work> queue;
  bool held = false, invalidated = false;
  CUgraph_st* capture = nullptr;
};

namespace {

thread_local CUstream_st the_stream;
thread_local std::string last_fault, said;
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t refuse(cudaError_t error) {
  if (last_error == cudaSuccess) last_error = error;
  return error;
}

/// What a capture may not meet: an error, and the capture is lost.
bool capturing() {
  if (the_stream.capture == nullptr) return false;
  the_stream.invalidated = true;
  return true;
}

/// The error of what has been done: the emulator's own fault, or the device is lost.
cudaError_t outcome() {
  if (last_error == cudaErrorLaunchFailure || simt::lost()) return cudaGetLastError();
  return cudaSuccess;
}

cudaError_t drain() {
  while (!the_stream.queue.empty()) {
    const Work work = std::move(the_stream.queue.front());
    the_stream.queue.pop_front();
    work();
    // After a fault a device does nothing more.
    if (last_error == cudaErrorLaunchFailure) the_stream.queue.clear();
  }
  return outcome();
}

/// The host's turn on the stream: kernels before it have ended.
void submit_host(Work work) {
  simt::submit([work = std::move(work)] {
    simt::all_before_is_done();
    work();
  });
}

}  // namespace

namespace simt {

void report_fault(const std::string& text) {
  if (last_error == cudaErrorLaunchFailure) return;
  last_error = cudaErrorLaunchFailure;
  last_fault = text;
}

void submit(Work work) {
  if (the_stream.capture != nullptr)
    the_stream.capture->work.push_back(std::move(work));
  else if (the_stream.held)
    the_stream.queue.push_back(std::move(work));
  else
    work();
}

void hold_stream(bool held) {
  the_stream.held = held;
  if (!held) drain();
}

}  // namespace simt

cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  if (simt::lost()) return cudaErrorLaunchFailure;
  const bool to_host = kind == cudaMemcpyDeviceToHost, from_host = kind == cudaMemcpyHostToDevice;
  const bool plain = (to_host && !simt::is_pinned(dst)) || (from_host && !simt::is_pinned(src));
  if (plain && the_stream.capture != nullptr) {
    simt::report_fault("a copy from or to plain host memory is captured: pinned memory is wanted");
    return refuse(cudaErrorStreamCaptureUnsupported);
  }
  if (from_host && plain && the_stream.held) {
    std::vector<unsigned char> taken(static_cast<const unsigned char*>(src),
                                     static_cast<const unsigned char*>(src) + bytes);
    submit_host([dst, bytes, taken = std::move(taken)] { std::memcpy(dst, taken.data(), bytes); });
    return cudaSuccess;
  }
  submit_host([=] { std::memmove(dst, src, bytes); });
  return to_host && plain ? drain() : cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  if (simt::lost()) return cudaErrorLaunchFailure;
  submit_host([=] { std::memset(p, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = &the_stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  if (capturing()) return refuse(cudaErrorStreamCaptureUnsupported);
  simt::all_before_is_done();
  return drain();
}

cudaError_t cudaDeviceSynchronize() { return cudaStreamSynchronize(nullptr); }

cudaError_t cudaStreamQuery(cudaStream_t) {
  if (capturing()) return refuse(cudaErrorStreamCaptureUnsupported);
  return the_stream.queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  const uint64_t count = ++event->recorded;
  simt::submit([event, count] { event->done = count; });
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (capturing()) return refuse(cudaErrorStreamCaptureUnsupported);
  return event->done == event->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (capturing()) return refuse(cudaErrorStreamCaptureUnsupported);
  // Only so far: what comes after the event stays under way.
  while (event->done != event->recorded && !the_stream.queue.empty()) {
    const Work work = std::move(the_stream.queue.front());
    the_stream.queue.pop_front();
    work();
    if (last_error == cudaErrorLaunchFailure) the_stream.queue.clear();
  }
  return outcome();
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  drain();
  delete event;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  if (capturing()) return refuse(cudaErrorStreamCaptureUnsupported);
  the_stream.capture = new CUgraph_st;
  the_stream.invalidated = false;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = std::exchange(the_stream.capture, nullptr);
  if (*graph == nullptr) return refuse(cudaErrorInvalidValue);
  if (!the_stream.invalidated) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return refuse(cudaErrorStreamCaptureInvalidated);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = the_stream.capture == nullptr ? cudaStreamCaptureStatusNone
            : the_stream.invalidated      ? cudaStreamCaptureStatusInvalidated
                                          : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  submit_host([] {});
  for (const Work& work : exec->work) simt::submit(work);
  submit_host([] {});
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;  // what was submitted holds its own
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t bytes) {
  if (capturing()) return refuse(cudaErrorStreamCaptureUnsupported);
  if (simt::lost()) return cudaErrorLaunchFailure;
  if (!simt::has_memory(bytes)) return refuse(cudaErrorMemoryAllocation);
  *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*p == nullptr) return refuse(cudaErrorMemoryAllocation);
  std::memset(*p, 0xff, bytes);  // NaN: device memory begins with anything
  simt::add_allocation(*p, bytes, false);
  simt::memory_taken(bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  if (p == nullptr) return cudaSuccess;
  if (capturing()) return refuse(cudaErrorStreamCaptureUnsupported);
  const cudaError_t error = drain();  // it waits for the device
  simt::memory_given_back(simt::remove_allocation(p));
  std::free(p);
  return error;
}

cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  if (capturing()) return refuse(cudaErrorStreamCaptureUnsupported);
  *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*p == nullptr) return refuse(cudaErrorMemoryAllocation);
  simt::add_allocation(*p, bytes, true);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* p) {
  if (p == nullptr) return cudaSuccess;
  const cudaError_t error = drain();
  simt::remove_allocation(p);
  std::free(p);
  return error;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = std::exchange(last_error, cudaSuccess);
  said = std::exchange(last_fault, {});
  return simt::lost() ? cudaErrorLaunchFailure : error;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorLaunchFailure:
      return said.empty() ? "unspecified launch failure" : said.c_str();
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    default:
      return "invalid argument";
  }
}
