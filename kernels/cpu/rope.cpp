// Rotary embedding of rotated halves: with a = position * inv_freq[i], h = D/2,
//   y[i] = x[i] cos a - x[i+h] sin a;   y[i+h] = x[i+h] cos a + x[i] sin a.   The gradient turns the other way.
// The table is made once, with the cosines and sines of the float32 angle in double. One task owns some rows.
#include <cmath>

#include "graft.h"
#include "row_checks.h"
#include "rows.h"
#include "threads.h"

using namespace graft;

extern "C" {

int32_t graft_rope_table(float* table, const float* inv_freq, int32_t P, int32_t D) {
  GRAFT_CHECK(table && inv_freq, "rope_table: null pointer");
  GRAFT_CHECK(P > 0 && D > 0 && D % 2 == 0, "rope_table: P is %d and D is %d, expected P > 0 and D even", P, D);
  const int32_t half = D / 2;
  parallel_ranges(P, 64, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; p++)
      for (int32_t i = 0; i < half; i++) {
        const float angle = float(p) * inv_freq[i];
        table[p * D + i] = float(std::cos(double(angle)));
        table[p * D + half + i] = float(std::sin(double(angle)));
      }
  });
  return GRAFT_OK;
}

int32_t graft_rope(float* y, const float* x, const int32_t* positions, const float* table, int32_t N, int32_t H,
                   int32_t D, int32_t P, int32_t direction) {
  GRAFT_TRY(check_rope(y, x, positions, table, N, H, D, P, direction));
  const int32_t half = D / 2;
  const vf sign = vset(float(direction));
  parallel_ranges(N, row_grain(int64_t(H) * D), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const float* angles = table + int64_t(positions[i]) * D;
      for (int64_t h = 0; h < H; h++) {
        const float* from = x + (i * H + h) * D;
        float* to = y + (i * H + h) * D;
        vloop(half, [&](int64_t j, int n) {
          const vf a = load_part(from + j, n), b = load_part(from + half + j, n);
          const vf c = load_part(angles + j, n), s = vmul(load_part(angles + half + j, n), sign);
          store_part(to + j, vfnma(b, s, vmul(a, c)), n);
          store_part(to + half + j, vfma(a, s, vmul(b, c)), n);
        });
      }
    }
  });
  return GRAFT_OK;
}

}  // extern "C"
