// bfloat16 as raw bits, with the rounding every library shares (nearest even; NaN stays NaN).
#pragma once
#include <bit>
#include <cstdint>

namespace graft {

using bf16 = uint16_t;

inline float bf16_to_float(bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

inline bf16 float_to_bf16(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<bf16>((bits >> 16) | 0x40);
  return static_cast<bf16>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

}  // namespace graft
