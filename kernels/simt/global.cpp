// Device memory: where it is, and which block of which launch wrote each place. A fault: a block reads or writes what
// another block of the same launch wrote, unless that one made it visible (__threadfence, then an atomic) and this one
// asked (an atomic of its own); a kernel that was launched early touches, before it has waited, what kernels before it
// may still be writing.
#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>

#include "block.h"
#include "memory.h"

namespace simt {
namespace {

constexpr size_t kGranule = 2, kRegion = 1024;

/// Who wrote a granule last: the block by a number that never repeats, the thread, how many fences it had passed, and
/// how many barriers the block had.
struct Writer {
  uint32_t block = 0;
  uint16_t barriers = 0;
  uint16_t thread = 0;
};
constexpr unsigned kThreadBits = 10;  // of Writer::thread; the rest counts fences

struct Allocation {
  uintptr_t begin = 0, end = 0;
  bool pinned = false;
  /// Of each region, the block that wrote there last: most reads need look no further.
  uint32_t* regions = nullptr;
  Writer* writers = nullptr;

  bool holds(uintptr_t p, size_t bytes) const { return p >= begin && p + bytes <= end; }
  size_t num_regions() const { return (end - begin) / kRegion + 1; }
  size_t num_granules() const { return (end - begin) / kGranule + 1; }
};

std::mutex mutex;
std::map<uintptr_t, Allocation> allocations;
std::atomic<uint64_t> generation{1};
/// Allocations touched before, by page.
struct Hits {
  static constexpr size_t kCount = 64;
  Allocation list[kCount];
  uint64_t generation = 0;
};
thread_local Hits* my_hits = nullptr;  // not in place: a library that is opened late has little room of that kind

/// Zeros that take no memory until they are written.
void* reserve(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) std::abort();
  return p;
}

const Allocation* find(uintptr_t p, size_t bytes) {
  if (my_hits == nullptr) my_hits = new Hits;
  Hits& hits = *my_hits;
  Allocation& hit = hits.list[(p >> 12) % Hits::kCount];
  if (hits.generation != generation.load(std::memory_order_relaxed))
    hits = {};
  else if (hit.holds(p, bytes))
    return &hit;
  std::lock_guard lock(mutex);
  hits.generation = generation.load(std::memory_order_relaxed);
  auto next = allocations.upper_bound(p);
  if (next == allocations.begin()) return nullptr;
  --next;
  if (!next->second.holds(p, bytes)) return nullptr;
  hit = next->second;
  return &hit;
}

/// What another block of this launch wrote may be touched only where both sides put it in order.
void check_blocks(const Writer& writer, const Block& block, const Fiber& fiber, bool write) {
  const unsigned thread = writer.thread & ((1u << kThreadBits) - 1), fences = writer.thread >> kThreadBits;
  const char* verb = write ? "writes" : "reads";
  const auto found = block.published->find(writer.block);
  if (found == block.published->end())
    fault("%s what thread %u of another block wrote in this launch: the order of blocks is not given", verb, thread);
  if (writer.barriers >= found->second.barriers && fences >= found->second.fences[thread] && fences < kMostFences)
    fault("%s what thread %u of another block wrote with no __threadfence before its atomic", verb, thread);
  const bool asked = fiber.used_atomic || (block.atomic_at != 0 && block.atomic_at < block.epoch);
  if (!asked)
    fault("%s what thread %u of another block wrote, without an atomic that says that it is there", verb, thread);
}

}  // namespace

void add_allocation(void* p, size_t bytes, bool pinned) {
  Allocation added;
  added.begin = reinterpret_cast<uintptr_t>(p);
  added.end = added.begin + bytes;
  added.pinned = pinned;
  added.regions = static_cast<uint32_t*>(reserve(added.num_regions() * sizeof(uint32_t)));
  added.writers = static_cast<Writer*>(reserve(added.num_granules() * sizeof(Writer)));
  std::lock_guard lock(mutex);
  allocations[added.begin] = added;
  generation++;
}

size_t remove_allocation(void* p) {
  std::lock_guard lock(mutex);
  const auto found = allocations.find(reinterpret_cast<uintptr_t>(p));
  if (found == allocations.end()) return 0;
  const size_t bytes = found->second.end - found->second.begin;
  munmap(found->second.regions, found->second.num_regions() * sizeof(uint32_t));
  munmap(found->second.writers, found->second.num_granules() * sizeof(Writer));
  allocations.erase(found);
  generation++;
  return bytes;
}

bool is_pinned(const void* p) {
  const Allocation* allocation = find(reinterpret_cast<uintptr_t>(p), 1);
  return allocation != nullptr && allocation->pinned;
}

bool is_device(const void* p, size_t bytes) { return find(reinterpret_cast<uintptr_t>(p), bytes) != nullptr; }

bool check_global(uintptr_t p, size_t bytes, bool write) {
  const Allocation* allocation = find(p, bytes);
  if (allocation == nullptr) return false;
  const Block& block = *running;
  const Fiber& fiber = *block.current;
  const uintptr_t at = p - allocation->begin;
  const bool before_wait = block.early && !has_waited(block, fiber);
  uint32_t* const first_region = allocation->regions + at / kRegion;
  uint32_t* const last_region = allocation->regions + (at + bytes - 1) / kRegion;
  Writer* const first = allocation->writers + at / kGranule;
  Writer* const last = allocation->writers + (at + bytes - 1) / kGranule;
  if (write) {
    if (before_wait) fault("writes device memory before it has waited for the kernel before it");
    *first_region = *last_region = block.number;
    const unsigned fences = std::min(fiber.fences, kMostFences);
    const uint32_t barriers = block.epoch - block.first_epoch;
    const Writer mine{block.number, uint16_t(barriers < 65535 ? barriers : 65535),
                      uint16_t(fiber.thread | fences << kThreadBits)};
    for (Writer* writer = first; writer <= last; writer++) {
      if (writer->block >= block.first_number && writer->block != block.number)
        check_blocks(*writer, block, fiber, true);
      *writer = mine;
    }
    return true;
  }
  const uint32_t newest = *first_region > *last_region ? *first_region : *last_region;
  if (newest < (before_wait ? block.in_flight : block.first_number)) return true;
  for (const Writer* writer = first; writer <= last; writer++) {
    if (writer->block >= block.first_number) {
      if (writer->block != block.number) check_blocks(*writer, block, fiber, false);
    } else if (before_wait && writer->block >= block.in_flight) {
      fault("reads what a kernel before it writes before it has waited for that kernel");
    }
  }
  return true;
}

}  // namespace simt
