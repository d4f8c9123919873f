// Matrix instructions of a warp, lane by lane as the PTX manual lays their fragments out.
#include "block.h"

namespace simt {
namespace {

float bf16_at(const unsigned char* fragment, unsigned half) {
  uint16_t bits;
  std::memcpy(&bits, fragment + 2 * half, sizeof bits);
  return __builtin_bit_cast(float, uint32_t(bits) << 16);
}

}  // namespace

// With g = lane / 4, t = lane % 4: a holds rows g and g + 8, columns 2t, 2t+1 and 2t+8, 2t+9; b holds rows (k) 2t, 2t+1
// and 2t+8, 2t+9 of column g; d holds rows g and g + 8, columns 2t, 2t+1.
void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  uint32_t mine[6];
  std::memcpy(mine, a, 16);
  std::memcpy(mine + 4, b, 8);
  const unsigned char* all = exchange(0xffffffffu, mine, sizeof mine);
  const unsigned l = lane(), g = l / 4, t = l % 4;
  float rows[2][16], columns[2][16];
  for (unsigned half = 0; half < 2; half++)
    for (unsigned k = 0; k < 16; k++) {
      const unsigned owner = k % 8 / 2, high_k = k / 8, odd = k % 2;
      rows[half][k] = bf16_at(all + (4 * g + owner) * kExchange, 2 * (half + 2 * high_k) + odd);
      columns[half][k] = bf16_at(all + (4 * (2 * t + half) + owner) * kExchange, 8 + 2 * high_k + odd);
    }
  for (unsigned i = 0; i < 4; i++) {
    double sum = 0;
    for (unsigned k = 0; k < 16; k++) sum += double(rows[i / 2][k]) * columns[i % 2][k];
    d[i] = float(d[i] + sum);
  }
}

void load_matrix_x4(uint32_t r[4], const void* row, bool transposed) {
  if (reinterpret_cast<uintptr_t>(row) % 16) fault("a matrix row at an address that is no multiple of 16");
  check_access(row, 16, false);
  const unsigned char* all = exchange(0xffffffffu, &row, sizeof row);
  const unsigned l = lane();
  for (unsigned m = 0; m < 4; m++) {
    uint16_t pair[2];
    for (unsigned e = 0; e < 2; e++) {
      const unsigned matrix_row = transposed ? 2 * (l % 4) + e : l / 4, column = transposed ? l / 4 : 2 * (l % 4) + e;
      const unsigned char* from;
      std::memcpy(&from, all + (8 * m + matrix_row) * kExchange, sizeof from);
      std::memcpy(&pair[e], from + 2 * column, 2);
    }
    r[m] = pair[0] | uint32_t(pair[1]) << 16;
  }
}

}  // namespace simt
