// Rotary embedding of rotated halves: with a = position * inv_freq[i], h = D/2,
//   y[i] = x[i] cos a - x[i+h] sin a;   y[i+h] = x[i+h] cos a + x[i] sin a.   The gradient turns the other way.
#include <cmath>

#include "graft.h"
#include "row_checks.h"

extern "C" {

int32_t graft_rope_table(float* table, const float* inv_freq, int32_t P, int32_t D) {
  GRAFT_CHECK(table && inv_freq, "rope_table: null pointer");
  GRAFT_CHECK(P > 0 && D > 0 && D % 2 == 0, "rope_table: P is %d and D is %d, expected P > 0 and D even", P, D);
  const int32_t half = D / 2;
  for (int64_t p = 0; p < P; p++)
    for (int32_t i = 0; i < half; i++) {
      const float angle = float(p) * inv_freq[i];
      table[p * D + i] = float(std::cos(double(angle)));
      table[p * D + half + i] = float(std::sin(double(angle)));
    }
  return GRAFT_OK;
}

int32_t graft_rope(float* y, const float* x, const int32_t* positions, const float* table, int32_t N, int32_t H,
                   int32_t D, int32_t P, int32_t direction) {
  GRAFT_TRY(graft::check_rope(y, x, positions, table, N, H, D, P, direction));
  const int32_t half = D / 2;
  for (int64_t i = 0; i < N; i++) {
    const float *cosine = table + int64_t(positions[i]) * D, *sine = cosine + half;
    for (int64_t h = 0; h < H; h++) {
      const float* from = x + (i * H + h) * D;
      float* to = y + (i * H + h) * D;
      for (int32_t j = 0; j < half; j++) {
        const double a = from[j], b = from[j + half], c = cosine[j], s = double(sine[j]) * direction;
        to[j] = float(a * c - b * s);
        to[j + half] = float(b * c + a * s);
      }
    }
  }
  return GRAFT_OK;
}

}  // extern "C"
