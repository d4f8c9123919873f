// Causal depthwise convolutions.
//   short:    y[t,c] = act(bias[c] + sum_j w[c,j] u[t-W+1+j, c])         w[C, W], the last tap meets the current token
//   dynamic:  y[t,c] = silu(sum_j kernels[t,c,j] u[t-W+1+j, c])          kernels[N, C, W]
// u, y: [N, C]; conv state [W-1, C], oldest row first. W = 2..4 (checked). A task is a tile of channels of one sequence
// (of all sequences where gradients sum over rows); lanes run along channels and every sum ascends in j. Rows are
// walked in stretches that stay in the L1 cache, one vector of channels at a time with its window in registers. Bytes:
// short reads and writes each element once; dynamic adds W times as many for the kernels.
#include <algorithm>

#include "grouped.h"
#include "recurrent_checks.h"
#include "simd.h"

using namespace graft;

namespace {

constexpr int kTile = 128;    // channels of a task
constexpr int kStretch = 16;  // rows

/// Lane tables of a [VL, W] matrix: element (i, j) of W vectors in a row lies in vector (W*i+j)/VL, lane (W*i+j)%VL.
template <int W>
struct Lanes {
  int32_t gather[W][VL];   // [tap][channel] -> lane in its vector
  int32_t scatter[W][VL];  // [vector][lane] -> channel
  int32_t tap[W][VL];      // [vector][lane] -> tap
  constexpr Lanes() : gather(), scatter(), tap() {
    for (int e = 0; e < W * VL; e++) {
      gather[e % W][e / W] = e % VL;
      scatter[e / VL][e % VL] = e / W;
      tap[e / VL][e % VL] = e % W;
    }
  }
};
template <int W>
constexpr Lanes<W> lanes{};

#if defined(__AVX512F__)
inline vf permute(vf x, const int32_t* index) { return _mm512_permutexvar_ps(_mm512_loadu_si512(index), x); }
inline vmask equal(const int32_t* values, int wanted) {
  return _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(values), _mm512_set1_epi32(wanted));
}
#else
inline vf permute(vf x, const int32_t* index) {
  return _mm256_permutevar8x32_ps(x, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index)));
}
inline vmask equal(const int32_t* values, int wanted) {
  return _mm256_castsi256_ps(
      _mm256_cmpeq_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)), _mm256_set1_epi32(wanted)));
}
#endif

/// taps[j] = element j of `count` <= VL channels that lie [channel, W] in memory.
template <int W>
inline void load_taps(vf (&taps)[W], const float* from, int count) {
  vf raw[W];
  for (int v = 0; v < W; v++) {
    const int left = W * count - v * VL;
    raw[v] = left >= VL ? vload(from + v * VL) : left > 0 ? vload_n(from + v * VL, left) : vzero();
  }
  for (int j = 0; j < W; j++) {
    // Channels ascend through the vectors: those of vector v start at channel ceil((v*VL - j) / W).
    taps[j] = permute(raw[0], lanes<W>.gather[j]);
    for (int v = 1; v < W; v++) {
      const vmask earlier = vfirst((v * VL - j + W - 1) / W);
      taps[j] = vselect(earlier, taps[j], permute(raw[v], lanes<W>.gather[j]));
    }
  }
}

template <int W>
inline void store_taps(float* to, const vf (&taps)[W], int count) {
  for (int v = 0; v < W; v++) {
    const int left = W * count - v * VL;
    if (left <= 0) break;
    vf out = permute(taps[0], lanes<W>.scatter[v]);
    for (int j = 1; j < W; j++) out = vselect(equal(lanes<W>.tap[v], j), permute(taps[j], lanes<W>.scatter[v]), out);
    vstore_n(to + v * VL, out, std::min(left, VL));
  }
}

inline vf silu(vf x) { return vmul(x, vsigmoid(x)); }
/// d silu / dx
inline vf silu_slope(vf x) {
  const vf sigmoid = vsigmoid(x);
  return vmul(sigmoid, vfma(x, vsub(vset(1.f), sigmoid), vset(1.f)));
}

/// One sequence with its left context; rows -(W-1)..-1 come from the state or are zero.
struct Window {
  const float *u, *state;
  int64_t C;
  int W;
  const float* row(int64_t t) const {
    static const float zeros[kTile] = {};
    if (t >= 0) return u + t * C;
    return state != nullptr ? state + (t + W - 1) * C : zeros;
  }
  /// Row t at channel c; the zero row has kTile channels, hence the tile's first channel.
  vf at(int64_t t, int64_t c, int64_t tile, int n) const {
    return vload_n(t < 0 && state == nullptr ? row(t) + (c - tile) : row(t) + c, n);
  }
};

/// The weights of a tile as vectors per tap.
template <int W>
struct Weights {
  vf taps[kTile / VL][W], bias[kTile / VL];
  void read(const float* w, const float* b, int64_t tile, int channels) {
    for (int c = 0; c < channels; c += VL) {
      const int n = std::min(VL, channels - c);
      load_taps<W>(taps[c / VL], w + (tile + c) * W, n);
      bias[c / VL] = b != nullptr ? vload_n(b + tile + c, n) : vzero();
    }
  }
};

template <int W>
inline vf weigh(const vf (&taps)[W], vf sum, const vf (&x)[W]) {
  for (int j = 0; j < W; j++) sum = vfma(taps[j], x[j], sum);
  return sum;
}

/// x[j] = row t-W+1+j for j < W-1: the window before row t comes in.
template <int W>
inline void open_window(vf (&x)[W], const Window& window, int64_t t, int64_t c, int64_t tile, int n) {
  for (int j = 0; j < W - 1; j++) x[j] = window.at(t - W + 1 + j, c, tile, n);
}

template <int W>
inline void shift(vf (&x)[W]) {
  for (int j = 0; j < W - 1; j++) x[j] = x[j + 1];
}

/// The last W-1 rows of [state, u] become the state; the source of a row never lies before it.
void advance_state(float* state, const Window& window, int64_t T, int64_t tile, int channels) {
  for (int64_t i = 0; i < window.W - 1; i++)
    std::copy_n(window.row(T - (window.W - 1) + i) + tile, channels, state + i * window.C + tile);
}

struct Call {
  float *y, *conv_state;
  const float *u, *w, *bias;
  const int32_t *slots, *seq_start;
  int64_t C;
  uint64_t stride;
  bool activate;
};

struct Tile {
  int64_t first;
  int channels;
};
inline int64_t tiles(int64_t C) { return (C + kTile - 1) / kTile; }
inline Tile tile_at(int64_t index, int64_t C) {
  return {index * kTile, static_cast<int>(std::min<int64_t>(kTile, C - index * kTile))};
}

/// f(s, tile) for every sequence and tile of channels.
template <class F>
void each_tile(int32_t S, int32_t N, int64_t C, F&& f) {
  const double cost = 4.0 * N / std::max(S, 1) * std::min<int64_t>(C, kTile);
  parallel_grouped(S * tiles(C), cost, [&](int64_t i, int) { f(i / tiles(C), tile_at(i % tiles(C), C)); });
}

/// Rows t0..t1-1 of one vector of channels. Static weights lie in `taps`, dynamic ones are read per row.
template <int W, bool kDynamic>
inline void forward_stretch(const Call& call, const Window& window, int64_t first, int64_t t0, int64_t t1, int64_t c,
                            int64_t tile, int n, vf (&taps)[W], vf bias) {
  vf x[W];
  open_window<W>(x, window, t0, c, tile, n);
  for (int64_t t = t0; t < t1; t++) {
    const int64_t at = (first + t) * call.C + c;
    x[W - 1] = load_part(call.u + at, n);
    if constexpr (kDynamic) load_taps<W>(taps, call.w + at * W, n);
    const vf sum = weigh<W>(taps, bias, x);
    store_part(call.y + at, call.activate ? silu(sum) : sum, n);
    shift<W>(x);
  }
}

template <int W, bool kDynamic>
void forward(const Call& call, int64_t s, const Tile& tile) {
  const int64_t first = call.seq_start[s], T = call.seq_start[s + 1] - first, C = call.C;
  if (T == 0) return;
  float* state =
      call.conv_state != nullptr ? call.conv_state + static_cast<uint64_t>(call.slots[s]) * call.stride : nullptr;
  const Window window{call.u + first * C, state, C, W};
  Weights<W> weights;
  if (!kDynamic) weights.read(call.w, call.bias, tile.first, tile.channels);
  for (int64_t t0 = 0; t0 < T; t0 += kStretch)
    for (int i = 0; i < tile.channels; i += VL)
      forward_stretch<W, kDynamic>(call, window, first, t0, std::min(T, t0 + kStretch), tile.first + i, tile.first,
                                   std::min(VL, tile.channels - i), weights.taps[i / VL],
                                   kDynamic ? vzero() : weights.bias[i / VL]);
  if (state != nullptr) advance_state(state, window, T, tile.first, tile.channels);
}

struct Gradients {
  float *du, *dw, *dbias;
  const float* dy;
};

/// Sums over rows for one vector of channels.
template <int W>
struct Sums {
  vf taps[W], bias;
};

/// Rows t0..t1-1 of one vector of channels. du of row t gathers w[W-1] g_t + w[W-2] g_{t+1} + ..: the last W-1 rows
/// stay open in `open`, and between stretches in du itself. Static gradients go to `sums`, dynamic ones to grad.dw.
template <int W, bool kDynamic>
inline void backward_stretch(const Call& call, const Gradients& grad, const Window& window, int64_t first, int64_t t0,
                             int64_t t1, int64_t c, int64_t tile, int n, vf (&taps)[W], vf bias, Sums<W>& sums) {
  const int64_t C = call.C;
  float* du = grad.du + first * C + c;
  vf x[W], open[W];
  open_window<W>(x, window, t0, c, tile, n);
  for (int j = 0; j < W - 1; j++) open[j] = t0 - W + 1 + j >= 0 ? load_part(du + (t0 - W + 1 + j) * C, n) : vzero();
  for (int64_t t = t0; t < t1; t++) {
    const int64_t at = (first + t) * C + c;
    x[W - 1] = load_part(call.u + at, n);
    if constexpr (kDynamic) load_taps<W>(taps, call.w + at * W, n);
    vf gradient = load_part(grad.dy + at, n);
    if (call.activate) gradient = vmul(gradient, silu_slope(weigh<W>(taps, bias, x)));
    if constexpr (kDynamic) {
      vf products[W];
      for (int j = 0; j < W; j++) products[j] = vmul(gradient, x[j]);
      store_taps<W>(grad.dw + at * W, products, n);
    } else {
      for (int j = 0; j < W; j++) sums.taps[j] = vfma(gradient, x[j], sums.taps[j]);
      sums.bias = vadd(sums.bias, gradient);
    }
    for (int j = 0; j < W - 1; j++) open[j] = vfma(taps[j], gradient, open[j]);
    open[W - 1] = vmul(taps[W - 1], gradient);
    if (t >= W - 1) store_part(du + (t - W + 1) * C, open[0], n);
    shift<W>(open);
    shift<W>(x);
  }
  for (int j = 0; j < W - 1; j++)
    if (t1 - W + 1 + j >= 0) store_part(du + (t1 - W + 1 + j) * C, open[j], n);
}

template <int W>
void short_backward(const Call& call, const Gradients& grad, int32_t S, const Tile& tile) {
  Weights<W> weights;
  weights.read(call.w, call.bias, tile.first, tile.channels);
  Sums<W> sums[kTile / VL];
  for (auto& sum : sums) {
    sum.bias = vzero();
    for (int j = 0; j < W; j++) sum.taps[j] = vzero();
  }
  for (int32_t s = 0; s < S; s++) {
    const int64_t first = call.seq_start[s], T = call.seq_start[s + 1] - first;
    const Window window{call.u + first * call.C, nullptr, call.C, W};
    for (int64_t t0 = 0; t0 < T; t0 += kStretch)
      for (int i = 0; i < tile.channels; i += VL)
        backward_stretch<W, false>(call, grad, window, first, t0, std::min(T, t0 + kStretch), tile.first + i,
                                   tile.first, std::min(VL, tile.channels - i), weights.taps[i / VL],
                                   weights.bias[i / VL], sums[i / VL]);
  }
  for (int i = 0; i < tile.channels; i += VL) {
    const int n = std::min(VL, tile.channels - i);
    float *dw = grad.dw + (tile.first + i) * W, *dbias = grad.dbias != nullptr ? grad.dbias + tile.first + i : nullptr;
    vf old[W];
    load_taps<W>(old, dw, n);
    for (int j = 0; j < W; j++) old[j] = vadd(old[j], sums[i / VL].taps[j]);
    store_taps<W>(dw, old, n);
    if (dbias != nullptr) vstore_n(dbias, vadd(vload_n(dbias, n), sums[i / VL].bias), n);
  }
}

template <int W>
void dynamic_backward(const Call& call, const Gradients& grad, int64_t s, const Tile& tile) {
  const int64_t first = call.seq_start[s], T = call.seq_start[s + 1] - first;
  const Window window{call.u + first * call.C, nullptr, call.C, W};
  Sums<W> unused;
  vf taps[W];
  for (int64_t t0 = 0; t0 < T; t0 += kStretch)
    for (int i = 0; i < tile.channels; i += VL)
      backward_stretch<W, true>(call, grad, window, first, t0, std::min(T, t0 + kStretch), tile.first + i, tile.first,
                                std::min(VL, tile.channels - i), taps, vzero(), unused);
}

/// f with the number of taps as a compile-time constant.
template <class F>
void with_taps(int32_t W, F&& f) {
  if (W == 2) return f(std::integral_constant<int, 2>{});
  if (W == 3) return f(std::integral_constant<int, 3>{});
  f(std::integral_constant<int, 4>{});
}

}  // namespace

extern "C" int32_t graft_short_conv(float* y, float* conv_state, const float* u, const float* w, const float* bias,
                                    const int32_t* slots, const int32_t* seq_start, int32_t S, int32_t N, int32_t C,
                                    int32_t W, uint64_t state_stride, int32_t silu) {
  GRAFT_TRY(check_conv("short_conv", seq_start, S, N, C, W));
  GRAFT_TRY(check_pointers("short_conv", {{"y", y}, {"u", u}, {"w", w}}));
  GRAFT_TRY(check_conv_state("short_conv", conv_state, slots, S, C, W, state_stride));
  const Call call{y, conv_state, u, w, bias, slots, seq_start, C, state_stride, silu != 0};
  with_taps(W, [&](auto taps) {
    each_tile(S, N, C, [&](int64_t s, const Tile& tile) { forward<taps(), false>(call, s, tile); });
  });
  return GRAFT_OK;
}

extern "C" int32_t graft_short_conv_backward(float* du, float* dw, float* dbias, const float* dy, const float* u,
                                             const float* w, const float* bias, const int32_t* seq_start, int32_t S,
                                             int32_t N, int32_t C, int32_t W, int32_t silu) {
  GRAFT_TRY(check_conv("short_conv_backward", seq_start, S, N, C, W));
  GRAFT_TRY(check_pointers("short_conv_backward", {{"du", du}, {"dw", dw}, {"dy", dy}, {"u", u}, {"w", w}}));
  const Call call{nullptr, nullptr, u, w, bias, nullptr, seq_start, C, 0, silu != 0};
  const Gradients grad{du, dw, dbias, dy};
  with_taps(W, [&](auto taps) {
    parallel_grouped(tiles(C), 8.0 * N * kTile,
                     [&](int64_t i, int) { short_backward<taps()>(call, grad, S, tile_at(i, C)); });
  });
  return GRAFT_OK;
}

extern "C" int32_t graft_dynamic_conv(float* y, float* conv_state, const float* u, const float* kernels,
                                      const int32_t* slots, const int32_t* seq_start, int32_t S, int32_t N, int32_t C,
                                      int32_t W, uint64_t state_stride) {
  GRAFT_TRY(check_conv("dynamic_conv", seq_start, S, N, C, W));
  GRAFT_TRY(check_pointers("dynamic_conv", {{"y", y}, {"u", u}, {"kernels", kernels}}));
  GRAFT_TRY(check_conv_state("dynamic_conv", conv_state, slots, S, C, W, state_stride));
  const Call call{y, conv_state, u, kernels, nullptr, slots, seq_start, C, state_stride, true};
  with_taps(W, [&](auto taps) {
    each_tile(S, N, C, [&](int64_t s, const Tile& tile) { forward<taps(), true>(call, s, tile); });
  });
  return GRAFT_OK;
}

extern "C" int32_t graft_dynamic_conv_backward(float* du, float* dkernels, const float* dy, const float* u,
                                               const float* kernels, const int32_t* seq_start, int32_t S, int32_t N,
                                               int32_t C, int32_t W) {
  GRAFT_TRY(check_conv("dynamic_conv_backward", seq_start, S, N, C, W));
  GRAFT_TRY(check_pointers("dynamic_conv_backward",
                           {{"du", du}, {"dkernels", dkernels}, {"dy", dy}, {"u", u}, {"kernels", kernels}}));
  const Call call{nullptr, nullptr, u, kernels, nullptr, nullptr, seq_start, C, 0, true};
  const Gradients grad{du, dkernels, nullptr, dy};
  with_taps(W, [&](auto taps) {
    each_tile(S, N, C, [&](int64_t s, const Tile& tile) { dynamic_backward<taps()>(call, grad, s, tile); });
  });
  return GRAFT_OK;
}
