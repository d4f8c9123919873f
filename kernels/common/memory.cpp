// Memory of the host libraries: allocation, copies, conversion between element types. Knows nothing of shapes.
// A block keeps one 64-byte header in front of the caller's bytes. Big blocks are mapped on 2 MiB borders and ask for
// huge pages: streaming a weight matrix then misses the TLB 512 times less often.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "bfloat16.h"
#include "graft.h"
#include "status.h"

namespace graft {
namespace {

constexpr uint64_t kAlign = 64, kHuge = uint64_t{2} << 20, kMapFrom = 2 * kHuge, kLargest = uint64_t{1} << 46;
constexpr uint64_t kMagic = 0x67726166746d656d;

struct alignas(kAlign) Header {
  uint64_t magic;
  uint64_t mapped;  // bytes of the mapping that starts at this header, 0 = from the heap
};
static_assert(sizeof(Header) == kAlign);

uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

/// A zeroed mapping of `bytes` (a multiple of 2 MiB) on a 2 MiB border, or null.
void* map_huge(uint64_t bytes) {
  void* raw = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uint64_t>(raw), aligned = round_up(start, kHuge);
  if (aligned > start) munmap(raw, aligned - start);
  if (const uint64_t rest = start + kHuge - aligned) munmap(reinterpret_cast<void*>(aligned + bytes), rest);
  void* block = reinterpret_cast<void*>(aligned);
  madvise(block, bytes, MADV_HUGEPAGE);  // a hint: without huge pages it is only slower
  return block;
}

float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
  if (exponent == 0) {  // zero and denormals: fraction * 2^-24, exact
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

template <class To, class From, class F>
void convert_all(void* dst, const void* src, uint64_t n, F&& f) {
  auto* to = static_cast<To*>(dst);
  const auto* from = static_cast<const From*>(src);
  for (uint64_t i = 0; i < n; i++) to[i] = f(from[i]);
}

}  // namespace
}  // namespace graft

using graft::Header;

extern "C" void* graft_alloc(uint64_t bytes) {
  const auto refuse = [bytes]() -> void* {
    graft::fail(GRAFT_OUT_OF_MEMORY, "the system has no %llu bytes left", (unsigned long long)bytes);
    return nullptr;
  };
  if (bytes > graft::kLargest) return refuse();
  const uint64_t total = graft::round_up(bytes + sizeof(Header), graft::kAlign);
  void* block;
  uint64_t mapped = 0;
  if (total >= graft::kMapFrom) {
    mapped = graft::round_up(total, graft::kHuge);
    block = graft::map_huge(mapped);
  } else {
    block = std::aligned_alloc(graft::kAlign, total);
    if (block) std::memset(block, 0, total);
  }
  if (!block) return refuse();
  auto* header = static_cast<Header*>(block);
  header->magic = graft::kMagic;
  header->mapped = mapped;
  return header + 1;
}

extern "C" void graft_free(void* p) {
  if (!p) return;
  auto* header = static_cast<Header*>(p) - 1;
  if (header->magic != graft::kMagic) std::abort();  // not ours, freed twice, or overwritten: memory is corrupt
  header->magic = 0;
  if (header->mapped)
    munmap(header, header->mapped);
  else
    std::free(header);
}

extern "C" void* graft_host_alloc(uint64_t bytes) { return graft_alloc(bytes); }
extern "C" void graft_host_free(void* p) { graft_free(p); }

extern "C" int32_t graft_copy(void* dst, const void* src, uint64_t bytes) {
  GRAFT_CHECK(bytes == 0 || (dst && src), "Cannot copy %llu bytes: a pointer is null", (unsigned long long)bytes);
  if (bytes) std::memmove(dst, src, bytes);
  return GRAFT_OK;
}
extern "C" int32_t graft_upload(void* dst, const void* src_host, uint64_t bytes) {
  return graft_copy(dst, src_host, bytes);
}
extern "C" int32_t graft_download(void* dst_host, const void* src, uint64_t bytes) {
  return graft_copy(dst_host, src, bytes);
}

extern "C" int32_t graft_zero(void* dst, uint64_t bytes) {
  GRAFT_CHECK(bytes == 0 || dst, "Cannot zero %llu bytes: the pointer is null", (unsigned long long)bytes);
  if (bytes) std::memset(dst, 0, bytes);
  return GRAFT_OK;
}

extern "C" int32_t graft_convert(void* dst, const void* src, int32_t dst_dtype, int32_t src_dtype, uint64_t n) {
  using namespace graft;
  GRAFT_CHECK(n == 0 || (dst && src), "Cannot convert %llu elements: a pointer is null", (unsigned long long)n);
  GRAFT_CHECK(dst_dtype == GRAFT_F32 || dst_dtype == GRAFT_BF16, "Cannot convert: target dtype is %d, expected 0 or 1",
              dst_dtype);
  GRAFT_CHECK(src_dtype >= GRAFT_F32 && src_dtype <= GRAFT_F16,
              "Cannot convert: source dtype is %d, expected 0, 1 or 2", src_dtype);
  const bool narrow = dst_dtype == GRAFT_BF16;
  if (src_dtype == dst_dtype) return graft_copy(dst, src, n * (narrow ? 2 : 4));
  if (src_dtype == GRAFT_F32)
    convert_all<bf16, float>(dst, src, n, float_to_bf16);
  else if (src_dtype == GRAFT_BF16)
    convert_all<float, bf16>(dst, src, n, bf16_to_float);
  else if (narrow)
    convert_all<bf16, uint16_t>(dst, src, n, [](uint16_t h) { return float_to_bf16(half_to_float(h)); });
  else
    convert_all<float, uint16_t>(dst, src, n, half_to_float);
  return GRAFT_OK;
}
