// Runs the threads of a block as fibers: each runs until it meets a barrier or an exchange that others have not
// reached.
#include "block.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <utility>

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

void yield() {
  Fiber& fiber = *running->current;
  simt_switch_stack(&fiber.stack_pointer, running->scheduler);
}

void release_block(Block& block) {
  block.epoch++;
  block.arrived = 0;
  for (unsigned t = 0; t < block.threads; t++)
    if (block.fibers[t].wait == Wait::block) block.fibers[t].wait = Wait::none;
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

}  // namespace

void run_block(Block& block) {
  block.live = block.threads;
  block.arrived = 0;
  for (Warp& warp : block.warps) {
    warp.arrived = 0;
    warp.live = kLanes;
    warp.first_epoch = warp.epoch;
  }
  for (unsigned t = 0; t < block.threads; t++) {
    Fiber& fiber = block.fibers[t];
    fiber.wait = Wait::none;
    fiber.group = fiber.fences = fiber.published_fences = 0;
    fiber.fenced_at = 0;
    fiber.used_atomic = fiber.waited = false;
    fiber.copies.clear();
    prepare(fiber);
  }
  std::memset(block.shared, 0xff, block.shared_bytes);  // NaN: shared memory begins with anything
  block.first_epoch = ++block.epoch;
  block.atomic_at = block.fenced_at = block.published_at = block.waited_at = 0;
  while (block.live > 0 && block.fault.empty()) {
    bool progress = false;
    for (unsigned t = 0; t < block.threads; t++) {
      Fiber& fiber = block.fibers[t];
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

void pause() { yield(); }

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

}  // namespace simt
