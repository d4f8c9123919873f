// The reference's state slot: the position, then the plain recurrent state in double precision. It needs blocks only to
// round where a bfloat16 state does: a token-by-token recurrence gives one answer for any chunking by itself.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "bfloat16.h"
#include "recurrent_checks.h"

namespace graft {

constexpr int64_t kSlotHeader = 2;  // floats: position, padding

inline double slot_floats(int64_t elements) { return static_cast<double>(kSlotHeader + 2 * elements); }

/// What a state's type does to numbers in double precision.
struct Storage {
  bool narrow = false;  // bfloat16
  int32_t block = 1;
  Storage() = default;
  Storage(int32_t state_dtype, int32_t block) : narrow(state_dtype == GRAFT_BF16), block(block) {}

  double round(double x) const { return narrow ? bf16_to_float(float_to_bf16(static_cast<float>(x))) : x; }
  /// The state after the token at `position`: kept in its type where a block ends.
  void settle(std::vector<double>& state, int64_t position) const {
    if (!narrow || (position + 1) % block != 0) return;
    for (double& element : state) element = round(element);
  }
};

/// State of one head: zero at position 0, whatever the slot holds.
inline std::vector<double> load_state(const float* slot, int64_t offset, int64_t elements, int32_t position) {
  std::vector<double> state(elements, 0.0);
  if (position > 0) std::memcpy(state.data(), slot + kSlotHeader + 2 * offset, elements * sizeof(double));
  return state;
}

inline void store_state(float* slot, int64_t offset, const std::vector<double>& state) {
  std::memcpy(slot + kSlotHeader + 2 * offset, state.data(), state.size() * sizeof(double));
}

inline int32_t read_state(const char* op, float* recurrent, const float* slot, int64_t elements, int32_t position) {
  GRAFT_CHECK(position >= 0, "%s: position is %d, expected 0 or more", op, position);
  GRAFT_CHECK(position == 0 || slot_position(slot) == position, "%s: the slot holds the state at position %d, not %d",
              op, slot_position(slot), position);
  const auto state = load_state(slot, 0, elements, position);
  for (int64_t i = 0; i < elements; i++) recurrent[i] = static_cast<float>(state[i]);
  return GRAFT_OK;
}

}  // namespace graft
