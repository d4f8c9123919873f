// One block's threads as fibers, for the emulator's own files.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "simt.h"

namespace simt {

constexpr size_t kStackBytes = 96 << 10, kSharedBytes = 227 << 10, kSharedRoom = 256 << 10;

/// Copies that one commit closed off.
struct AsyncCopy {
  void* to;
  const void* from;
  unsigned bytes;
  unsigned group;
  bool zero;
};

enum class Wait : uint8_t { none, warp, block, done };

struct Fiber {
  void* stack_pointer = nullptr;
  unsigned char* stack = nullptr;
  Wait wait = Wait::done;
  dim3 index;
  unsigned thread = 0, warp = 0;
  unsigned group = 0;
  std::vector<AsyncCopy> copies;
};

struct Warp {
  unsigned arrived = 0, live = 0, epoch = 0, buffer = 0;
  alignas(16) unsigned char slots[2][kLanes * kExchange];
};

/// The launch under way in this system thread.
struct Block {
  const char* kernel = nullptr;
  dim3 grid, size, index;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Fiber* current = nullptr;
  void* scheduler = nullptr;
  unsigned live = 0, arrived = 0;
  /// Counts barriers, over all blocks.
  uint32_t epoch = 1;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  const unsigned char *params = nullptr, *params_end = nullptr;
  /// What went wrong first; the launch ends there.
  std::string fault;
};

extern thread_local Block* running;

/// Ends the launch with a message; never returns to the thread that caused it.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));
/// Checks one access of the running thread, as the hooks do.
void check_access(const void* p, size_t bytes, bool write);
/// The message of the last launch that went wrong in this system thread, and forgets it; empty where none did.
std::string take_fault();

}  // namespace simt
