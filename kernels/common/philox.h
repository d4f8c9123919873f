// Philox4x32-10 (Salmon et al., SC 2011): random bits as a pure function of a counter and a key.
#pragma once
#include <cstdint>

namespace graft {

/// A number in [0, 1) with 53 random bits, from the seed of a request, the choice and the position of the token.
constexpr double uniform(uint32_t seed_lo, uint32_t seed_hi, uint32_t choice, uint32_t position) {
  uint32_t c[4] = {position, choice, 0, 0}, k0 = seed_lo, k1 = seed_hi;
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * c[0], b = uint64_t(0xCD9E8D57u) * c[2];
    const uint32_t next[4] = {uint32_t(b >> 32) ^ c[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ k1, uint32_t(a)};
    for (int i = 0; i < 4; i++) c[i] = next[i];
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return double((uint64_t(c[0]) << 21) ^ (c[1] >> 11)) * 0x1p-53;
}

}  // namespace graft
