// The library's own thread pool. Work is cut into tasks that write disjoint outputs, so that neither the number of
// threads nor who runs which task can change a result.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace graft {

/// Threads that take part in `parallel`, the caller included.
int num_threads();
/// Starts or resizes the pool; 0 = all cores.
void set_num_threads(int n);
/// Calls task(context, index, thread) for index 0..tasks-1, thread 0..num_threads()-1, and waits for all of them.
void run_tasks(int64_t tasks, void (*task)(void* context, int64_t index, int thread), void* context);
/// At least `bytes` of 64-byte aligned scratch owned by this thread index, kept between calls, contents undefined.
/// `lane` 0..3 separates buffers that are alive at the same time.
void* thread_scratch(int thread, int lane, size_t bytes);

/// f(index) or f(index, thread) for every task. Runs inline when there is one task or one thread.
template <class F>
void parallel(int64_t tasks, F&& f) {
  run_tasks(
      tasks,
      [](void* context, int64_t index, int thread) {
        auto& body = *static_cast<std::remove_reference_t<F>*>(context);
        if constexpr (requires { body(index, thread); })
          body(index, thread);
        else
          body(index);
      },
      const_cast<void*>(static_cast<const void*>(&f)));
}

/// f(begin, end) over [0, n) in ranges of `grain` (the last one shorter).
template <class F>
void parallel_ranges(int64_t n, int64_t grain, F&& f) {
  parallel((n + grain - 1) / grain, [&](int64_t i) {
    const int64_t begin = i * grain;
    f(begin, begin + grain < n ? begin + grain : n);
  });
}

}  // namespace graft
