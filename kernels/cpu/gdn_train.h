// Gated delta rule, training form: what its forward and backward pass agree on, above all the workspace.
// The states in the workspace are transposed, [columns, width]: the backward pass only reads them that way. Behind them
// lie the rows w of all value heads.
#pragma once
#include "gdn.h"
#include "recurrent_checks.h"

namespace graft::gdn {

constexpr int kChunk = 64, kRuns = kChunk / kRun;  // tokens between kept states; runs among them

/// The operands of both passes.
struct Train {
  Shape shape;
  int64_t Hk, Hv, N, S;
  const int32_t* seq_start;
  const float *q, *k, *v, *g, *beta;
  float* workspace;

  int64_t state_floats() const { return static_cast<int64_t>(shape.columns()) * shape.width(); }
  /// State before chunk `chunk` of sequence s, [columns, width]; one more after the last chunk.
  float* chunk_state(int64_t s, int64_t chunk, int64_t j) const {
    return workspace + ((seq_start[s] / kChunk + 2 * s + chunk) * Hv + j) * state_floats();
  }
  /// w of a row and value head, [columns]; the rows of a head lie together.
  float* w(int64_t row, int64_t j) const {
    return workspace + (N / kChunk + 2 * S + 1) * Hv * state_floats() + (j * N + row) * shape.columns();
  }
  int64_t key_at(int64_t row, int64_t h) const { return (row * Hk + h) * shape.Dk; }
};

inline int32_t check_train(const char* op, const int32_t* seq_start, int32_t S, int32_t N, int32_t Hk, int32_t Hv,
                           int32_t Dk, int32_t Dv, std::initializer_list<NamedPointer> operands) {
  GRAFT_TRY(check_ragged(op, seq_start, S, N));
  GRAFT_TRY(check_heads(op, "Hv", Hv, "Hk", Hk, Dk, Dv));
  return check_pointers(op, operands);
}

}  // namespace graft::gdn
