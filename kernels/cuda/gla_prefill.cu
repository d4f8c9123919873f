// graft_gla_step for many rows of a sequence, in three launches:
//   prepare  per block of 16 rows and key/value head, all at once: convolutions, sums of decays, P, and queries and
//   keys
//            with their decays as operands of the tensor cores
//   scan     per 32 columns of a head, block after block: reads of S0, outputs, S0's advance. Warp p has channels
//            32 p.. of S0 in registers.
//   finish   norm and gate of every output head
#include "gla_step.h"
#include "host.h"
#include "scan_rows.h"

namespace graft::gpu {
namespace {

constexpr int32_t kRows = kRowsOfBlock, kSquare = kRows * kRows, kPrepareThreads = 256;

/// What prepare leaves for scan. Operands by piece, step and lane a uint4: of the queries of each head, high and low,
/// then of the keys for the advance, high and low.
struct Prepared {
  uint4* operands;
  /// Per block and query head P by [t][s]; per block and key/value head e^{b_15}.
  float *products, *decays;
  /// Per sequence and head k and b [16, Dk] of an unfinished last block.
  float* rows;

  /// Array 2g and 2g + 1: query head g of the group; 2G and 2G + 1: keys.
  __device__ uint4* operand(const GlaShape& shape, int64_t block, int32_t h, int32_t array) const {
    const int32_t each = blocks(shape.Dk, kPiece) * kSteps * kWarp;
    return operands + ((block * shape.Hkv + h) * 2 * (shape.group() + 1) + array) * each;
  }
  __device__ float* product(const GlaShape& shape, int64_t block, int32_t h) const {
    return products + (block * shape.Hkv + h) * shape.group() * kSquare;
  }
  __device__ float* decay(const GlaShape& shape, int64_t block, int32_t h) const {
    return decays + (block * shape.Hkv + h) * blocks(shape.Dk, kPiece) * kPiece;
  }
  __device__ float* row(const GlaShape& shape, int32_t s, int32_t h, int32_t which) const {
    return rows + ((static_cast<int64_t>(s) * shape.Hkv + h) * 2 + which) * kRows * shape.Dk;
  }
};

// ---- prepare ----

/// Shared memory in floats: k, b and kTogether heads of queries, 16 rows each, and parts of P.
struct PrepareLayout {
  int32_t stride, rows, parts;
  __host__ __device__ int32_t floats() const { return (2 + kTogether) * rows + parts * kTogether * kSquare; }
};
__host__ __device__ inline PrepareLayout prepare_layout(const GlaShape& shape) {
  const int32_t stride = blocks(shape.Dk, kPiece) * kPiece + 4;
  return {stride, kRows * stride, blocks(shape.Dk, kDotPart)};
}

/// k and b of a block, a thread a channel: the slot's where a row is not new. Rows that are not there have zeros for
/// keys and no decay.
template <class T>
__device__ void load_rows(const GlaStep& step, const GlaHead<T>& head, int32_t s, int64_t begin, int32_t h,
                          const BlockRows& rows, float* keys, float* b, int32_t stride) {
  const int32_t Dk = step.shape.Dk;
  const StepConv k = step.k_conv(s, begin);
  for (int32_t c = threadIdx.x; c < stride; c += blockDim.x) {
    float sum = 0;
    for (int32_t t = 0; t < kRows; t++) {
      float key = 0;
      if (c < Dk && t < rows.from) {
        key = head.k[t * Dk + c];
        sum = head.b[t * Dk + c];
      } else if (c < Dk && t < rows.to) {
        key = k.at(rows.first + t, h * Dk + c);
        const float a = step.log_decay(begin + rows.first + t, h * Dk + c);
        sum = t == 0 ? a : sum + a;
      }
      keys[t * stride + c] = key;
      b[t * stride + c] = sum;
    }
  }
}

/// grid: room for blocks, key/value heads
template <class T>
__global__ void __launch_bounds__(kPrepareThreads) prepare_gla(GlaStep step, Prepared prepared) {
  const GlaShape& shape = step.shape;
  const Sequences& sequences = step.sequences;
  const int32_t h = blockIdx.y, Dk = shape.Dk, G = shape.group();
  const BlockOfCall block = find_block(sequences.seq_start, sequences.S, blockIdx.x);
  const int32_t s = block.sequence, begin = sequences.seq_start[s], count = sequences.seq_start[s + 1] - begin;
  const BlockRows rows = rows_of_block(sequences.start_pos[s], count, block.index);
  if (count <= 0 || rows.from >= rows.to) return;
  const PrepareLayout layout = prepare_layout(shape);
  const int32_t stride = layout.stride, pieces = blocks(Dk, kPiece);
  float *keys = shared<float>(), *b = keys + layout.rows, *queries = b + layout.rows,
        *parts = queries + kTogether * layout.rows;
  load_rows(step, head_of<T>(shape, sequences.slot(s), h), s, begin, h, rows, keys, b, stride);
  __syncthreads();
  const StepConv q = step.q_conv(s, begin);
  for (int32_t first = 0; first < G; first += kTogether) {
    const int32_t some = min(kTogether, G - first);
    for (int32_t at = threadIdx.x; at < some * layout.rows; at += blockDim.x) {
      const int32_t g = first + at / layout.rows, t = at % layout.rows / stride, c = at % stride;
      queries[at] = c < Dk && t >= rows.from && t < rows.to
                        ? mul(step.layer.scale, q.at(rows.first + t, (h * G + g) * Dk + c))
                        : 0.0f;
    }
    __syncthreads();
    for (int32_t i = 0; i < some; i++)
      write_operands(pieces, prepared.operand(shape, blockIdx.x, h, 2 * (first + i)),
                     prepared.operand(shape, blockIdx.x, h, 2 * (first + i) + 1), [&](int32_t t, int32_t c) {
                       return mul(queries[i * layout.rows + t * stride + c], expf(b[t * stride + c]));
                     });
    for (int32_t at = threadIdx.x; at < layout.parts * kSquare; at += blockDim.x) {
      const int32_t part = at / kSquare, t = at % kSquare / kRows, above = at % kRows, c = part * kDotPart;
      float sums[kTogether] = {};
      if (above <= t)
        decayed_part(sums, queries + t * stride + c, layout.rows, some, keys + above * stride + c, b + t * stride + c,
                     b + above * stride + c, Dk - c);
#pragma unroll
      for (int32_t i = 0; i < kTogether; i++)
        if (i < some) parts[(part * kTogether + i) * kSquare + at % kSquare] = sums[i];
    }
    __syncthreads();
    float* products = prepared.product(shape, blockIdx.x, h) + first * kSquare;
    for (int32_t at = threadIdx.x; at < some * kSquare; at += blockDim.x)
      products[at] = sum_pieces(layout.parts, [&](int32_t p) { return parts[p * kTogether * kSquare + at]; });
    __syncthreads();
  }
  if (rows.to < kRows) {
    for (int32_t at = rows.from * Dk + threadIdx.x; at < rows.to * Dk; at += blockDim.x) {
      prepared.row(shape, s, h, 0)[at] = keys[at / Dk * stride + at % Dk];
      prepared.row(shape, s, h, 1)[at] = b[at / Dk * stride + at % Dk];
    }
    return;
  }
  const float* last = b + (kRows - 1) * stride;
  for (int32_t c = threadIdx.x; c < pieces * kPiece; c += blockDim.x)
    prepared.decay(shape, blockIdx.x, h)[c] = expf(last[c]);
  // Second operands of the advance: rows 2t, 2t + 1 and 2t + 8, 2t + 9 at channels g and 8 + g of a step.
  uint4 *high = prepared.operand(shape, blockIdx.x, h, 2 * G), *low = prepared.operand(shape, blockIdx.x, h, 2 * G + 1);
  for (int32_t at = threadIdx.x; at < pieces * kSteps * static_cast<int32_t>(kWarp); at += blockDim.x) {
    const int32_t g = at % kWarp / 4, t = at % 4, c = at / kWarp * 16 + g;
    const auto key = [&](int32_t row, int32_t channel) {
      return mul(keys[row * stride + channel], expf(last[channel] - b[row * stride + channel]));
    };
    const auto pair = [&](int32_t row, int32_t channel) { return split(key(row, channel), key(row + 1, channel)); };
    const Split a = pair(2 * t, c), d = pair(2 * t + 8, c), e = pair(2 * t, c + 8), f = pair(2 * t + 8, c + 8);
    high[at] = make_uint4(a.high, d.high, e.high, f.high);
    low[at] = make_uint4(a.low, d.low, e.low, f.low);
  }
}

// ---- scan ----

constexpr int32_t kReadsOfPiece = kRows * kReadStride;
struct ScanMemory : ScanRows {
  float rest[4];  // products [3][G][256] of three blocks in turn, then reads [2][pieces][16][36]
};
inline size_t scan_bytes(const GlaShape& shape) {
  const int32_t pieces = blocks(shape.Dk, kPiece);
  return sizeof(ScanRows) + sizeof(float) * (3 * shape.group() * kSquare + 2 * pieces * kReadsOfPiece);
}

/// What a block of threads works on.
struct Scan {
  const GlaStep& step;
  const Prepared& prepared;
  ScanMemory& memory;
  int32_t s, h, first_column, begin, count, start, pieces;
  int64_t first_block;

  __device__ StepConv v() const { return step.v_conv(s, begin); }
  __device__ BlockRows rows(int32_t i) const { return rows_of_block(start, count, i); }
  __device__ int32_t channel(int32_t column) const { return h * step.shape.Dv + first_column + column; }
  __device__ float* products(int32_t i) const { return memory.rest + i % 3 * step.shape.group() * kSquare; }
  __device__ float* read(int32_t turn, int32_t piece, int32_t row) const {
    return memory.rest + 3 * step.shape.group() * kSquare + (turn % 2 * pieces + piece) * kReadsOfPiece +
           row * kReadStride;
  }
};

__device__ inline void fetch_block(const Scan& scan, int32_t i, int32_t total) {
  fetch_rows(scan, i);
  if (i < total) {
    const float* from = scan.prepared.product(scan.step.shape, scan.first_block + i, scan.h);
    for (int32_t at = 4 * threadIdx.x; at < scan.step.shape.group() * kSquare; at += 4 * blockDim.x)
      copy_async(scan.products(i) + at, from + at);
  }
  copy_commit();
}

__device__ inline void load_queries(const Scan& scan, int32_t i, int32_t g, int32_t piece, uint4 (&high)[kSteps],
                                    uint4 (&low)[kSteps]) {
  load_operands(scan.prepared.operand(scan.step.shape, scan.first_block + i, scan.h, 2 * g), piece, high);
  load_operands(scan.prepared.operand(scan.step.shape, scan.first_block + i, scan.h, 2 * g + 1), piece, low);
}

/// Outputs of query head g of the group at block i, before their norm.
__device__ inline void write_outputs(const Scan& scan, int32_t i, int32_t g, int32_t turn, int32_t warp) {
  const GlaShape& shape = scan.step.shape;
  const int32_t lane = threadIdx.x % kWarp, head = scan.h * shape.group() + g;
  const BlockRows rows = scan.rows(i);
  float v[kRows];
#pragma unroll
  for (int32_t s = 0; s < kRows; s++) v[s] = scan.memory.v[i % 2][s][lane];
  for (int32_t t = rows.from + warp; t < rows.to; t += scan.pieces) {
    const float* weights = scan.products(i) + g * kSquare + t * kRows;
    float o = sum_pieces(scan.pieces, [&](int32_t p) { return scan.read(turn, p, t)[lane]; });
#pragma unroll
    for (int32_t s = 0; s < kRows; s++)
      if (s <= t) o = fmaf(weights[s], v[s], o);
    if (scan.first_column + lane < shape.Dv)
      scan.step.y[(static_cast<int64_t>(scan.begin + rows.first + t) * shape.Hq + head) * shape.Dv + scan.first_column +
                  lane] = o;
  }
}

/// The piece behind a full block.
template <class T>
__device__ void advance_piece(const Scan& scan, int32_t i, Tile<T>& tile, int32_t piece) {
  const GlaShape& shape = scan.step.shape;
  const TilePlace place = tile_place();
  uint4 high[kSteps], low[kSteps];
  load_queries(scan, i, shape.group(), piece, high, low);  // keys lie behind the queries
  const float* decays = scan.prepared.decay(shape, scan.first_block + i, scan.h) + piece * kPiece;
  float4 x[4];
#pragma unroll
  for (int32_t n = 0; n < 4; n++) x[n] = load4(scan.memory.v[i % 2][place.channel(0, n)] + place.column);
  RowsOperand rows;
  rows_operand(rows, x);
#pragma unroll
  for (int32_t step = 0; step < kSteps; step++) {
    const uint32_t first[2] = {high[step].x, high[step].y}, second[2] = {high[step].z, high[step].w};
    const uint32_t first_low[2] = {low[step].x, low[step].y}, second_low[2] = {low[step].z, low[step].w};
    const auto decay = [&](int32_t channel) { return decays[channel]; };
    advance_tile<false, sizeof(T) == 2>(tile, step, 0, rows, first, first_low, decay);
    advance_tile<false, sizeof(T) == 2>(tile, step, 1, rows, second, second_low, decay);
  }
}

/// Rows of the unfinished last block, and where the convolutions stand, go to the slot.
template <class T>
__device__ void leave(const Scan& scan, int32_t last) {
  const GlaShape& shape = scan.step.shape;
  const GlaHead<T> head = head_of<T>(shape, scan.step.sequences.slot(scan.s), scan.h);
  const BlockRows rows = scan.rows(last);
  const int32_t Dk = shape.Dk, Dv = shape.Dv, G = shape.group();
  for (int32_t column = threadIdx.x; column < kPiece && scan.first_column + column < Dv; column += blockDim.x)
    scan.v().advance(scan.count, scan.channel(column));
  if (rows.to < kRows)
    for (int32_t at = threadIdx.x; at < kRows * kPiece; at += blockDim.x) {
      const int32_t t = at / kPiece, column = at % kPiece;
      if (t >= rows.from && t < rows.to && scan.first_column + column < Dv)
        head.v[static_cast<int64_t>(t) * Dv + scan.first_column + column] =
            narrow<T>(scan.memory.v[last % 2][t][column]);
    }
  if (scan.first_column != 0) return;
  if (rows.to < kRows)
    for (int32_t at = rows.from * Dk + threadIdx.x; at < rows.to * Dk; at += blockDim.x) {
      head.k[at] = scan.prepared.row(shape, scan.s, scan.h, 0)[at];
      head.b[at] = scan.prepared.row(shape, scan.s, scan.h, 1)[at];
    }
  const StepConv q = scan.step.q_conv(scan.s, scan.begin), k = scan.step.k_conv(scan.s, scan.begin);
  for (int32_t c = threadIdx.x; c < G * Dk; c += blockDim.x) q.advance(scan.count, scan.h * G * Dk + c);
  for (int32_t c = threadIdx.x; c < Dk; c += blockDim.x) k.advance(scan.count, scan.h * Dk + c);
  if (scan.h == 0 && threadIdx.x == 0) move_position(scan.step.sequences, scan.s);
}

/// grid: slices of 32 columns, key/value heads, sequences
template <class T>
__global__ void __launch_bounds__(kMostPieces* kWarp, 1) scan_gla(GlaStep step, Prepared prepared) {
  const GlaShape& shape = step.shape;
  const Sequences& sequences = step.sequences;
  const int32_t h = blockIdx.y, s = blockIdx.z, begin = sequences.seq_start[s],
                count = sequences.seq_start[s + 1] - begin, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (count <= 0) return;
  const int32_t start = sequences.start_pos[s], G = shape.group(), known = start % kRows;
  const Scan scan{step,
                  prepared,
                  *shared<ScanMemory>(),
                  s,
                  h,
                  static_cast<int32_t>(blockIdx.x) * kPiece,
                  begin,
                  count,
                  start,
                  blocks(shape.Dk, kPiece),
                  first_block(begin, s)};
  const int32_t total = blocks(known + count, kRows), c0 = warp * kPiece;
  const auto state = [&] { return head_of<T>(shape, sequences.slot(s), h).state; };
  Tile<T> tile;
  TileOperand operand[kSteps];
  uint4 queries[kSteps], queries_low[kSteps];

  fetch_window(scan);
  for (int32_t i = 0; i < 2; i++) fetch_block(scan, i, total);
  if (scan.first_column + lane < shape.Dv) {
    const T* v = head_of<T>(shape, sequences.slot(s), h).v + scan.first_column + lane;
    for (int32_t t = warp; t < known; t += scan.pieces)
      scan.memory.v[0][t][lane] = widen(v[static_cast<int64_t>(t) * shape.Dv]);
  }
  load_tile(tile, state(), shape.Dk, shape.Dv, c0, scan.first_column, start == 0);
  load_queries(scan, 0, 0, warp, queries, queries_low);
  operands_of(operand, tile);
  copy_wait<0>();
  __syncthreads();
  convolve_rows<T>(scan, 0, warp);

  for (int32_t i = 0, turn = 0; i < total; i++) {
    const bool more = i + 1 < total;
    for (int32_t g = 0; g < G; g++, turn++) {
      read_rows<T, false>(scan.read(turn, warp, 0), operand, queries, queries_low);
      if (g + 1 < G)
        load_queries(scan, i, g + 1, warp, queries, queries_low);
      else if (more)
        load_queries(scan, i + 1, 0, warp, queries, queries_low);
      if (g == 0) copy_wait<0>();
      __syncthreads();
      if (g == 0) {
        fetch_block(scan, i + 2, total);
        if (more) convolve_rows<T>(scan, i + 1, warp);
      }
      write_outputs(scan, i, g, turn, warp);
    }
    if (scan.rows(i).to == kRows) {
      advance_piece(scan, i, tile, warp);
      operands_of(operand, tile);
    }
  }
  copy_wait<0>();
  __syncthreads();
  if (start == 0 || total > 1 || scan.rows(0).to == kRows)
    store_tile(state(), tile, shape.Dk, shape.Dv, c0, scan.first_column);
  leave<T>(scan, total - 1);
}

template <class T>
int32_t run(const GlaStep& step) {
  const GlaShape& shape = step.shape;
  const Sequences& sequences = step.sequences;
  const int64_t room = first_block(sequences.N, sequences.S), heads = room * shape.Hkv;
  const int32_t pieces = blocks(shape.Dk, kPiece), G = shape.group();
  const int64_t operands = heads * 2 * (G + 1) * pieces * kSteps * kWarp * 4, products = heads * G * kSquare,
                decays = heads * pieces * kPiece,
                rows = static_cast<int64_t>(sequences.S) * shape.Hkv * 2 * kRows * shape.Dk;
  float* memory =
      static_cast<float*>(workspace(static_cast<uint64_t>(operands + products + decays + rows) * sizeof(float)));
  if (memory == nullptr) return GRAFT_OUT_OF_MEMORY;
  Prepared prepared{};
  prepared.operands = reinterpret_cast<uint4*>(memory);
  prepared.products = memory + operands;
  prepared.decays = prepared.products + products;
  prepared.rows = prepared.decays + decays;
  GRAFT_LAUNCH(prepare_gla<T>, dim3(static_cast<unsigned>(room), shape.Hkv), kPrepareThreads,
               prepare_layout(shape).floats() * sizeof(float), step, prepared);
  GRAFT_LAUNCH(scan_gla<T>, dim3(blocks(shape.Dv, kPiece), shape.Hkv, sequences.S), pieces * kWarp, scan_bytes(shape),
               step, prepared);
  return finish_heads(step.y, step.gate, step.layer.o_norm, static_cast<int64_t>(sequences.N) * shape.Hq, shape.Dv,
                      step.layer.norm_eps);
}

}  // namespace

size_t gla_prefill_bytes(const GlaStep& step) {
  return max(prepare_layout(step.shape).floats() * sizeof(float), scan_bytes(step.shape));
}

int32_t gla_prefill(const GlaStep& step) {
  return step.layer.state_dtype == GRAFT_BF16 ? run<bf16_bits>(step) : run<float>(step);
}

}  // namespace graft::gpu
