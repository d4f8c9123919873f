// Runs the blocks of a launch one after another, launch by launch in forward, reversed and scattered order, so that a
// kernel that counts on an order does not come through; and what blocks and launches say to one another: fences,
// atomics, waiting for the kernel before.
#include <atomic>
#include <cstdlib>
#include <numeric>

#include "block.h"
#include "loss.h"
#include "memory.h"

namespace simt {
namespace {

std::atomic<uint32_t> next_number{1}, next_launch{0};
/// Kernels whose blocks have numbers from here on may still run when the next one is launched early.
std::atomic<uint32_t> in_flight{1};

/// Places blocks 0 to count - 1 in another order: i -> (first + i step) mod count.
struct Order {
  uint64_t count, first, step;

  Order(uint64_t count, uint32_t launch) : count(count), first(0), step(1) {
    const uint32_t kind = (launch * 2654435761u >> 16) % 3;
    if (kind == 1) {
      first = count - 1;
      step = count - 1;
    } else if (kind == 2) {
      first = launch * uint64_t{2654435761} % count;
      step = (launch * uint64_t{40503} + 1) % count;
      while (std::gcd(step, count) != 1) step++;
    }
  }
  uint64_t operator[](uint64_t i) const { return (first + i * step) % count; }
};

void publish(Block& block) {
  if (block.published_at == 0) return;
  Published& mine = (*block.published)[block.number];
  mine.barriers = block.published_at - block.first_epoch;
  mine.fences.resize(block.threads);
  for (unsigned t = 0; t < block.threads; t++)
    mine.fences[t] = uint8_t(std::min(block.fibers[t].published_fences, kMostFences));
}

void run_blocks(Block& block) {
  const dim3 grid = block.grid;
  const uint64_t count = uint64_t{grid.x} * grid.y * grid.z;
  const Order order(count, next_launch++);
  for (uint64_t i = 0; i < count && block.fault.empty(); i++) {
    const uint64_t at = order[i];
    block.index = dim3(unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y));
    block.number = block.first_number + uint32_t(i);
    run_block(block);
    publish(block);
  }
  if (block.fault.empty() && block.early && !block.waited)
    block.fault = std::string(block.kernel) + ": launched early, and never waits for the kernel before it";
}

void run(const Launch& launch, unsigned char* argument) {
  const dim3 size = launch.block;
  const unsigned threads = size.x * size.y * size.z;
  if (!survives_launch()) return;
  Block& block = resources(threads);
  if (running != nullptr) return report_fault(std::string(launch.kernel) + ": a kernel cannot launch another");
  std::map<uint32_t, Published> published;
  block.threads = threads;
  block.warps.resize(threads / kLanes);
  block.kernel = launch.kernel;
  block.grid = launch.grid;
  block.size = size;
  block.shared_bytes = launch.shared_bytes;
  block.body = launch.body;
  block.argument = argument;
  block.params = argument;
  block.params_end = block.params + launch.bytes;
  block.fault.clear();
  block.published = &published;
  block.first_number = next_number.fetch_add(launch.grid.x * launch.grid.y * launch.grid.z);
  block.early = launch.early;
  block.waited = false;
  if (!launch.overlaps) in_flight = block.first_number;
  block.in_flight = in_flight;
  for (unsigned t = 0; t < threads; t++) {
    Fiber& fiber = block.fibers[t];
    fiber.thread = t;
    fiber.warp = t / kLanes;
    fiber.index = dim3(t % size.x, t / size.x % size.y, t / (size.x * size.y));
  }
  running = &block;
  run_blocks(block);
  running = nullptr;
  block.published = nullptr;
  if (!block.fault.empty()) report_fault(block.fault);
}

}  // namespace

void all_before_is_done() { in_flight = next_number.load(); }

void launch(const Launch& wanted) {
  const dim3 size = wanted.block, grid = wanted.grid;
  const uint64_t threads = uint64_t{size.x} * size.y * size.z;
  const auto refuse = [&](const char* why) { report_fault(std::string(wanted.kernel) + ": " + why); };
  if (threads == 0 || threads > kMostThreads || threads % kLanes || size.z > 64)
    return refuse("a block needs 32 to 1024 threads, whole warps");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return refuse("the grid is empty");
  if (grid.x > 0x7fffffffu) return refuse("the grid has more than 2147483647 blocks in x");
  if (grid.y > 65535 || grid.z > 65535) return refuse("the grid has more than 65535 blocks in y or z");
  if (wanted.shared_bytes > kSharedBytes) return refuse("more shared memory than a block may have");
  const auto* bytes = static_cast<const unsigned char*>(wanted.argument);
  // The allocator's memory is aligned as the argument is.
  submit([wanted, argument = std::vector<unsigned char>(bytes, bytes + wanted.bytes)]() mutable {
    run(wanted, argument.data());
  });
}

void fence() {
  Block& block = *running;
  Fiber& fiber = *block.current;
  const Warp& warp = block.warps[fiber.warp];
  block.fenced_at = block.epoch;
  fiber.fences++;
  fiber.fenced_at = block.epoch;
  if (warp.epoch == warp.first_epoch) return;
  // What other lanes did before they met counts with it.
  Fiber* lanes = &block.fibers[fiber.warp * kLanes];
  for (Fiber* lane = lanes; lane < lanes + kLanes; lane++) {
    if (lane->fenced_at == block.epoch) continue;
    lane->fences++;
    lane->fenced_at = block.epoch;
  }
}

void note_atomic(const void* p, size_t bytes) {
  Block& block = *running;
  Fiber& fiber = *block.current;
  const auto at = reinterpret_cast<uintptr_t>(p), shared = reinterpret_cast<uintptr_t>(block.shared);
  if (at % bytes != 0) fault("atomic of %zu bytes at an address that is no multiple of that", bytes);
  if (at - shared < kSharedRoom) {
    if (at - shared + bytes > block.shared_bytes)
      fault("atomic at byte %zu of shared memory, the block has %zu", at - shared, block.shared_bytes);
    return;
  }
  if (!is_device(p, bytes)) fault("atomic of %zu bytes at %p, which belongs to no allocation", bytes, p);
  if (block.early && !has_waited(block, fiber))
    fault("writes device memory before it has waited for the kernel before it");
  fiber.used_atomic = true;
  if (block.atomic_at == 0) block.atomic_at = block.epoch;
  if (block.fenced_at == 0) return;
  // Fences of this thread, and of others that it has met since.
  for (unsigned t = 0; t < block.threads; t++) {
    Fiber& other = block.fibers[t];
    if (other.fences == 0 || (&other != &fiber && other.warp != fiber.warp && other.fenced_at >= block.epoch)) continue;
    other.published_fences = other.fences;
    if (other.fenced_at > block.published_at) block.published_at = other.fenced_at;
  }
}

void grid_wait() {
  Block& block = *running;
  block.current->waited = block.waited = true;
  if (block.waited_at == 0) block.waited_at = block.epoch;
}

void grid_release() {}

}  // namespace simt
