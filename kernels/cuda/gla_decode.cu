// graft_gla_step for one row of each sequence: a block of threads takes a key/value head with its query heads through
// the whole step. It reads S0 once, in pieces of 32 x 32 that are under way before anything else is known, and writes
// it when a block of rows is full.
#include "decode_rows.h"
#include "gla_step.h"
#include "host.h"

namespace graft::gpu {
namespace {

/// Shared memory, in floats.
struct Places {
  int32_t q, split, k, b, v, dots, weights, reads, o, floats;
};
template <class T>
__host__ __device__ Places places_of(const GlaShape& shape) {
  const int32_t Dk = shape.Dk, Dv = shape.Dv, G = shape.group(), pieces = blocks(Dk, kPiece);
  Placer placer;
  Places at{};
  at.q = placer.take(G * Dk);
  at.split = placer.take(G * pieces * kPiece);  // high and low pairs of each query, decayed
  at.k = placer.take(kRowsOfBlock * kept_row_floats<float>(Dk));
  at.b = placer.take(kRowsOfBlock * kept_row_floats<float>(Dk));
  at.v = placer.take(kRowsOfBlock * kept_row_floats<T>(Dv));
  at.dots = placer.take(blocks(Dk, kDotPart) * G * kRowsOfBlock);
  at.weights = placer.take(G * kRowsOfBlock);
  at.reads = placer.take(pieces * G * Dv);
  at.o = placer.take(G * Dv);
  at.floats = placer.floats;
  return at;
}

/// What a block of threads works on.
template <class T>
struct Work {
  const GlaStep& step;
  GlaShape shape;
  GlaHead<T> head;
  Places at;
  float* memory;
  int32_t h, s, pieces, slices;
  int64_t begin;

  __device__ int32_t piece(int32_t unit) const { return unit / slices * kPiece; }
  __device__ int32_t column(int32_t unit) const { return unit % slices * kPiece; }
  __device__ int32_t units() const { return pieces * slices; }
  __device__ float* k(int32_t row) const { return row_at<float>(memory + at.k, shape.Dk, row); }
  __device__ float* b(int32_t row) const { return row_at<float>(memory + at.b, shape.Dk, row); }
  __device__ T* v(int32_t row) const { return row_at<T>(memory + at.v, shape.Dv, row); }
};

/// The new row's q, k, v and b; k, v and b join the block.
template <class T>
__device__ void take_row(const Work<T>& work, int32_t i, int32_t r) {
  const int32_t Dk = work.shape.Dk, Dv = work.shape.Dv, G = work.shape.group(), h = work.h;
  const StepConv q = work.step.q_conv(work.s, work.begin), k = work.step.k_conv(work.s, work.begin),
                 v = work.step.v_conv(work.s, work.begin);
#pragma unroll 1
  for (int32_t c = threadIdx.x; c < (G + 1) * Dk + Dv; c += kDecodeThreads) {
    if (c < G * Dk) {
      work.memory[work.at.q + c] = mul(work.step.layer.scale, q.at(i, h * G * Dk + c));
    } else if (c < (G + 1) * Dk) {
      const int32_t channel = c - G * Dk;
      const float key = k.at(i, h * Dk + channel), a = work.step.log_decay(work.begin + i, h * Dk + channel);
      const float b = r == 0 ? a : (i == 0 ? work.head.b + (r - 1) * Dk : work.b(r - 1))[channel] + a;
      work.k(r)[channel] = work.head.k[r * Dk + channel] = key;
      work.b(r)[channel] = work.head.b[r * Dk + channel] = b;
    } else {
      const int32_t column = c - (G + 1) * Dk;
      const T value = narrow<T>(v.at(i, h * Dv + column));
      work.v(r)[column] = work.head.v[static_cast<int64_t>(r) * Dv + column] = value;
    }
  }
}

/// Decayed queries as operands.
template <class T>
__device__ void split_queries(const Work<T>& work, int32_t r) {
  const int32_t Dk = work.shape.Dk, half = work.pieces * kPiece / 2;
  auto* pairs = reinterpret_cast<uint32_t*>(work.memory + work.at.split);
  const float* b = work.b(r);
#pragma unroll 1
  for (int32_t at = threadIdx.x; at < work.shape.group() * half; at += kDecodeThreads) {
    const int32_t g = at / half, c = at % half * 2;
    const float* q = work.memory + work.at.q + g * Dk + c;
    Split pair{0, 0};
    if (c < Dk) pair = split(mul(q[0], expf(b[c])), mul(q[1], expf(b[c + 1])));
    pairs[2 * g * half + at % half] = pair.high;
    pairs[(2 * g + 1) * half + at % half] = pair.low;
  }
}

/// Parts of P; thread (part, s).
template <class T>
__device__ void multiply_keys(const Work<T>& work, int32_t r) {
  const int32_t Dk = work.shape.Dk, G = work.shape.group(), part = threadIdx.x / kRowsOfBlock,
                s = threadIdx.x % kRowsOfBlock, c = part * kDotPart;
  if (c >= Dk || s > r) return;
#pragma unroll 1
  for (int32_t first = 0; first < G; first += kTogether) {
    float sums[kTogether] = {};
    decayed_part(sums, work.memory + work.at.q + first * Dk + c, Dk, min(kTogether, G - first), work.k(s) + c,
                 work.b(r) + c, work.b(s) + c, Dk - c);
#pragma unroll
    for (int32_t i = 0; i < kTogether; i++)
      if (first + i < G) work.memory[work.at.dots + (part * G + first + i) * kRowsOfBlock + s] = sums[i];
  }
}

/// The queries read one piece of S0, eight at a time.
template <class T>
__device__ void read_piece(const Work<T>& work, const Tile<T>& tile, int32_t unit) {
  const int32_t half = work.pieces * kPiece / 2, G = work.shape.group(), Dv = work.shape.Dv;
  const auto* pairs = reinterpret_cast<const uint32_t*>(work.memory + work.at.split);
  const TilePlace place = tile_place();
  const int32_t column = work.column(unit) + place.column;
  float* reads = work.memory + work.at.reads + work.piece(unit) / kPiece * G * Dv + column;
#pragma unroll 1
  for (int32_t first = 0; first < G; first += 8) {
    float sums[2][4] = {};
#pragma unroll
    for (int32_t step = 0; step < kSteps; step++) {
      uint32_t high[2] = {0, 0}, low[2] = {0, 0};
      if (first + place.g < G) {
        const uint32_t* from = pairs + 2 * (first + place.g) * half + (work.piece(unit) + 16 * step) / 2 + place.t;
        high[0] = from[0];
        high[1] = from[4];
        low[0] = from[half];
        low[1] = from[half + 4];
      }
      TileOperand operand;
      operand_of(operand, tile, step);
      read_tile<T, false>(sums, operand, high, low);
    }
    const int32_t g = first + 2 * place.t;
    if (column < Dv && g < G) store4(reads + g * Dv, first_vector(sums));
    if (column < Dv && g + 1 < G) store4(reads + (g + 1) * Dv, second_vector(sums));
  }
}

/// P of the new row.
template <class T>
__device__ void weigh_rows(const Work<T>& work, int32_t r) {
  const int32_t G = work.shape.group();
  for (int32_t at = threadIdx.x; at < G * kRowsOfBlock; at += kDecodeThreads) {
    if (at % kRowsOfBlock > r) continue;
    const float* dots = work.memory + work.at.dots + at;
    work.memory[work.at.weights + at] =
        sum_pieces(blocks(work.shape.Dk, kDotPart), [&](int32_t p) { return dots[p * G * kRowsOfBlock]; });
  }
}

template <class T>
__device__ void add_rows(const Work<T>& work, int32_t r) {
  const int32_t G = work.shape.group(), Dv = work.shape.Dv;
#pragma unroll 1
  for (int32_t at = threadIdx.x; at < G * Dv; at += kDecodeThreads) {
    const float* weights = work.memory + work.at.weights + at / Dv * kRowsOfBlock;
    float o = sum_pieces(work.pieces, [&](int32_t p) { return work.memory[work.at.reads + p * G * Dv + at]; });
    for (int32_t s = 0; s <= r; s++) o = fmaf(weights[s], widen(work.v(s)[at % Dv]), o);
    work.memory[work.at.o + at] = o;
  }
}

/// Row 15 is there: S0 moves to the next block.
template <class T>
__device__ void advance_pieces(const Work<T>& work) {
  const int32_t Dk = work.shape.Dk, Dv = work.shape.Dv;
  const float* last = work.b(kRowsOfBlock - 1);
  const TilePlace place = tile_place();
#pragma unroll 1
  for (int32_t unit = threadIdx.x / kWarp; unit < work.units(); unit += kDecodeWarps) {
    const int32_t first = work.column(unit);
    float4 x[4];
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
      x[i] = make_float4(0, 0, 0, 0);
      if (first + place.column < Dv) x[i] = load4(work.v(place.channel(0, i)) + first + place.column);
    }
    RowsOperand rows;
    rows_operand(rows, x);
#pragma unroll 1
    for (int32_t step = 0; step < kSteps; step++) {
      const int32_t c0 = work.piece(unit) + 16 * step;
      Tile<T, 1> tile;  // a step at a time takes few registers
      load_tile(tile, work.head.state, Dk, Dv, c0, first, false);
#pragma unroll
      for (int32_t half = 0; half < 2; half++) {
        const int32_t c = c0 + 8 * half + place.g;
        float key[4] = {};
#pragma unroll
        for (int32_t i = 0; i < 4; i++) {
          const int32_t s = place.channel(0, i);
          if (c < Dk) key[i] = mul(work.k(s)[c], expf(last[c] - work.b(s)[c]));
        }
        const Split pairs[2] = {split(key[0], key[1]), split(key[2], key[3])};
        const uint32_t high[2] = {pairs[0].high, pairs[1].high}, low[2] = {pairs[0].low, pairs[1].low};
        advance_tile<false, sizeof(T) == 2>(tile, 0, half, rows, high, low, [&](int32_t channel) {
          return c0 + channel < Dk ? expf(last[c0 + channel]) : 0.0f;
        });
      }
      store_tile(work.head.state, tile, Dk, Dv, c0, first);
    }
  }
}

template <class T>
__device__ void advance_windows(const Work<T>& work, int32_t count) {
  const StepConv q = work.step.q_conv(work.s, work.begin), k = work.step.k_conv(work.s, work.begin),
                 v = work.step.v_conv(work.s, work.begin);
  if (!q.there()) return;
  const int32_t Dk = work.shape.Dk, Dv = work.shape.Dv, G = work.shape.group();
#pragma unroll 1
  for (int32_t c = threadIdx.x; c < (G + 1) * Dk + Dv; c += kDecodeThreads) {
    if (c < G * Dk)
      q.advance(count, work.h * G * Dk + c);
    else if (c < (G + 1) * Dk)
      k.advance(count, work.h * Dk + c - G * Dk);
    else
      v.advance(count, work.h * Dv + c - (G + 1) * Dk);
  }
}

/// Norm and gate of each query head, a warp a head.
template <class T>
__device__ void write_outputs(const Work<T>& work, int32_t i) {
  const GlaShape& shape = work.shape;
  const int32_t G = shape.group(), Dv = shape.Dv;
  for (int32_t g = threadIdx.x / kWarp; g < G; g += kDecodeWarps) {
    const float* o = work.memory + work.at.o + g * Dv;
    const float factor = rms_factor(warp_squares(o, Dv), Dv, work.step.layer.norm_eps);
    const int64_t out = ((work.begin + i) * shape.Hq + work.h * G + g) * Dv;
    for (int32_t column = threadIdx.x % kWarp; column < Dv; column += kWarp)
      work.step.y[out + column] = finish(o[column], factor, work.step.layer.o_norm[column],
                                         work.step.gate == nullptr ? nullptr : work.step.gate + out + column);
  }
}

/// Blocks that fit a multiprocessor together; before 9.0 wide float32 states take more registers than half of them.
template <class T, int32_t Ahead>
constexpr int32_t resident_blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  return Ahead > 1 && sizeof(T) == sizeof(float) ? 1 : 2;
#else
  return 2;
#endif
}

/// grid: key/value heads, sequences. Dk_ and Dv_: a head's sizes where they are known, else 0. Every warp has `Ahead`
/// pieces under way at once.
template <class T, int32_t Dk_, int32_t Dv_, int32_t Ahead>
__global__ void __launch_bounds__(kDecodeThreads, (resident_blocks<T, Ahead>())) decode_gla(GlaStep step) {
  GlaShape shape = step.shape;
  if constexpr (Dk_ > 0) {
    shape.Dk = Dk_;
    shape.Dv = Dv_;
  }
  const Sequences& sequences = step.sequences;
  const int32_t h = blockIdx.x, s = blockIdx.y, Dk = shape.Dk, Dv = shape.Dv, warp = threadIdx.x / kWarp;
  if (gridDim.y <= kFetchedSequences) fetch_state(head_of<T>(shape, sequences.slot(s), h).state, Dk * Dv);
  depend_wait();
  const int32_t begin = sequences.seq_start[s], count = sequences.seq_start[s + 1] - begin;
  if (count <= 0) return;
  const int32_t start = sequences.start_pos[s], known = start % kRowsOfBlock;
  const Work<T> work{step,
                     shape,
                     head_of<T>(shape, sequences.slot(s), h),
                     places_of<T>(shape),
                     shared<float>(),
                     h,
                     s,
                     blocks(Dk, kPiece),
                     blocks(Dv, kPiece),
                     begin};
#pragma unroll 1
  for (int32_t i = 0; i < count; i++) {
    const int32_t r = (start + i) % kRowsOfBlock;
    const bool fresh = start + i == 0;
    Tile<T> tiles[Ahead];
#pragma unroll
    for (int32_t n = 0; n < Ahead; n++) {
      const int32_t unit = warp + n * kDecodeWarps;
      if (unit < work.units()) load_tile(tiles[n], work.head.state, Dk, Dv, work.piece(unit), work.column(unit), fresh);
    }
    if (i == 0) {
      copy_rows(work.memory + work.at.k, work.head.k, Dk, known);
      copy_rows(work.memory + work.at.b, work.head.b, Dk, known);
      copy_rows(work.memory + work.at.v, work.head.v, Dv, known);
      copy_commit();
      depend_launch();
    }
    take_row(work, i, r);
    copy_wait<0>();
    __syncthreads();
    split_queries(work, r);
    multiply_keys(work, r);
    __syncthreads();
#pragma unroll 1
    for (int32_t first = 0; first < work.units(); first += Ahead * kDecodeWarps) {
#pragma unroll
      for (int32_t n = 0; n < Ahead; n++) {
        const int32_t unit = first + warp + n * kDecodeWarps;
        if (unit >= work.units()) continue;
        if (first > 0) load_tile(tiles[n], work.head.state, Dk, Dv, work.piece(unit), work.column(unit), fresh);
        if (fresh) store_tile(work.head.state, tiles[n], Dk, Dv, work.piece(unit), work.column(unit));
        read_piece(work, tiles[n], unit);
      }
    }
    weigh_rows(work, r);
    __syncthreads();
    add_rows(work, r);
    __syncthreads();
    write_outputs(work, i);
    if (r == kRowsOfBlock - 1) advance_pieces(work);
    __syncthreads();
  }
  advance_windows(work, count);
  if (h == 0 && threadIdx.x == 0) move_position(sequences, s);
}

template <class T, int32_t Dk, int32_t Dv, int32_t Ahead>
int32_t launch(const GlaStep& step) {
  const size_t bytes = places_of<T>(step.shape).floats * sizeof(float);
  GRAFT_LAUNCH_EARLY((decode_gla<T, Dk, Dv, Ahead>), dim3(step.shape.Hkv, step.sequences.S), kDecodeThreads, bytes,
                     step);
  return launched("gla_step");
}

template <class T>
int32_t run(const GlaStep& step) {
  const int32_t Dk = step.shape.Dk, Dv = step.shape.Dv;
  if (Dk == 128 && Dv == 128) return launch<T, 128, 128, 2>(step);
  if (Dk == 64 && Dv == 64) return launch<T, 64, 64, 1>(step);
  return launch<T, 0, 0, 1>(step);
}

}  // namespace

size_t gla_decode_bytes(const GlaStep& step) {
  const bool half = step.layer.state_dtype == GRAFT_BF16;
  return (half ? places_of<bf16_bits>(step.shape) : places_of<float>(step.shape)).floats * sizeof(float);
}

int32_t gla_decode(const GlaStep& step) {
  return step.layer.state_dtype == GRAFT_BF16 ? run<bf16_bits>(step) : run<float>(step);
}

}  // namespace graft::gpu
