// Runs the threads of a block as fibers: each runs until it meets a barrier or an exchange that others have not
// reached.
#include "block.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "loss.h"

// switch_stack(save, load): keeps the caller's registers and stack pointer in *save and goes on at `load`.
asm(R"(
.text
.type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack, .-simt_switch_stack
)");
extern "C" void simt_switch_stack(void** save, void* load);

namespace simt {

thread_local Block* running = nullptr;

namespace {

thread_local std::string last_fault;

void yield() {
  Fiber& fiber = *running->current;
  simt_switch_stack(&fiber.stack_pointer, running->scheduler);
}

void release_block(Block& block) {
  block.epoch++;
  block.arrived = 0;
  for (Fiber& fiber : block.fibers)
    if (fiber.wait == Wait::block) fiber.wait = Wait::none;
}

[[noreturn]] void leave() {
  running->current->wait = Wait::done;
  yield();
  std::abort();  // a thread that has ended is never run again
}

void enter() {
  Block& block = *running;
  block.body(block.argument);
  Fiber& fiber = *block.current;
  if (!fiber.copies.empty()) fault("thread %u ends before its asynchronous copies have", fiber.thread);
  block.live--;
  Warp& warp = block.warps[fiber.warp];
  warp.live--;
  if (warp.arrived > 0) fault("thread %u has ended, other lanes of its warp wait for it", fiber.thread);
  if (block.live > 0 && block.arrived == block.live) release_block(block);
  leave();
}

/// A stack on which the first switch "returns" into enter().
void prepare(Fiber& fiber) {
  auto* top = reinterpret_cast<void**>(fiber.stack + kStackBytes);
  *--top = nullptr;  // keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(&enter);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fiber.stack_pointer = top;
}

void run_block(Block& block) {
  const unsigned threads = block.size.x * block.size.y * block.size.z;
  block.live = threads;
  block.arrived = 0;
  for (Warp& warp : block.warps) {
    warp.arrived = 0;
    warp.live = kLanes;
  }
  for (Fiber& fiber : block.fibers) {
    fiber.wait = Wait::none;
    fiber.group = 0;
    fiber.copies.clear();
    prepare(fiber);
  }
  std::memset(block.shared, 0xff, block.shared_bytes);  // NaN: shared memory begins with anything
  block.epoch++;
  while (block.live > 0 && block.fault.empty()) {
    bool progress = false;
    for (Fiber& fiber : block.fibers) {
      if (fiber.wait != Wait::none) continue;
      progress = true;
      block.current = &fiber;
      simt_switch_stack(&block.scheduler, fiber.stack_pointer);
      if (!block.fault.empty()) return;
    }
    if (progress) continue;
    block.fault = std::string(block.kernel) + ": threads wait for one another in different places";
  }
}

Block& resources(unsigned threads) {
  static thread_local Block block;
  while (block.fibers.size() < threads) {
    Fiber fiber;
    void* stack =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) std::abort();
    fiber.stack = static_cast<unsigned char*>(stack);
    block.fibers.push_back(fiber);
  }
  if (block.shared == nullptr) block.shared = static_cast<unsigned char*>(std::aligned_alloc(1024, kSharedRoom));
  return block;
}

}  // namespace

void fault(const char* format, ...) {
  char text[400];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  Block& block = *running;
  const dim3 b = block.index, t = block.current->index;
  char place[160];
  snprintf(place, sizeof place, "%s, block (%u, %u, %u), thread (%u, %u, %u): ", block.kernel, b.x, b.y, b.z, t.x, t.y,
           t.z);
  block.fault = std::string(place) + text;
  leave();
}

std::string take_fault() {
  std::string text;
  text.swap(last_fault);
  return text.empty() && lost() ? cudaGetErrorString(cudaErrorLaunchFailure) : text;
}

dim3 thread_index() { return running->current->index; }
dim3 block_index() { return running->index; }
dim3 block_size() { return running->size; }
dim3 grid_size() { return running->grid; }
unsigned lane() { return running->current->thread % kLanes; }
unsigned char* shared_memory() { return running->shared; }

void barrier() {
  Block& block = *running;
  if (++block.arrived == block.live) {
    release_block(block);
    return;
  }
  block.current->wait = Wait::block;
  yield();
}

namespace {

/// A shuffle passes values, not memory: the lanes' accesses are in order only where `fence` says so.
const unsigned char* meet(unsigned mask, const void* mine, unsigned bytes, bool fence) {
  Block& block = *running;
  Fiber& fiber = *block.current;
  if (mask != 0xffffffffu) fault("lane mask %08x: only whole warps are emulated", mask);
  Warp& warp = block.warps[fiber.warp];
  if (warp.live != kLanes) fault("%u lanes of this warp have ended already", kLanes - warp.live);
  // Two buffers in turn: a lane gets two exchanges ahead of another only after that one has read.
  unsigned char* slots = warp.slots[warp.buffer];
  if (bytes > 0) std::memcpy(slots + (fiber.thread % kLanes) * kExchange, mine, bytes);
  if (++warp.arrived < kLanes) {
    fiber.wait = Wait::warp;
    yield();
    return slots;
  }
  warp.arrived = 0;
  warp.buffer ^= 1;
  warp.epoch += fence;
  Fiber* lanes = &block.fibers[fiber.warp * kLanes];
  for (unsigned l = 0; l < kLanes; l++)
    if (lanes[l].wait == Wait::warp) lanes[l].wait = Wait::none;
  return slots;
}

}  // namespace

void warp_barrier() { meet(0xffffffffu, nullptr, 0, true); }
const unsigned char* exchange(unsigned mask, const void* mine, unsigned bytes) {
  return meet(mask, mine, bytes, false);
}

void copy_async(void* shared, const void* global, unsigned bytes, bool zero) {
  Fiber& fiber = *running->current;
  if (bytes != 4 && bytes != 8 && bytes != 16) fault("asynchronous copy of %u bytes", bytes);
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % bytes)
    fault("asynchronous copy of %u bytes between unaligned addresses", bytes);
  fiber.copies.push_back({shared, global, bytes, fiber.group, zero});
}

void copy_commit() { running->current->group++; }

void copy_wait(unsigned groups_left) {
  Fiber& fiber = *running->current;
  auto& copies = fiber.copies;
  size_t done = 0;
  for (; done < copies.size() && copies[done].group + groups_left < fiber.group; done++) {
    const AsyncCopy& copy = copies[done];
    if (!copy.zero) check_access(copy.from, copy.bytes, false);
    check_access(copy.to, copy.bytes, true);
    if (copy.zero)
      std::memset(copy.to, 0, copy.bytes);
    else
      std::memcpy(copy.to, copy.from, copy.bytes);
  }
  copies.erase(copies.begin(), copies.begin() + done);
}

void launch(const char* kernel, dim3 grid, dim3 size, size_t shared_bytes, void (*body)(void*), void* argument,
            const void* params, size_t bytes) {
  const unsigned threads = size.x * size.y * size.z;
  const auto refuse = [&](const char* why) { last_fault = std::string(kernel) + ": " + why; };
  if (!survives_launch()) return;
  if (threads == 0 || threads > 1024 || threads % kLanes)
    return refuse("a block needs 32 to 1024 threads, whole warps");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return refuse("the grid is empty");
  if (grid.y > 65535 || grid.z > 65535) return refuse("the grid has more than 65535 blocks in y or z");
  if (shared_bytes > kSharedBytes) return refuse("more shared memory than a block may have");
  Block& block = resources(threads);
  Block* outer = running;
  if (outer != nullptr) return refuse("a kernel cannot launch another");
  std::vector<Fiber> spare(std::make_move_iterator(block.fibers.begin() + threads),
                           std::make_move_iterator(block.fibers.end()));
  block.fibers.resize(threads);
  block.warps.resize(threads / kLanes);
  block.kernel = kernel;
  block.grid = grid;
  block.size = size;
  block.shared_bytes = shared_bytes;
  block.body = body;
  block.argument = argument;
  block.params = static_cast<const unsigned char*>(params);
  block.params_end = block.params + bytes;
  block.fault.clear();
  for (unsigned t = 0; t < threads; t++) {
    Fiber& fiber = block.fibers[t];
    fiber.thread = t;
    fiber.warp = t / kLanes;
    fiber.index = dim3(t % size.x, t / size.x % size.y, t / (size.x * size.y));
  }
  running = &block;
  for (block.index.z = 0; block.index.z < grid.z && block.fault.empty(); block.index.z++)
    for (block.index.y = 0; block.index.y < grid.y && block.fault.empty(); block.index.y++)
      for (block.index.x = 0; block.index.x < grid.x && block.fault.empty(); block.index.x++) run_block(block);
  running = nullptr;
  if (!block.fault.empty() && last_fault.empty()) last_fault = block.fault;
  std::move(spare.begin(), spare.end(), std::back_inserter(block.fibers));
}

}  // namespace simt
