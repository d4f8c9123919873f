// Constants that a caller wrote as decimals and that crossed the C ABI as float32.
#pragma once
#include <cmath>

namespace graft {

/// The decimal of seven places nearest to x. float(0.999) loses 1.3e-5 of 1 - 0.999; this gives it back.
inline double decimal(float x) { return std::round(double(x) * 1e7) / 1e7; }

}  // namespace graft
