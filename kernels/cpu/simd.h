// One float vector type for the instruction set this library is compiled for: 16 lanes with AVX-512, 8 with AVX2 + FMA.
// Everything is lane-wise with one rounding per operation, so results do not depend on how a loop is blocked.
#pragma once
#pragma GCC diagnostic push  // g++ 12 takes the "undefined" operands inside its own intrinsics for mistakes
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

#include "bfloat16.h"

namespace graft {

#if defined(__AVX512F__)
using vf = __m512;
using vmask = __mmask16;
constexpr int VL = 16;
inline vf vzero() { return _mm512_setzero_ps(); }
inline vf vset(float x) { return _mm512_set1_ps(x); }
inline vf vload(const float* p) { return _mm512_loadu_ps(p); }
inline void vstore(float* p, vf a) { _mm512_storeu_ps(p, a); }
inline vmask vfirst(int n) { return n >= 16 ? __mmask16(0xffff) : __mmask16((1u << n) - 1); }  // lanes 0..n-1
inline vf vload_n(const float* p, int n) { return _mm512_maskz_loadu_ps(vfirst(n), p); }       // other lanes 0
inline void vstore_n(float* p, vf a, int n) { _mm512_mask_storeu_ps(p, vfirst(n), a); }
inline vf vload_bf16(const bf16* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
inline vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
inline vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
inline vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
inline vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
inline vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
inline vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
inline vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
inline vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }    // a*b + c
inline vf vfnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a*b
inline vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline vf vpow2i(vf n) { return _mm512_scalef_ps(_mm512_set1_ps(1.f), n); }  // 2^n, n integral
inline vmask vless(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline vf vselect(vmask m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
inline vmask vmask_of(uint32_t bits) { return __mmask16(bits); }  // lane i where bit i is set
inline __m256 vhalf_low(vf a) { return _mm512_castps512_ps256(a); }
inline __m256 vhalf_high(vf a) { return _mm512_extractf32x8_ps(a, 1); }
inline float vsum(vf a);
inline float vmax_lanes(vf a) { return _mm512_reduce_max_ps(a); }
#else
using vf = __m256;
using vmask = __m256;
constexpr int VL = 8;
inline vf vzero() { return _mm256_setzero_ps(); }
inline vf vset(float x) { return _mm256_set1_ps(x); }
inline vf vload(const float* p) { return _mm256_loadu_ps(p); }
inline void vstore(float* p, vf a) { _mm256_storeu_ps(p, a); }
inline __m256i vfirst_i(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline vmask vfirst(int n) { return _mm256_castsi256_ps(vfirst_i(n)); }
inline vf vload_n(const float* p, int n) { return _mm256_maskload_ps(p, vfirst_i(n)); }
inline void vstore_n(float* p, vf a, int n) { _mm256_maskstore_ps(p, vfirst_i(n), a); }
inline vf vload_bf16(const bf16* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
inline vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
inline vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
inline vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
inline vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
inline vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
inline vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
inline vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
inline vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
inline vf vfnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
inline vf vround(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline vf vpow2i(vf n) {  // n >= -150: two factors, so that results below the normal range come out as denormals
  const __m256i i = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(i, 1), rest = _mm256_sub_epi32(i, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const vf a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const vf b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return vmul(a, b);
}
inline vmask vless(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline vf vselect(vmask m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }
inline vmask vmask_of(uint32_t bits) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(bits)), lane), lane));
}
inline float vmax_lanes(vf a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  m = _mm_max_ss(m, _mm_shuffle_ps(m, m, 1));
  return _mm_cvtss_f32(m);
}
#endif

/// The first n lanes (other lanes 0), without a mask where all are wanted.
inline vf load_part(const float* p, int n) { return n >= VL ? vload(p) : vload_n(p, n); }
inline void store_part(float* p, vf a, int n) {
  if (n >= VL)
    vstore(p, a);
  else
    vstore_n(p, a, n);
}

inline vf load_wide(const float* p) { return vload(p); }
inline vf load_wide(const bf16* p) { return vload_bf16(p); }
inline vf load_wide_n(const float* p, int n) { return vload_n(p, n); }
inline vf load_wide_n(const bf16* p, int n) {
#if defined(__AVX512F__)
  const __m256i bits = _mm256_maskz_loadu_epi16(vfirst(n), p);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#else
  alignas(32) bf16 copy[VL] = {};
  for (int i = 0; i < n; i++) copy[i] = p[i];
  return vload_bf16(copy);
#endif
}

/// Stores a vector as it is, or each lane as float_to_bf16 rounds it. (The processor's own conversion takes subnormal
/// numbers for zero.)
inline void store_narrow(float* p, vf a) { vstore(p, a); }
inline void store_narrow(bf16* p, vf a) {
#if defined(__AVX512F__)
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
#else
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(packed));
#endif
}
inline void store_narrow_n(float* p, vf a, int n) { vstore_n(p, a, n); }
inline void store_narrow_n(bf16* p, vf a, int n) {
  bf16 lanes[VL];
  store_narrow(lanes, a);
  for (int i = 0; i < n; i++) p[i] = lanes[i];
}

/// Sum of the lanes in one fixed tree order.
inline float vsum(vf a) {
#if defined(__AVX512F__)
  const __m256 h = _mm256_add_ps(vhalf_low(a), vhalf_high(a));
#else
  const __m256 h = a;
#endif
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  s = _mm_add_ss(s, _mm_shuffle_ps(s, s, 1));
  return _mm_cvtss_f32(s);
}

/// e^x: about 1 ulp on [-104, 88.7]; below underflows to 0 smoothly, above gives infinity; NaN is not preserved.
inline vf vexp(vf x) {
  x = vmin(vmax(x, vset(-104.f)), vset(88.73f));
  const vf n = vround(vmul(x, vset(1.44269504088896341f)));
  vf r = vfnma(n, vset(0.693359375f), x);
  r = vfnma(n, vset(-2.12194440e-4f), r);
  vf p = vset(1.9875691500e-4f);
  p = vfma(p, r, vset(1.3981999507e-3f));
  p = vfma(p, r, vset(8.3334519073e-3f));
  p = vfma(p, r, vset(4.1665795894e-2f));
  p = vfma(p, r, vset(1.6666665459e-1f));
  p = vfma(p, r, vset(5.0000001201e-1f));
  p = vadd(vfma(p, vmul(r, r), r), vset(1.f));
  return vmul(p, vpow2i(n));
}

/// 1 / (1 + e^-x)
inline vf vsigmoid(vf x) { return vdiv(vset(1.f), vadd(vset(1.f), vexp(vsub(vzero(), x)))); }

/// f(vector, lanes) style loop over n floats: full vectors, then one masked tail.
template <class F>
inline void vloop(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) f(i, VL);
  if (i < n) f(i, static_cast<int>(n - i));
}

}  // namespace graft
