// What the linear layers of serving are made of: rows brought into the kernels' type once, panels of outputs, and how
// both are shared among threads. linear.cpp says what is computed and how.
#pragma once
#include "graft.h"
#include "panel.h"
#include "threads.h"

namespace graft {

constexpr int64_t kRowGroup = 512;  // rows per pass over a panel: their partial sums (128 KiB) stay in the L2 cache

struct Layout {
  int64_t out, steps, bytes;
  Layout(int64_t out, int64_t in, int32_t dtype)
      : out(out), steps(dtype == GRAFT_BF16 ? (in + 1) / 2 : in), bytes((out + VL - 1) / VL * VL * steps * 4) {}
  int64_t panel_offset(int64_t p) const { return p * kPanel * steps; }  // in 32-bit words
};

#if defined(__AVX512BF16__)
using Rounded = bf16;
/// Rounds to bfloat16; denormals become zero, as in the dot products that follow.
inline void round_row(bf16* to, const float* x, int64_t n) {
  vloop(n, [&](int64_t i, int lanes) {
    _mm256_mask_storeu_epi16(to + i, vfirst(lanes), (__m256i)_mm512_cvtneps_pbh(vload_n(x + i, lanes)));
  });
}
#else
using Rounded = float;
inline void round_row(float* to, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i++) to[i] = bf16_to_float(float_to_bf16(x[i]));
}
#endif

/// Input rows as the tile kernels read them; strides in elements of the kernel's input type.
struct Rows {
  const void* data;
  int64_t row, step, block;  // from row to row, step to step, block to block
  int64_t block_steps;       // steps that all rows take before the next ones
};

/// Copies x as [block][N][channels of a block]: the rows of a block then lie close together, whatever `in` is.
template <class To, class F>
To* block_rows(const float* x, int64_t N, int64_t in, int64_t padded, int64_t block, F&& convert) {
  auto* blocked = static_cast<To*>(thread_scratch(0, 0, (N * (padded + block)) * sizeof(To)));
  parallel_ranges(N, std::max<int64_t>(1, (64 << 10) / in), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t k = 0; k < in; k += block) {
        To* to = blocked + k * N + i * block;
        convert(to, x + i * in + k, std::min(block, in - k));
        if (k + block > in && padded > in) to[in - k] = 0;
      }
  });
  return blocked;
}

/// One tile streams its panel in one go. A few tiles share short blocks, so that the block in use and the one being
/// fetched fit the L1 cache together; many tiles are bound by arithmetic and take long ones.
inline int64_t steps_per_block(int64_t N, int64_t steps) {
  const int64_t tiles = (N + kTileRows - 1) / kTileRows;
  if (tiles == 1) return steps;
  return tiles == 2 ? kBlockSteps / 4 : tiles <= 4 ? kBlockSteps / 2 : kBlockSteps;
}

inline Rows prepare_rows(const float* x, int64_t N, const Layout& layout, int64_t in, int32_t dtype) {
  const int64_t block_steps = steps_per_block(N, layout.steps);
  if (dtype == GRAFT_F32) {
    // Rows a multiple of 2 KiB apart fall on the same few cache lines of L1: copy them, if the work pays for it.
    const bool collide = N > kTileRows && in >= 1024 && in % 512 == 0 && layout.out >= 256;
    if (!collide) return {x, in, 1, block_steps, block_steps};
    const auto* data = block_rows<float>(
        x, N, in, in, block_steps, [](float* to, const float* from, int64_t n) { std::copy(from, from + n, to); });
    return {data, block_steps, 1, N * block_steps, block_steps};
  }
  const auto* data = block_rows<Rounded>(x, N, in, 2 * layout.steps, 2 * block_steps, round_row);
  constexpr int64_t per_step = sizeof(Rounded) == 2 ? 1 : 2;  // a pair is one 32-bit word, or two floats
  return {data, block_steps * per_step, per_step, N * block_steps * per_step, block_steps};
}

struct Call {
  float* y;
  Rows rows;
  const uint32_t* packed;
  const float *bias, *residual;
  Layout layout;
};

/// Shares the fetching of `bytes` at `next` among the tiles of a block: tile number `i` of `tiles`.
inline void fetch_ahead(Tile* tile, const char* next, int64_t i, int64_t tiles) {
  const int64_t lines = std::max<int64_t>(1, tile->b_step * 4 / 64), per_tile = tiles >= lines ? 1 : 2;
  const bool useful = next && tiles > 1 && i * per_tile < lines;
  tile->ahead = useful ? next + i * per_tile * 64 * tile->steps : nullptr;
  tile->ahead_step = useful ? per_tile * 64 : 0;
}

/// Rows [first, first + n) times one panel.
template <class Kind>
void run_panel(const Call& call, int64_t panel, int64_t first, int64_t n, int thread) {
  const Layout& layout = call.layout;
  const Rows& rows = call.rows;
  const int64_t channel = panel * kPanel, steps = layout.steps, block = rows.block_steps;
  const int width = panel_width(layout.out, panel);
  float* partial = block < steps ? static_cast<float*>(thread_scratch(thread, 1, n * width * sizeof(float))) : nullptr;
  for (int64_t start = 0; start < steps; start += block) {
    const bool last = start + block >= steps;
    const uint32_t* weights = call.packed + layout.panel_offset(panel) + start * width;
    const auto* input = static_cast<const typename Kind::Input*>(rows.data) + start / block * rows.block;
    Tile tile = {};
    tile.a_row = rows.row, tile.a_step = rows.step;
    tile.b = weights, tile.b_step = width;
    tile.steps = std::min(block, steps - start);
    tile.from_row = width, tile.to_row = last ? layout.out : width;
    tile.cols = last ? static_cast<int>(std::min<int64_t>(kPanel, layout.out - channel)) : width;
    tile.bias = last && call.bias ? call.bias + channel : nullptr;
    const char* next = last ? nullptr : reinterpret_cast<const char*>(weights + block * width);
    const int64_t tiles = (n + kTileRows - 1) / kTileRows;
    for_tiles(n, [&](int64_t i, int64_t r, int height) {
      const int64_t at = (first + r) * layout.out + channel;
      tile.a = input + (first + r) * rows.row;
      tile.from = start ? partial + r * width : nullptr;
      tile.to = last ? call.y + at : partial + r * width;
      tile.residual = last && call.residual ? call.residual + at : nullptr;
      fetch_ahead(&tile, next, i, tiles);
      tile_kernel<Kind>(height, width)(tile);
    });
  }
}

/// Rough time of one thread: weights at cache speed plus the multiplications.
inline double nanoseconds(double weights, double rows) { return weights * (0.03 + 0.006 * rows); }

/// Runs body(first panel, end, first row, rows, thread) over `panels` panels of `bytes` in all and N rows, on all
/// threads where it pays.
template <class Body>
void for_panels(int64_t panels, double bytes, int64_t N, Body&& body) {
  const double cost = nanoseconds(bytes / 4, static_cast<double>(N));
  const int threads = cost < 6000 ? 1 : num_threads();
  // Enough tasks to share evenly; a task below about 4 microseconds is not worth its hand-over.
  int64_t groups = (N + kRowGroup - 1) / kRowGroup;
  while (threads > 1 && panels * groups < 4 * threads && N / groups > 8 * kTileRows) groups *= 2;
  const int64_t group_rows = (N + groups - 1) / groups;
  const int64_t per_task = threads == 1 ? panels
                                        : std::clamp<int64_t>(static_cast<int64_t>(4000 * panels * groups / cost), 1,
                                                              std::max<int64_t>(1, panels / (2 * threads)));
  const int64_t panel_tasks = (panels + per_task - 1) / per_task;
  parallel(panel_tasks * groups, [&](int64_t task, int thread) {
    const int64_t first = task % groups * group_rows, end = std::min(N, first + group_rows);
    const int64_t panel = task / groups * per_task;
    if (first < end) body(panel, std::min(panels, panel + per_task), first, end - first, thread);
  });
}

}  // namespace graft
