// One step of a wgmma kernel as the PTX manual describes the instruction, on a stage of memory as the kernel fills it:
// by which tests see that weights and rows lie where the instruction looks for them. Knows no kernel.
#include <vector>

#include "wgmma_forms.h"

namespace simt {
namespace {

using namespace graft::gpu;

float bf16_of(const unsigned char* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return __builtin_bit_cast(float, uint32_t(bits) << 16);
}

/// Element (row, k) of the right operand: the manual's canonical layout of a matrix with K innermost, in units of 16
/// bytes ((8, n), 2) : ((8, stride), 1), its address bits 4 to 6 exclusive-or bits 7 to 9.
float right(const unsigned char* memory, uint64_t descriptor, int row, int k) {
  const uint32_t start = (descriptor & 0x3fff) * 16, stride = (descriptor >> 32 & 0x3fff) * 16;
  uint32_t at = start + row % 8 * 128 + row / 8 * stride + k / 8 * 16;
  if (descriptor >> 62 == 1) at ^= (at >> 7 & 7) << 4;
  return bf16_of(memory + at + k % 8 * 2);
}

/// d[64][rows] += a b of 16 inputs; registers[thread][8]: the left operand of a warpgroup.
void multiply(std::vector<float>& d, const std::vector<float>& registers, const unsigned char* memory,
              uint64_t descriptor, int rows) {
  float a[64][16];
  for (int thread = 0; thread < 128; thread++)
    for (int i = 0; i < 8; i++) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8, k = thread % 4 * 2 + i % 2 + i / 4 * 8;
      a[row][k] = registers[thread * 8 + i];
    }
  for (int m = 0; m < 64; m++)
    for (int n = 0; n < rows; n++) {
      double sum = 0;
      for (int k = 0; k < 16; k++) sum += double(a[m][k]) * right(memory, descriptor, n, k);
      d[m * rows + n] = float(d[m * rows + n] + sum);
    }
}

}  // namespace
}  // namespace simt

/// y[rows, 128] = x[rows, 64] Wᵀ: one chunk of one tile. rows: 64, 128 or 192. packed: a weight [128, 64].
extern "C" GRAFT_EXPORT int32_t graft_simt_wgmma(float* y, const unsigned char* packed, const float* x, int32_t rows) {
  using namespace graft::gpu;
  constexpr uint32_t kBase = 3 * 1024;
  void* arranged = nullptr;
  const size_t bytes = arranged_bytes(rows, kSquare);
  GRAFT_CHECK(rows % kSquare == 0, "Cannot multiply: %d rows, expected a multiple of %d", rows, kSquare);
  GRAFT_CHECK(cudaMalloc(&arranged, bytes) == cudaSuccess, "Cannot multiply: no memory");
  arrange_many_rows(static_cast<uint16_t*>(arranged), x, rows, kSquare);
  std::vector<unsigned char> memory(kBase + kWeightBytes + bytes);
  std::memcpy(memory.data() + kBase, packed, kWeightBytes);
  std::memcpy(memory.data() + kBase + kWeightBytes, arranged, bytes);
  cudaFree(arranged);
  for (int32_t group = 0; group < 2; group++) {
    std::vector<float> sums(64 * rows), registers(128 * 8);
    for (int32_t k = 0; k < kChunkTiles; k++) {
      for (int32_t thread = 0; thread < 128; thread++)
        for (int32_t i = 0; i < 8; i++)
          registers[thread * 8 + i] = simt::bf16_of(
              memory.data() + kBase + weight_place(group * 4 + thread / kWarp, k, thread % kWarp) + i * 2);
      simt::multiply(sums, registers, memory.data(), rows_descriptor(kBase + kWeightBytes) + 2 * k, rows);
    }
    for (int32_t m = 0; m < 64; m++)
      for (int32_t n = 0; n < rows; n++) y[n * kTileOutputs + group * 64 + m] = sums[m * rows + n];
  }
  return launched("wgmma");
}
