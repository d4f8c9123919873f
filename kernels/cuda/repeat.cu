// Steps that repeat: recordings are graphs of what was launched, fetches wait for an event of their own.
#include <cstdlib>
#include <cstring>

#include "elements.h"
#include "host.h"

namespace graft::gpu {
namespace {

/// Fetches of so many bytes are stored by a kernel: it follows the one before at once, a copy engine would not.
constexpr uint64_t kStored = 16 << 10;

/// The end of the last fetch with each ticket.
cudaEvent_t tickets[GRAFT_TICKETS];

bool is_recording = false;
int num_recordings = 0;

int32_t done(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return GRAFT_OK;
  return fail(GRAFT_DEVICE, "Cannot %s: %s", what, cudaGetErrorString(error));
}

__global__ void advance(int32_t* ids, int32_t* positions, graft_sampling* params, const int32_t* drawn, int32_t N,
                        int32_t M) {
  const int32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < N) {
    ids[i] = max(drawn[i], 0);
    params[i].position++;
  }
  if (i < M) positions[i]++;
}

__global__ void put(int32_t* table, const int32_t* entries, int32_t n, int32_t size, Report* report) {
  const int32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int32_t place = entries[2 * i];
  if (place < 0 || place >= size)
    complain(report, kIndex, i, place, size - 1);
  else
    table[place] = entries[2 * i + 1];
}

__global__ void store(uint32_t* host, const uint32_t* words, uint64_t n) {
  for_each(n, [&](uint64_t i) { host[i] = words[i]; });
}
cudaError_t fetch(void* dst_host, const void* src, uint64_t bytes) {
  if (bytes > kStored || bytes % 4 != 0) return cudaMemcpyAsync(dst_host, src, bytes, cudaMemcpyDeviceToHost, stream());
  GRAFT_LAUNCH(store, grid_for(bytes / 4), kThreads, 0, static_cast<uint32_t*>(dst_host),
               static_cast<const uint32_t*>(src), bytes / 4);
  return cudaGetLastError();
}

}  // namespace

bool recording() { return is_recording; }
bool recorded() { return num_recordings > 0; }

}  // namespace graft::gpu

using namespace graft::gpu;

/// GRAFT_RECORD=0 in the environment turns recording off.
extern "C" int32_t graft_record_begin(void) {
  const char* setting = std::getenv("GRAFT_RECORD");
  if (setting != nullptr && std::strcmp(setting, "0") == 0)
    return graft::fail(GRAFT_UNSUPPORTED, "Cannot record: GRAFT_RECORD is 0");
  GRAFT_CHECK(!is_recording, "Cannot record: a recording has begun already");
  GRAFT_TRY(done(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "record"));
  is_recording = true;
  return GRAFT_OK;
}

extern "C" void* graft_record_end(void) {
  if (!is_recording) {
    graft::fail(GRAFT_INVALID, "Cannot end a recording: none has begun");
    return nullptr;
  }
  is_recording = false;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t recording = nullptr;
  int32_t status = done(cudaStreamEndCapture(stream(), &graph), "record");
  if (status == GRAFT_OK) status = done(cudaGraphInstantiateWithFlags(&recording, graph, 0), "record");
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (status == GRAFT_OK) cudaGraphUpload(recording, stream());
  cudaGetLastError();
  if (status != GRAFT_OK) return nullptr;
  num_recordings++;
  return recording;
}

extern "C" int32_t graft_replay(const void* recording) {
  GRAFT_CHECK(recording, "Cannot replay: the recording is null");
  GRAFT_CHECK(!is_recording, "Cannot replay while recording");
  auto* exec = static_cast<cudaGraphExec_t>(const_cast<void*>(recording));
  GRAFT_TRY(done(cudaGraphLaunch(exec, stream()), "replay"));
  return launched("replay");
}

extern "C" void graft_recording_free(void* recording) {
  if (recording == nullptr) return;
  // What is under way ends first.
  cudaStreamSynchronize(stream());
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recording));
  if (--num_recordings == 0) free_retired();
}

extern "C" int32_t graft_download_begin(void* dst_host, const void* src, uint64_t bytes, int32_t ticket) {
  GRAFT_CHECK(ticket >= 0 && ticket < GRAFT_TICKETS, "Cannot fetch: ticket is %d, expected 0 to %d", ticket,
              GRAFT_TICKETS - 1);
  GRAFT_CHECK(dst_host && src && bytes > 0, "Cannot fetch %llu bytes: a pointer is null or there are none",
              (unsigned long long)bytes);
  GRAFT_CHECK(!is_recording, "Cannot fetch while recording");
  cudaEvent_t& event = tickets[ticket];
  if (event == nullptr) GRAFT_TRY(done(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event"));
  GRAFT_TRY(done(fetch(dst_host, src, bytes), "fetch"));
  return done(cudaEventRecord(event, stream()), "fetch");
}

extern "C" int32_t graft_download_wait(int32_t ticket) {
  GRAFT_CHECK(ticket >= 0 && ticket < GRAFT_TICKETS, "Cannot wait: ticket is %d, expected 0 to %d", ticket,
              GRAFT_TICKETS - 1);
  if (tickets[ticket] != nullptr) GRAFT_TRY(done(cudaEventSynchronize(tickets[ticket]), "wait"));
  return complained("wait");
}

extern "C" int32_t graft_advance(int32_t* ids, int32_t* positions, graft_sampling* params, const int32_t* drawn,
                                 int32_t N, int32_t M) {
  GRAFT_CHECK(ids && positions && params && drawn, "Cannot advance: a pointer is null");
  GRAFT_CHECK(N > 0 && M > 0, "Cannot advance: N = %d, M = %d, expected positive sizes", N, M);
  GRAFT_LAUNCH(advance, grid_for(N > M ? N : M), kThreads, 0, ids, positions, params, drawn, N, M);
  return launched("advance");
}

extern "C" int32_t graft_put(int32_t* table, const int32_t* entries, int32_t n, int32_t size) {
  GRAFT_CHECK(table && entries, "Cannot put: a pointer is null");
  GRAFT_CHECK(n > 0 && size > 0, "Cannot put: n = %d, size = %d, expected positive sizes", n, size);
  GRAFT_LAUNCH(put, grid_for(n), kThreads, 0, table, entries, n, size, report());
  return launched("put");
}
