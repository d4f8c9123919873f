// One block's threads as fibers, for the emulator's own files.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "simt.h"

namespace simt {

constexpr size_t kStackBytes = 96 << 10, kSharedBytes = 227 << 10, kSharedRoom = 256 << 10;
constexpr size_t kPlainSharedBytes = 48 << 10;  // what a kernel may have without asking for more
constexpr unsigned kMostThreads = 1024;
constexpr unsigned kMostFences = 63;  // of a thread that are counted; a thread with more passes for fenced

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
  /// Calls of __threadfence, those before the block's last atomic that counts for them, and when the last was.
  unsigned fences = 0, published_fences = 0;
  uint32_t fenced_at = 0;
  bool used_atomic = false;
  /// It has waited for the kernel before this one.
  bool waited = false;
};

struct Warp {
  unsigned arrived = 0, live = 0, epoch = 0, first_epoch = 0, buffer = 0;
  alignas(16) unsigned char slots[2][kLanes * kExchange];
};

/// What a block has made visible to others: writes before that many barriers, and before that many fences of a thread.
struct Published {
  uint32_t barriers = 0;
  std::vector<uint8_t> fences;
};

/// The launch under way in this system thread.
struct Block {
  const char* kernel = nullptr;
  dim3 grid, size, index;
  std::vector<Fiber> fibers;  // the first `threads` of them run
  unsigned threads = 0;
  std::vector<Warp> warps;
  Fiber* current = nullptr;
  void* scheduler = nullptr;
  unsigned live = 0, arrived = 0;
  /// Counts barriers, over all blocks; and where this block began.
  uint32_t epoch = 1, first_epoch = 1;
  /// Numbers of this block and of the launch's first one; they never repeat.
  uint32_t number = 0, first_number = 0;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  const unsigned char *params = nullptr, *params_end = nullptr;
  /// Epochs of the block's first atomic, of its last fence, of the last fence that an atomic followed; 0: none yet.
  uint32_t atomic_at = 0, fenced_at = 0, published_at = 0;
  /// Of the blocks of this launch that have ended.
  std::map<uint32_t, Published>* published = nullptr;
  /// Launched early: blocks with numbers from in_flight on may still run until a thread has waited, at epoch waited_at.
  bool early = false, waited = false;
  uint32_t in_flight = 0, waited_at = 0;
  /// What went wrong first; the launch ends there.
  std::string fault;
};

extern thread_local Block* running;

/// Whether what was before this launch is over for the thread: it has waited, or met one that has.
inline bool has_waited(const Block& block, const Fiber& fiber) {
  return fiber.waited || (block.waited_at != 0 && block.waited_at < block.epoch);
}

/// Runs the block that block.index names to its end, or to a fault.
void run_block(Block& block);
/// The block of this system thread with at least so many fibers.
Block& resources(unsigned threads);

/// Lets the block's other threads run.
void pause();
/// Ends the launch with a message; never returns to the thread that caused it.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));
/// Checks one access of the running thread, as the hooks do.
void check_access(const void* p, size_t bytes, bool write);

/// Keeps a message for the host where none waits yet.
void report_fault(const std::string& text);
/// Does it now, or when the stream comes to it: while a graph is captured or the stream is held up.
void submit(std::function<void()> work);
/// A copy or another thing of the host's that kernels before and after it do not overlap.
void all_before_is_done();

}  // namespace simt
