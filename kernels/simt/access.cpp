// Looks at every memory access of a kernel. The .cu files are compiled with -fsanitize=thread, which puts a call in
// front of each load and store; the callees are here, not in the sanitizer's library. Memory that a thread may touch:
// its own stack, the block's shared memory, device allocations (global.cpp), the launch's parameters, constants of this
// library. A race: two threads touch a byte of shared memory, one of them writing, with no barrier that both passed in
// between.
#include <link.h>

#include <cstdint>

#include "block.h"
#include "memory.h"

namespace simt {
namespace {

/// When a thread touched two bytes: barriers of the block and of its warp that it had passed. The block's number never
/// repeats, so what an earlier block left here is out of date by itself.
struct Touch {
  uint32_t block_epoch = 0, warp_epoch = 0;
  uint16_t thread = 0, warp = 0;
  bool used = false;
  bool many_warps = false;  // readers only: further warps read in the same interval
  bool many_lanes = false;  // readers only: further lanes of the warp did
};
struct Half {
  Touch write, read;
};
constexpr size_t kHalf = 2;
thread_local std::vector<Half> shadow(kSharedRoom / kHalf);

struct Range {
  uintptr_t begin = 0, end = 0;
  bool holds(uintptr_t p, size_t bytes) const { return p >= begin && p + bytes <= end; }
};

/// The loaded segments of this library: string literals, tables.
const std::vector<Range>& own_segments() {
  static const std::vector<Range> segments = [] {
    std::vector<Range> found;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* data) {
          std::vector<Range> list;
          bool own = false;
          for (int i = 0; i < info->dlpi_phnum; i++) {
            const auto& header = info->dlpi_phdr[i];
            if (header.p_type != PT_LOAD) continue;
            const Range range{info->dlpi_addr + header.p_vaddr, info->dlpi_addr + header.p_vaddr + header.p_memsz};
            own |= range.holds(reinterpret_cast<uintptr_t>(&own_segments), 1);
            list.push_back(range);
          }
          if (own) *static_cast<std::vector<Range>*>(data) = list;
          return own ? 1 : 0;
        },
        &found);
    return found;
  }();
  return segments;
}

/// Whether `touch` may have happened at the same time as an access of the running thread.
bool concurrent(const Touch& touch, const Fiber& fiber, const Block& block) {
  if (!touch.used || touch.block_epoch != block.epoch) return false;
  if (touch.many_warps) return true;
  if (touch.warp != fiber.warp) return true;
  if (touch.warp_epoch != block.warps[fiber.warp].epoch) return false;
  return touch.many_lanes || touch.thread != fiber.thread;
}

void note_read(Touch& read, const Fiber& fiber, const Block& block) {
  const uint32_t warp_epoch = block.warps[fiber.warp].epoch;
  const bool same_interval = read.used && read.block_epoch == block.epoch;
  const bool same_warp = same_interval && read.warp == fiber.warp;
  const bool same_phase = same_warp && read.warp_epoch == warp_epoch;
  const bool many_warps = same_interval && (read.many_warps || !same_warp);
  const bool many_lanes = same_phase && (read.many_lanes || read.thread != fiber.thread);
  read = {block.epoch, warp_epoch, uint16_t(fiber.thread), uint16_t(fiber.warp), true, many_warps, many_lanes};
}

void check_shared(size_t at, size_t bytes, bool write) {
  const Block& block = *running;
  const Fiber& fiber = *block.current;
  if (at + bytes > block.shared_bytes)
    fault("%s of %zu bytes at byte %zu of shared memory, the block has %zu", write ? "write" : "read", bytes, at,
          block.shared_bytes);
  for (size_t i = at / kHalf; i * kHalf < at + bytes; i++) {
    Half& half = shadow[i];
    if (concurrent(half.write, fiber, block))
      fault("race: %s byte %zu of shared memory, which thread %u wrote with no barrier in between",
            write ? "writes" : "reads", i * kHalf, half.write.thread);
    if (write && concurrent(half.read, fiber, block))
      fault("race: writes byte %zu of shared memory, which thread %u read with no barrier in between", i * kHalf,
            half.read.thread);
    if (write)
      half.write = {
          block.epoch, block.warps[fiber.warp].epoch, uint16_t(fiber.thread), uint16_t(fiber.warp), true, false, false};
    else
      note_read(half.read, fiber, block);
  }
}

}  // namespace

void check_access(const void* pointer, size_t bytes, bool write) {
  const Block& block = *running;
  const auto p = reinterpret_cast<uintptr_t>(pointer);
  const auto stack = reinterpret_cast<uintptr_t>(block.current->stack);
  if (p - stack < kStackBytes) return;
  const auto shared = reinterpret_cast<uintptr_t>(block.shared);
  if (p - shared < kSharedRoom) return check_shared(p - shared, bytes, write);
  if (!write && pointer >= block.params && pointer < block.params_end) return;
  if (check_global(p, bytes, write)) return;
  if (!write) {
    for (const Range& range : own_segments())
      if (range.holds(p, bytes)) return;
  }
  fault("%s of %zu bytes at %p, which belongs to no allocation", write ? "write" : "read", bytes, pointer);
}

}  // namespace simt

namespace {
/// A kernel's access to anything but its thread's own stack.
inline bool wants_check(const void* p) {
  const simt::Block* block = simt::running;
  return block != nullptr &&
         reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(block->current->stack) >= simt::kStackBytes;
}
}  // namespace

#define HOOK(name, bytes, write)                             \
  extern "C" void __tsan_##name(void* p) {                   \
    if (wants_check(p)) simt::check_access(p, bytes, write); \
  }
HOOK(read1, 1, false)
HOOK(read2, 2, false)
HOOK(read4, 4, false)
HOOK(read8, 8, false)
HOOK(read16, 16, false)
HOOK(write1, 1, true)
HOOK(write2, 2, true)
HOOK(write4, 4, true)
HOOK(write8, 8, true)
HOOK(write16, 16, true)
HOOK(unaligned_read2, 2, false)
HOOK(unaligned_read4, 4, false)
HOOK(unaligned_read8, 8, false)
HOOK(unaligned_read16, 16, false)
HOOK(unaligned_write2, 2, true)
HOOK(unaligned_write4, 4, true)
HOOK(unaligned_write8, 8, true)
HOOK(unaligned_write16, 16, true)
extern "C" void __tsan_read_range(void* p, size_t bytes) {
  if (simt::running != nullptr) simt::check_access(p, bytes, false);
}
extern "C" void __tsan_write_range(void* p, size_t bytes) {
  if (simt::running != nullptr) simt::check_access(p, bytes, true);
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}

// ---- what -fsanitize=alignment calls ----
struct TypeMismatch {
  const char* file;
  uint32_t line, column;
  const void* type;
  unsigned char log_alignment, kind;
};
extern "C" void __ubsan_handle_type_mismatch_v1(TypeMismatch* what, void* p) {
  const unsigned alignment = 1u << what->log_alignment;
  if (simt::running == nullptr || reinterpret_cast<uintptr_t>(p) % alignment == 0) return;
  simt::fault("%s:%u uses address %p, which is no multiple of %u", what->file, what->line, p, alignment);
}
