// Argument checks that every library's convolutions and linear-attention ops share. Knows shapes, no arithmetic.
#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "status.h"

namespace graft {

struct NamedPointer {
  const char* name;
  const void* pointer;
};

/// Every pointer of the list must be set.
inline int32_t check_pointers(const char* op, std::initializer_list<NamedPointer> operands) {
  for (const NamedPointer& operand : operands)
    GRAFT_CHECK(operand.pointer != nullptr, "%s: %s is a null pointer", op, operand.name);
  return GRAFT_OK;
}

inline int32_t check_ragged(const char* op, const int32_t* seq_start, int32_t S, int32_t N) {
  GRAFT_TRY(check_pointers(op, {{"seq_start", seq_start}}));
  GRAFT_CHECK(S >= 0 && N >= 0, "%s: S is %d and N is %d, expected neither below 0", op, S, N);
  GRAFT_CHECK(seq_start[0] == 0 && seq_start[S] == N, "%s: seq_start runs from %d to %d, expected 0 to N = %d", op,
              seq_start[0], seq_start[S], N);
  for (int32_t s = 0; s < S; s++)
    GRAFT_CHECK(seq_start[s] <= seq_start[s + 1], "%s: seq_start falls from %d to %d at sequence %d", op, seq_start[s],
                seq_start[s + 1], s);
  return GRAFT_OK;
}

/// `shared` heads serve `heads` heads in contiguous groups: a multiple of each other.
inline int32_t check_heads(const char* op, const char* heads_name, int32_t heads, const char* shared_name,
                           int32_t shared, int32_t Dk, int32_t Dv) {
  GRAFT_CHECK(shared >= 1 && heads >= shared && heads % shared == 0,
              "%s: %s is %d, expected a positive multiple of %s = %d", op, heads_name, heads, shared_name, shared);
  GRAFT_CHECK(Dk >= 8 && Dk <= 256 && Dk % 8 == 0, "%s: Dk is %d, expected a multiple of 8 from 8 to 256", op, Dk);
  GRAFT_CHECK(Dv >= 8 && Dv <= 256 && Dv % 8 == 0, "%s: Dv is %d, expected a multiple of 8 from 8 to 256", op, Dv);
  return GRAFT_OK;
}

/// What decides the layout of a state slot beside the heads.
inline int32_t check_block(const char* op, int32_t block, int32_t state_dtype) {
  GRAFT_CHECK(block >= 1 && block <= 256, "%s: block is %d, expected 1 to 256", op, block);
  GRAFT_CHECK(state_dtype == GRAFT_F32 || state_dtype == GRAFT_BF16,
              "%s: state_dtype is %d, expected float32 (0) or bfloat16 (1)", op, state_dtype);
  return GRAFT_OK;
}

/// The first word of a state slot: how many tokens it has seen, as int32 bits. Meaningless for a fresh slot.
inline int32_t slot_position(const float* slot) {
  int32_t position;
  std::memcpy(&position, slot, sizeof position);
  return position;
}
inline void set_slot_position(float* slot, int32_t position) { std::memcpy(slot, &position, sizeof position); }

/// A sequence may begin (position 0) or go on exactly where its slot stands; anything else is a stale or crossed state.
inline int32_t check_slots(const char* op, const float* state, uint64_t stride, double needed, const int32_t* slots,
                           const int32_t* seq_start, const int32_t* start_pos, int32_t S) {
  GRAFT_TRY(check_pointers(op, {{"state", state}, {"slots", slots}, {"start_pos", start_pos}}));
  GRAFT_CHECK(static_cast<double>(stride) >= needed, "%s: state_stride is %llu floats, expected at least %.0f", op,
              static_cast<unsigned long long>(stride), needed);
  for (int32_t s = 0; s < S; s++) {
    GRAFT_CHECK(slots[s] >= 0, "%s: slot of sequence %d is %d, expected 0 or more", op, s, slots[s]);
    GRAFT_CHECK(start_pos[s] >= 0, "%s: start_pos of sequence %d is %d, expected 0 or more", op, s, start_pos[s]);
    if (start_pos[s] == 0 || seq_start[s] == seq_start[s + 1]) continue;
    const int32_t held = slot_position(state + static_cast<uint64_t>(slots[s]) * stride);
    GRAFT_CHECK(held == start_pos[s], "%s: slot %d holds the state at position %d, sequence %d starts at %d", op,
                slots[s], held, s, start_pos[s]);
  }
  return GRAFT_OK;
}

inline int32_t check_conv(const char* op, const int32_t* seq_start, int32_t S, int32_t N, int32_t C, int32_t W) {
  GRAFT_TRY(check_ragged(op, seq_start, S, N));
  GRAFT_CHECK(C >= 1, "%s: C is %d, expected at least 1", op, C);
  GRAFT_CHECK(W >= 2 && W <= 4, "%s: W is %d, expected 2 to 4", op, W);
  return GRAFT_OK;
}

/// A null state is allowed: zero left context, nothing kept.
inline int32_t check_conv_state(const char* op, const float* conv_state, const int32_t* slots, int32_t S, int32_t C,
                                int32_t W, uint64_t stride) {
  if (conv_state == nullptr) return GRAFT_OK;
  GRAFT_TRY(check_pointers(op, {{"slots", slots}}));
  GRAFT_CHECK(stride >= static_cast<uint64_t>(W - 1) * C, "%s: state_stride is %llu floats, expected at least %d", op,
              static_cast<unsigned long long>(stride), (W - 1) * C);
  for (int32_t s = 0; s < S; s++)
    GRAFT_CHECK(slots[s] >= 0, "%s: slot of sequence %d is %d, expected 0 or more", op, s, slots[s]);
  return GRAFT_OK;
}

}  // namespace graft
