// Small tasks in groups, so that opening a parallel region pays: one decoded token of one head takes a fraction of a
// microsecond, waking a thread about one. Groups depend on shapes alone and tasks stay independent.
#pragma once
#include <algorithm>

#include "threads.h"

namespace graft {

/// f(index, thread) for every task; `cost` is about the floats that one task works through. Where there are plenty, at
/// least `together` tasks in a row are one thread's.
template <class F>
void parallel_grouped(int64_t tasks, double cost, F&& f, int64_t together = 1) {
  constexpr double kEnough = 40000;  // about 2 microseconds
  const int64_t enough = static_cast<int64_t>(std::clamp(kEnough / std::max(cost, 1.0), 1.0, 1e6));
  const int64_t size = std::max(enough, std::min(together, tasks / (8 * num_threads())));
  parallel((tasks + size - 1) / size, [&](int64_t group, int thread) {
    for (int64_t i = group * size; i < std::min(tasks, (group + 1) * size); i++) f(i, thread);
  });
}

}  // namespace graft
