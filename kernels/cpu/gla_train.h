// Gated linear attention, training form: what its forward and backward pass agree on, above all the workspace.
// The states in the workspace are transposed, [columns, width]: the backward pass only reads them that way.
#pragma once
#include "gla.h"
#include "recurrent_checks.h"

namespace graft::gla {

constexpr int kChunk = 64, kRuns = kChunk / kRun;  // tokens between kept states; runs among them

/// The operands of both passes.
struct Train {
  Shape shape;
  int64_t Hq, Hkv;
  const int32_t* seq_start;
  const float *q, *k, *v, *a;
  float* workspace;

  int64_t state_floats() const { return static_cast<int64_t>(padded(shape.Dv)) * shape.width(); }
  /// State before chunk `chunk` of sequence s; one more after the last chunk.
  float* chunk_state(int64_t s, int64_t chunk, int64_t h) const {
    return workspace + ((seq_start[s] / kChunk + 2 * s + chunk) * Hkv + h) * state_floats();
  }
};

inline int32_t check_train(const char* op, const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv,
                           int32_t Dk, int32_t Dv, std::initializer_list<NamedPointer> operands) {
  GRAFT_TRY(check_ragged(op, seq_start, S, N));
  GRAFT_TRY(check_heads(op, "Hq", Hq, "Hkv", Hkv, Dk, Dv));
  return check_pointers(op, operands);
}

}  // namespace graft::gla
