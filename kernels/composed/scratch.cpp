// The buffers behind scratch.h: one set per thread, freed with it.
#include "scratch.h"

#include <vector>

#include "graft.h"

namespace graft {
namespace {

constexpr int32_t kBuffers = 8;

struct Buffers {
  void* pointers[kBuffers] = {};
  uint64_t sizes[kBuffers] = {};
  /// Kept, together smaller than twice the last: recordings made with them may be replayed.
  std::vector<void*> outgrown;
  ~Buffers() {
    for (void* p : pointers) graft_free(p);
    for (void* p : outgrown) graft_free(p);
  }
};

}  // namespace

void* scratch(int32_t index, uint64_t bytes) {
  thread_local Buffers buffers;
  void*& pointer = buffers.pointers[index];
  uint64_t& size = buffers.sizes[index];
  if (bytes <= size) return pointer;
  const uint64_t wanted = bytes + bytes / 2;
  void* grown = graft_alloc(wanted);
  if (grown == nullptr) return nullptr;
  if (pointer != nullptr) buffers.outgrown.push_back(pointer);
  pointer = grown;
  size = wanted;
  return pointer;
}

}  // namespace graft
