// Activations of a vector, the same wherever they follow.
#pragma once
#include "rows.h"

namespace graft {

inline vf silu(vf x) { return vmul(x, vsigmoid(x)); }

/// The logistic function of 2u.
inline vf gelu_gate(vf x) {
  return vsigmoid(vmul(x, vfma(vmul(x, x), vset(2 * 0.7978845608f * 0.044715f), vset(2 * 0.7978845608f))));
}

inline vf gelu_tanh(vf x) { return vmul(x, gelu_gate(x)); }

}  // namespace graft
