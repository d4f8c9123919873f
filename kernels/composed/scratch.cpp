// The buffers behind scratch.h: one set per thread, freed with it.
#include "scratch.h"

#include "graft.h"

namespace graft {
namespace {

constexpr int32_t kBuffers = 8;

struct Buffers {
  void* pointers[kBuffers] = {};
  uint64_t sizes[kBuffers] = {};
  ~Buffers() {
    for (void* p : pointers) graft_free(p);
  }
};

}  // namespace

void* scratch(int32_t index, uint64_t bytes) {
  thread_local Buffers buffers;
  void*& pointer = buffers.pointers[index];
  uint64_t& size = buffers.sizes[index];
  if (bytes <= size) return pointer;
  graft_free(pointer);
  size = 0;
  const uint64_t wanted = bytes + bytes / 2;
  pointer = graft_alloc(wanted);
  if (pointer != nullptr) size = wanted;
  return pointer;
}

}  // namespace graft
