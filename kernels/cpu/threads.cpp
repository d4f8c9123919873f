// The thread pool of threads.h. A region is opened at a gate; idle workers step in, everyone takes task numbers from
// one counter, the caller closes the gate when they run out and waits for those inside. A worker that is late or asleep
// is simply not waited for. Idle workers spin for a short while (a decoder issues hundreds of regions a token), then
// sleep.
#include "threads.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace graft {
namespace {

constexpr int kMaxThreads = 256;
constexpr int kLanes = 4;
constexpr auto kSpin = std::chrono::microseconds(60);

/// Scratch buffers of one calling thread and of the workers while they serve it.
struct Scratch {
  struct Buffer {
    void* data = nullptr;
    size_t bytes = 0;
  };
  Buffer buffers[kMaxThreads][kLanes];
  ~Scratch() {
    for (auto& lanes : buffers)
      for (auto& buffer : lanes) std::free(buffer.data);
  }
};

thread_local std::unique_ptr<Scratch> own_scratch;
thread_local Scratch* scratch = nullptr;  // own_scratch, or the caller's while a worker serves a region
thread_local int self = 0;                // index in the region that this thread takes part in
thread_local bool inside = false;         // in a region: nested ones run inline

/// Polls `ready` for about kSpin; false when the time is over.
template <class F>
bool spin_until(F&& ready) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; i++) {
      if (ready()) return true;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

struct Job {
  void (*task)(void*, int64_t, int) = nullptr;
  void* context = nullptr;
  int64_t tasks = 0;
  Scratch* scratch = nullptr;
};

class Pool {
 public:
  int size() const { return size_.load(std::memory_order_relaxed); }

  void resize(int n) {
    const std::lock_guard lock(mutex_);
    if (n == size()) return;
    stop_.store(true);
    ring();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
    stop_.store(false);
    size_.store(n);
    for (int i = 1; i < n; i++) workers_.emplace_back([this, i] { serve(i); });
  }

  void run(const Job& job) {
    const std::lock_guard lock(mutex_);
    job_ = job;
    next_.store(0, std::memory_order_relaxed);
    epoch_ += kEpochStep;
    gate_.store(epoch_ | kOpen);  // sequentially consistent: pairs with the sleepers' count
    if (sleepers_.load() > 0) ring();
    inside = true;
    take(job, 0);
    inside = false;
    gate_.fetch_and(~kOpen);
    const auto empty = [this] { return (gate_.load(std::memory_order_acquire) & kCount) == 0; };
    if (spin_until(empty)) return;
    for (uint32_t seen = gate_.load(); (seen & kCount) != 0; seen = gate_.load()) gate_.wait(seen);
  }

 private:
  // gate_: workers inside, whether more may enter, and a number that tells one region from the next.
  static constexpr uint32_t kCount = 0x3ff, kOpen = 0x400, kEpochStep = 0x800;

  void take(const Job& job, int thread) {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < job.tasks;) job.task(job.context, i, thread);
  }

  void ring() {
    bell_.fetch_add(1);
    bell_.notify_all();
  }

  bool open(uint32_t gate, uint32_t served) const {
    return (gate & kOpen) != 0 && (gate & ~(kCount | kOpen)) != served;
  }

  void serve(int index) {
    self = index;
    inside = true;
    uint32_t served = gate_.load() & ~(kCount | kOpen);
    while (!stop_.load(std::memory_order_relaxed)) {
      uint32_t gate = gate_.load(std::memory_order_relaxed);
      if (!open(gate, served)) {
        wait(served);
        continue;
      }
      if (!gate_.compare_exchange_strong(gate, gate + 1, std::memory_order_acquire)) continue;
      served = gate & ~(kCount | kOpen);
      const Job job = job_;
      scratch = job.scratch;
      take(job, index);
      scratch = nullptr;
      const uint32_t left = gate_.fetch_sub(1, std::memory_order_release) - 1;
      if ((left & (kCount | kOpen)) == 0) gate_.notify_all();
    }
  }

  void wait(uint32_t served) {
    const auto wanted = [&] {
      return open(gate_.load(std::memory_order_relaxed), served) || stop_.load(std::memory_order_relaxed);
    };
    if (spin_until(wanted)) return;
    sleepers_.fetch_add(1);
    const uint32_t rung = bell_.load();
    if (!open(gate_.load(), served) && !stop_.load()) bell_.wait(rung);
    sleepers_.fetch_sub(1);
  }

  std::mutex mutex_;  // one region, or one change of size, at a time
  std::vector<std::thread> workers_;
  std::atomic<int> size_{1};
  std::atomic<bool> stop_{false};
  Job job_;
  uint32_t epoch_ = 0;
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> gate_{0};
  alignas(64) std::atomic<uint32_t> bell_{0};
  std::atomic<int> sleepers_{0};
};

/// Never destroyed: the process may exit while workers sleep.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

Scratch* current_scratch() {
  if (scratch) return scratch;
  if (!own_scratch) own_scratch = std::make_unique<Scratch>();
  return scratch = own_scratch.get();
}

/// Cores that this process may keep busy: its affinity mask, and in a container no more than its share of time.
int available_cores() {
  cpu_set_t set;
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  if (FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
    double quota, period;
    if (std::fscanf(file, "%lf %lf", &quota, &period) == 2 && period > 0)
      cores = std::min(cores, static_cast<int>(quota / period + 0.5));
    std::fclose(file);
  }
  return std::max(1, cores);
}

}  // namespace

int num_threads() { return pool().size(); }

void set_num_threads(int n) { pool().resize(std::min(n > 0 ? n : available_cores(), kMaxThreads)); }

void run_tasks(int64_t tasks, void (*task)(void*, int64_t, int), void* context) {
  if (inside || tasks <= 1 || num_threads() == 1) {
    for (int64_t i = 0; i < tasks; i++) task(context, i, self);
    return;
  }
  pool().run({task, context, tasks, current_scratch()});
}

void* thread_scratch(int thread, int lane, size_t bytes) {
  auto& buffer = current_scratch()->buffers[thread][lane];
  if (buffer.bytes < bytes) {
    std::free(buffer.data);
    buffer.bytes = (bytes + bytes / 4 + 4095) & ~size_t{4095};
    buffer.data = std::aligned_alloc(64, buffer.bytes);
    if (!buffer.data) std::abort();  // a few megabytes are gone: nothing can be computed any more
  }
  return buffer.data;
}

}  // namespace graft
