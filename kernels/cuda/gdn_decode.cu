// graft_gdn_step for one row of each sequence: a block of threads takes a value head through the whole step. It reads
// S0 once, in pieces of 32 x 32 that are all under way before anything else is known, and writes it when a block of
// rows is full.
#include "arrivals.h"
#include "decode_rows.h"
#include "gdn_step.h"
#include "host.h"

namespace graft::gpu {
namespace {

/// Shared memory, in floats.
struct Places {
  int32_t raw, k, q, v, split, keys, u, b, dots, weights, reads, o, small, floats;
};
template <class T>
__host__ __device__ Places places_of(const GdnShape& shape) {
  const int32_t Dk = shape.Dk, Dv = shape.Dv, pieces = blocks(Dk, kPiece), padded = pieces * kPiece;
  Places at{};
  Placer placer;
  at.raw = placer.take(2 * Dk);
  at.k = placer.take(Dk);
  at.q = placer.take(Dk);
  at.v = placer.take(Dv);
  at.split = placer.take(2 * padded);  // high and low pairs of k, then of q
  at.keys = placer.take(kRowsOfBlock * kept_row_floats<T>(Dk));
  at.u = placer.take(kRowsOfBlock * kept_row_floats<T>(Dv));
  at.b = placer.take(kRowsOfBlock);
  at.dots = placer.take(blocks(Dk, kDotPart) * 2 * kRowsOfBlock);
  at.weights = placer.take(2 * kRowsOfBlock);
  at.reads = placer.take(pieces * 2 * Dv);
  at.o = placer.take(Dv);
  at.small = placer.take(4);
  at.floats = placer.floats;
  return at;
}

/// What a block of threads works on.
template <class T>
struct Work {
  const GdnStep& step;
  GdnShape shape;
  float* slot;
  Places at;
  float* memory;
  int32_t j, h, s, pieces, slices;
  int32_t begin;

  __device__ GdnHead<T> head() const { return head_of<T>(shape, slot, j); }
  __device__ bool writes_keys() const { return j % shape.group() == 0; }

  __device__ int32_t piece(int32_t unit) const { return unit / slices * kPiece; }
  __device__ int32_t column(int32_t unit) const { return unit % slices * kPiece; }
  __device__ int32_t units() const { return pieces * slices; }
};

/// The new row's k, q and v, its gates, and their place in the block.
template <class T>
__device__ void take_row(const Work<T>& work, int32_t i, int32_t r) {
  const GdnShape& shape = work.shape;
  const int32_t Dk = shape.Dk, Dv = shape.Dv;
  float* memory = work.memory;
  const StepConv k = work.step.k_conv(work.s, work.begin), q = work.step.q_conv(work.s, work.begin),
                 v = work.step.v_conv(work.s, work.begin);
#pragma unroll 1
  for (int32_t c = threadIdx.x; c < 2 * Dk + Dv; c += kDecodeThreads) {
    if (c < Dk)
      memory[work.at.raw + c] = k.at(i, work.h * Dk + c);
    else if (c < 2 * Dk)
      memory[work.at.raw + c] = q.at(i, work.h * Dk + c - Dk);
    else
      memory[work.at.v + c - 2 * Dk] = v.at(i, work.j * Dv + c - 2 * Dk);
  }
  if (threadIdx.x == blockDim.x - 1) {
    const float g = work.step.log_decay(work.begin + i, work.j);
    memory[work.at.b + r] = r == 0 ? g : (i == 0 ? work.head().b : memory + work.at.b)[r - 1] + g;
    memory[work.at.small] = work.step.strength(work.begin + i, work.j);
  }
}

/// Norms of k and q, as numbers and as operands; the key joins the block.
template <class T>
__device__ void normalise(const Work<T>& work, int32_t r) {
  const GdnShape& shape = work.shape;
  const int32_t Dk = shape.Dk, padded = work.pieces * kPiece;
  float* memory = work.memory;
  const float *k = memory + work.at.raw, *q = k + Dk;
  const float by_k = l2_factor(warp_squares(k, Dk), work.step.layer.l2_eps),
              by_q = l2_factor(warp_squares(q, Dk), work.step.layer.l2_eps), scale = work.step.layer.scale;
  auto* pairs = reinterpret_cast<uint32_t*>(memory + work.at.split);
  T* kept_key = row_at<T>(memory + work.at.keys, Dk, r);
#pragma unroll 1
  for (int32_t at = threadIdx.x; at < padded; at += kDecodeThreads) {
    const bool query = at >= padded / 2;
    const int32_t c = 2 * (query ? at - padded / 2 : at);
    float x[2] = {0, 0};
    for (int32_t e = 0; e < 2; e++) {
      if (c + e >= Dk) continue;
      if (query) {
        x[e] = mul(scale, mul(q[c + e], by_q));
        memory[work.at.q + c + e] = x[e];
      } else {
        const T key = narrow<T>(mul(k[c + e], by_k));
        x[e] = widen(key);
        memory[work.at.k + c + e] = x[e];
        kept_key[c + e] = key;
        if (work.writes_keys()) work.head().keys[r * Dk + c + e] = key;
      }
    }
    const Split pair = split(x[0], x[1]);
    uint32_t* to = pairs + (query ? padded : 0) + c / 2;
    to[0] = pair.high;
    to[padded / 2] = pair.low;
  }
}

/// Parts of the new row's products with the block's keys; thread (part, s).
template <class T>
__device__ void multiply_keys(const Work<T>& work, int32_t r) {
  const int32_t Dk = work.shape.Dk, part = threadIdx.x / kRowsOfBlock, s = threadIdx.x % kRowsOfBlock;
  const int32_t c = part * kDotPart;
  if (c >= Dk || s > r) return;
  const T* key = row_at<T>(work.memory + work.at.keys, Dk, s) + c;
  float* dots = work.memory + work.at.dots + part * 2 * kRowsOfBlock;
  dots[s] = dot_part(work.memory + work.at.k + c, key, Dk - c);
  dots[kRowsOfBlock + s] = dot_part(work.memory + work.at.q + c, key, Dk - c);
}

/// k and q read one piece of S0.
template <class T>
__device__ void read_piece(const Work<T>& work, const Tile<T>& tile, int32_t unit) {
  const int32_t padded = work.pieces * kPiece, Dv = work.shape.Dv;
  const auto* pairs = reinterpret_cast<const uint32_t*>(work.memory + work.at.split);
  const TilePlace place = tile_place();
  float sums[2][4] = {};
#pragma unroll
  for (int32_t step = 0; step < kSteps; step++) {
    uint32_t high[2] = {0, 0}, low[2] = {0, 0};
    if (place.g < 2) {
      const uint32_t* from = pairs + place.g * padded + (work.piece(unit) + 16 * step) / 2 + place.t;
      high[0] = from[0];
      high[1] = from[4];
      low[0] = from[padded / 2];
      low[1] = from[padded / 2 + 4];
    }
    TileOperand operand;
    operand_of(operand, tile, step);
    read_tile<T, false>(sums, operand, high, low);
  }
  const int32_t column = work.column(unit) + place.column;
  if (place.t != 0 || column >= Dv) return;
  float* reads = work.memory + work.at.reads + work.piece(unit) / kPiece * 2 * Dv + column;
  store4(reads, first_vector(sums));
  store4(reads + Dv, second_vector(sums));
}

/// A_rs and P_rs of the new row r; lane (which, s) of one warp.
template <class T>
__device__ void weigh_rows(const Work<T>& work, int32_t r) {
  const int32_t lane = threadIdx.x, s = lane % kRowsOfBlock;
  const float *dots = work.memory + work.at.dots + lane, *b = work.memory + work.at.b;
  if (s > r) return;
  const float dot = sum_pieces(blocks(work.shape.Dk, kDotPart), [&](int32_t p) { return dots[p * 32]; });
  work.memory[work.at.weights + lane] = mul(dot, expf(b[r] - b[s]));
}

/// u and o of one column.
template <class T>
__device__ void solve_column(const Work<T>& work, int32_t r, int32_t column) {
  const int32_t Dv = work.shape.Dv;
  const float *memory = work.memory, *reads = memory + work.at.reads + column, *weights = memory + work.at.weights;
  const float decay = expf(memory[work.at.b + r]);
  const auto sum_of = [&](int32_t which) {
    return sum_pieces(work.pieces, [&](int32_t p) { return reads[(2 * p + which) * Dv]; });
  };
  float w = fmaf(-decay, sum_of(0), memory[work.at.v + column]), o = mul(decay, sum_of(1));
#pragma unroll 8
  for (int32_t s = 0; s < r; s++) {
    const float u = widen(row_at<T>(work.memory + work.at.u, Dv, s)[column]);
    w = fmaf(-weights[s], u, w);
    o = fmaf(weights[kRowsOfBlock + s], u, o);
  }
  const T u = narrow<T>(mul(memory[work.at.small], w));
  row_at<T>(work.memory + work.at.u, Dv, r)[column] = u;
  work.head().u[static_cast<int64_t>(r) * Dv + column] = u;
  work.memory[work.at.o + column] = fmaf(weights[kRowsOfBlock + r], widen(u), o);
}

/// Row 15 is there: S0 moves to the next block.
template <class T>
__device__ void advance_pieces(Work<T> work) {
  forget(work.slot);
  forget(work.j);
  const int32_t Dk = work.shape.Dk, Dv = work.shape.Dv;
  const float* b = work.memory + work.at.b;
  const float last = b[kRowsOfBlock - 1], decay = expf(last);
  const TilePlace place = tile_place();
#pragma unroll 1
  for (int32_t unit = threadIdx.x / kWarp; unit < work.units(); unit += kDecodeWarps) {
    const int32_t c0 = work.piece(unit), first = work.column(unit);
    float4 x[4];
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
      const int32_t s = place.channel(0, i);
      x[i] = make_float4(0, 0, 0, 0);
      if (first + place.column >= Dv) continue;
      const float4 u = load4(row_at<T>(work.memory + work.at.u, Dv, s) + first + place.column);
      const float by = expf(last - b[s]);
      x[i] = make_float4(mul(u.x, by), mul(u.y, by), mul(u.z, by), mul(u.w, by));
    }
    RowsOperand rows;
    rows_operand(rows, x);
#pragma unroll 1
    for (int32_t step = 0; step < kSteps; step++) {
      Tile<T, 1> tile;  // a step at a time takes few registers
      load_tile(tile, work.head().state, Dk, Dv, c0 + 16 * step, first, false);
#pragma unroll
      for (int32_t half = 0; half < 2; half++) {
        const int32_t c = c0 + 16 * step + 8 * half + place.g;
        float key[4] = {};
#pragma unroll
        for (int32_t i = 0; i < 4; i++)
          if (c < Dk) key[i] = widen(row_at<T>(work.memory + work.at.keys, Dk, place.channel(0, i))[c]);
        const Split pairs[2] = {split(key[0], key[1]), split(key[2], key[3])};
        const uint32_t high[2] = {pairs[0].high, pairs[1].high}, low[2] = {pairs[0].low, pairs[1].low};
        advance_tile<sizeof(T) == 2, false>(tile, 0, half, rows, high, low, [&](int32_t) { return decay; });
      }
      store_tile(work.head().state, tile, Dk, Dv, c0 + 16 * step, first);
    }
  }
}

/// Windows of the convolutions move when nobody reads them any more.
template <class T>
__device__ void advance_windows(const Work<T>& work, int32_t count) {
  const GdnShape& shape = work.shape;
  const StepConv k = work.step.k_conv(work.s, work.begin), q = work.step.q_conv(work.s, work.begin),
                 v = work.step.v_conv(work.s, work.begin);
#pragma unroll 1
  for (int32_t c = threadIdx.x; c < shape.Dv; c += kDecodeThreads) v.advance(count, work.j * shape.Dv + c);
  if (!q.there()) return;
  // Value heads that share a key head all read its windows; the last one to have done so moves them.
  if (shape.group() > 1 && !arrives_last(work.step.readers + work.s * shape.Hk + work.h, 1, shape.group(),
                                         reinterpret_cast<int32_t*>(work.memory + work.at.small + 1)))
    return;
#pragma unroll 1
  for (int32_t c = threadIdx.x; c < shape.Dk; c += kDecodeThreads) {
    q.advance(count, work.h * shape.Dk + c);
    k.advance(count, work.h * shape.Dk + c);
  }
}

/// Of one multiprocessor, which decides the registers of each: for 8.0 unknown sizes take a few more than half.
constexpr int32_t resident_blocks([[maybe_unused]] bool known) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  return known ? 2 : 1;
#else
  return 2;
#endif
}

/// grid: value heads, sequences. Dk_ and Dv_: a head's sizes where they are known, else 0. Every warp has `Ahead`
/// pieces under way at once.
template <class T, int32_t Dk_, int32_t Dv_, int32_t Ahead>
__global__ void __launch_bounds__(kDecodeThreads, resident_blocks(Dk_ > 0)) decode_gdn(GdnStep step) {
  GdnShape shape = step.shape;
  if constexpr (Dk_ > 0) {
    shape.Dk = Dk_;
    shape.Dv = Dv_;
  }
  const Sequences& sequences = step.sequences;
  const int32_t j = blockIdx.x, s = blockIdx.y, h = j / shape.group(), Dk = shape.Dk, Dv = shape.Dv;
  const int32_t warp = threadIdx.x / kWarp;
  if (gridDim.y <= kFetchedSequences) fetch_state(head_of<T>(shape, sequences.slot(s), j).state, Dk * Dv);
  depend_wait();
  const int32_t begin = sequences.seq_start[s], count = sequences.seq_start[s + 1] - begin;
  if (count <= 0) return;
  const int32_t start = sequences.start_pos[s], known = start % kRowsOfBlock;
  const Work<T> work{step,
                     shape,
                     sequences.slot(s),
                     places_of<T>(shape),
                     shared<float>(),
                     j,
                     h,
                     s,
                     blocks(Dk, kPiece),
                     blocks(Dv, kPiece),
                     begin};
  float* memory = work.memory;
#pragma unroll 1
  for (int32_t i = 0; i < count; i++) {
    const int32_t r = (start + i) % kRowsOfBlock;
    const bool fresh = start + i == 0;
    Tile<T> tiles[Ahead];
#pragma unroll
    for (int32_t n = 0; n < Ahead; n++) {
      const int32_t unit = warp + n * kDecodeWarps;
      if (unit < work.units())
        load_tile(tiles[n], work.head().state, Dk, Dv, work.piece(unit), work.column(unit), fresh);
    }
    if (i == 0) {
      copy_rows(memory + work.at.keys, work.head().keys, Dk, known);
      copy_rows(memory + work.at.u, work.head().u, Dv, known);
      for (int32_t at = threadIdx.x; at < known; at += blockDim.x) memory[work.at.b + at] = work.head().b[at];
      copy_commit();
      depend_launch();
    }
    take_row(work, i, r);
    copy_wait<0>();
    __syncthreads();
    normalise(work, r);
    __syncthreads();
    multiply_keys(work, r);
#pragma unroll 1
    for (int32_t first = 0; first < work.units(); first += Ahead * kDecodeWarps) {
#pragma unroll
      for (int32_t n = 0; n < Ahead; n++) {
        const int32_t unit = first + warp + n * kDecodeWarps;
        if (unit >= work.units()) continue;
        if (first > 0) load_tile(tiles[n], work.head().state, Dk, Dv, work.piece(unit), work.column(unit), fresh);
        if (fresh) store_tile(work.head().state, tiles[n], Dk, Dv, work.piece(unit), work.column(unit));
        read_piece(work, tiles[n], unit);
      }
    }
    __syncthreads();
    if (warp == 0) weigh_rows(work, r);
    __syncthreads();
    for (int32_t column = threadIdx.x; column < Dv; column += blockDim.x) solve_column(work, r, column);
    if (threadIdx.x == 0) work.head().b[r] = memory[work.at.b + r];
    __syncthreads();
    const float factor = rms_factor(warp_squares(memory + work.at.o, Dv), Dv, step.layer.norm_eps);
    const int64_t out = (static_cast<int64_t>(begin + i) * shape.Hv + j) * Dv;
    for (int32_t column = threadIdx.x; column < Dv; column += blockDim.x)
      step.y[out + column] = finish(memory[work.at.o + column], factor, step.layer.o_norm[column],
                                    step.gate == nullptr ? nullptr : step.gate + out + column);
    if (r == kRowsOfBlock - 1) advance_pieces(work);
    __syncthreads();
  }
  advance_windows(work, count);
  if (j == 0 && threadIdx.x == 0) move_position(sequences, s);
}

template <class T, int32_t Dk, int32_t Dv, int32_t Ahead>
int32_t launch(const GdnStep& step) {
  const size_t bytes = places_of<T>(step.shape).floats * sizeof(float);
  GRAFT_LAUNCH_EARLY((decode_gdn<T, Dk, Dv, Ahead>), dim3(step.shape.Hv, step.sequences.S), kDecodeThreads, bytes,
                     step);
  return launched("gdn_step");
}

template <class T>
int32_t run(const GdnStep& step) {
  const int32_t Dk = step.shape.Dk, Dv = step.shape.Dv;
  if (Dk == 128 && Dv == 128) return launch<T, 128, 128, 2>(step);
  if (Dk == 64 && Dv == 64) return launch<T, 64, 64, 1>(step);
  return launch<T, 0, 0, 1>(step);
}

}  // namespace

size_t gdn_decode_bytes(const GdnStep& step) {
  const bool half = step.layer.state_dtype == GRAFT_BF16;
  return (half ? places_of<bf16_bits>(step.shape) : places_of<float>(step.shape)).floats * sizeof(float);
}

int32_t gdn_decode(const GdnStep& step) {
  GdnStep counted = step;
  counted.readers = counters(static_cast<uint64_t>(step.sequences.S) * step.shape.Hk);
  if (counted.readers == nullptr) return fail(GRAFT_OUT_OF_MEMORY, "gdn_step: no memory for counters");
  return step.layer.state_dtype == GRAFT_BF16 ? run<bf16_bits>(counted) : run<float>(counted);
}

}  // namespace graft::gpu
