// Random numbers as a pure function of a seed and a place: the same in every library and in models/random_numbers.ts.
#pragma once
#include <cstdint>

namespace graft {

/// The finaliser of MurmurHash3: a permutation of 32 bits in which every bit of the input changes half of the output.
constexpr uint32_t mix(uint32_t h) {
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

/// A number in [-scale, scale) with 24 random bits; step = scale / 2^23.
constexpr float random_number(uint32_t seed, uint64_t place, float step) {
  const uint32_t key = mix(seed ^ (static_cast<uint32_t>(place >> 32) * 0x9e3779b1u));
  const uint32_t bits = mix(mix(static_cast<uint32_t>(place) * 0x9e3779b1u) ^ key);
  return static_cast<float>(static_cast<int32_t>(bits >> 8) - (1 << 23)) * step;
}

}  // namespace graft
