// graft_gdn_step for many rows of a sequence, in three launches:
//   prepare  per block of 16 rows and key head, all at once: convolutions, norms, products of keys and queries with
//            keys, and keys and queries as operands of the tensor cores
//   scan     per 32 columns of a value head, block after block: reads of S0, the substitution, outputs, S0's advance.
//            Warp p < pieces has channels 32 p.. of S0 in registers; one more warp solves, a lane a column.
//   finish   norm and gate of every output head
#include "gdn_step.h"
#include "host.h"
#include "scan_rows.h"

namespace graft::gpu {
namespace {

constexpr int32_t kRows = kRowsOfBlock, kSquare = kRows * kRows, kPrepareThreads = 256, kFewThreads = 5 * kWarp,
                  kManyThreads = (kMostPieces + 1) * kWarp;

/// What prepare leaves for scan. Operands of a block and key head: by piece, step and lane a uint4, the instruction's
/// second operand for rows 0-7 and 8-15; four arrays: keys, their low parts, queries, theirs.
struct Prepared {
  uint4* operands;
  /// Per block and key head [2, 16, 16]: k_s·k_t of s < t and q_t·k_s of s <= t, both by [s][t].
  float* products;
  /// Per sequence: keys [Hk, 16, Dk] in the state's type of an unfinished last block; b [Hv, 16] of the slot's rows.
  float *keys, *decays;

  __device__ uint4* operand(const GdnShape& shape, int64_t block, int32_t h, int32_t array) const {
    const int32_t each = blocks(shape.Dk, kPiece) * kSteps * kWarp;
    return operands + ((block * shape.Hk + h) * 4 + array) * each;
  }
  __device__ float* product(const GdnShape& shape, int64_t block, int32_t h) const {
    return products + (block * shape.Hk + h) * 2 * kSquare;
  }
  template <class T>
  __device__ T* key_rows(const GdnShape& shape, int32_t s, int32_t h) const {
    return reinterpret_cast<T*>(keys + (static_cast<int64_t>(s) * shape.Hk + h) * floats_of<T>(kRows * shape.Dk));
  }
  __device__ float* decay_rows(const GdnShape& shape, int32_t s, int32_t j) const {
    return decays + (static_cast<int64_t>(s) * shape.Hv + j) * kRows;
  }
};

// ---- prepare ----

/// Keys and queries of one block in shared memory, and the parts of their products.
struct PrepareLayout {
  int32_t stride, rows, parts;
  __host__ __device__ int32_t floats() const { return 2 * rows + parts * 2 * kSquare; }
};
__host__ __device__ inline PrepareLayout prepare_layout(const GdnShape& shape) {
  const int32_t stride = blocks(shape.Dk, kPiece) * kPiece + 4;
  return {stride, kRows * stride, blocks(shape.Dk, kDotPart)};
}

/// Row and channel of what a thread has; the slot's keys where a row is not new, zeros where there is none.
template <class T>
__device__ void load_rows(const GdnStep& step, const GdnHead<T>& head, int32_t s, int64_t begin, int32_t h,
                          const BlockRows& rows, float* keys, float* queries, int32_t stride) {
  const int32_t Dk = step.shape.Dk;
  const StepConv q = step.q_conv(s, begin), k = step.k_conv(s, begin);
  for (int32_t at = threadIdx.x; at < kRows * stride; at += blockDim.x) {
    const int32_t t = at / stride, c = at % stride;
    float key = 0, query = 0;
    if (c < Dk && t < rows.from) key = widen(head.keys[t * Dk + c]);
    if (c < Dk && t >= rows.from && t < rows.to) {
      key = k.at(rows.first + t, h * Dk + c);
      query = q.at(rows.first + t, h * Dk + c);
    }
    keys[at] = key;
    queries[at] = query;
  }
}

/// Norms of the new rows, a warp a row.
template <class T>
__device__ void normalise_rows(const GdnStep& step, const BlockRows& rows, float* keys, float* queries,
                               int32_t stride) {
  const int32_t Dk = step.shape.Dk, lane = threadIdx.x % kWarp;
  for (int32_t t = rows.from + threadIdx.x / kWarp; t < rows.to; t += blockDim.x / kWarp) {
    float *key = keys + t * stride, *query = queries + t * stride;
    const float by_k = l2_factor(warp_squares(key, Dk), step.layer.l2_eps),
                by_q = l2_factor(warp_squares(query, Dk), step.layer.l2_eps);
    for (int32_t c = lane; c < Dk; c += kWarp) {
      key[c] = kept<T>(mul(key[c], by_k));
      query[c] = mul(step.layer.scale, mul(query[c], by_q));
    }
  }
}

/// Parts of the products of rows with keys at or above them: a thread takes 16 channels of 4 x 4 of them.
__device__ inline void multiply_rows(int32_t Dk, const PrepareLayout& layout, const float* keys, const float* queries,
                                     float* parts) {
  constexpr int32_t kSide = 4, kTiles = 10;  // of 4 x 4 tiles, those not above the diagonal
  for (int32_t at = threadIdx.x; at < layout.parts * 2 * kTiles; at += blockDim.x) {
    const int32_t tile = at % kTiles, which = at / kTiles % 2, part = at / (2 * kTiles), c0 = part * kDotPart;
    const int32_t down = tile < 1   ? 0
                         : tile < 3 ? 1
                         : tile < 6 ? 2
                                    : 3,
                  t0 = kSide * down, s0 = kSide * (tile - down * (down + 1) / 2);
    const float *x = (which == 0 ? keys : queries) + t0 * layout.stride + c0, *y = keys + s0 * layout.stride + c0;
    float sums[kSide][kSide] = {};
#pragma unroll
    for (int32_t c = 0; c < kDotPart; c += 4) {
      if (c0 + c >= Dk) break;
      float4 a[kSide], b[kSide];
#pragma unroll
      for (int32_t i = 0; i < kSide; i++) {
        a[i] = load4(x + i * layout.stride + c);
        b[i] = load4(y + i * layout.stride + c);
      }
#pragma unroll
      for (int32_t i = 0; i < kSide; i++)
#pragma unroll
        for (int32_t e = 0; e < kSide; e++) {
          float sum = fmaf(a[i].x, b[e].x, sums[i][e]);
          sum = fmaf(a[i].y, b[e].y, sum);
          sum = fmaf(a[i].z, b[e].z, sum);
          sums[i][e] = fmaf(a[i].w, b[e].w, sum);
        }
    }
    float* to = parts + (part * 2 + which) * kSquare;
#pragma unroll
    for (int32_t e = 0; e < kSide; e++)
      store4(to + (s0 + e) * kRows + t0, make_float4(sums[0][e], sums[1][e], sums[2][e], sums[3][e]));
  }
}

/// grid: room for blocks, key heads
template <class T>
__global__ void __launch_bounds__(kPrepareThreads) prepare_gdn(GdnStep step, Prepared prepared) {
  const GdnShape& shape = step.shape;
  const Sequences& sequences = step.sequences;
  const int32_t h = blockIdx.y, Dk = shape.Dk;
  const BlockOfCall block = find_block(sequences.seq_start, sequences.S, blockIdx.x);
  const int32_t s = block.sequence, begin = sequences.seq_start[s], count = sequences.seq_start[s + 1] - begin;
  const BlockRows rows = rows_of_block(sequences.start_pos[s], count, block.index);
  if (count <= 0 || rows.from >= rows.to) return;
  const PrepareLayout layout = prepare_layout(shape);
  float *keys = shared<float>(), *queries = keys + layout.rows, *parts = queries + layout.rows;
  const GdnHead<T> head = head_of<T>(shape, sequences.slot(s), h * shape.group());
  load_rows(step, head, s, begin, h, rows, keys, queries, layout.stride);
  if (block.index == 0)
    for (int32_t at = threadIdx.x; at < shape.group() * rows.from; at += blockDim.x) {
      const int32_t j = h * shape.group() + at / rows.from, t = at % rows.from;
      prepared.decay_rows(shape, s, j)[t] = head_of<T>(shape, sequences.slot(s), j).b[t];
    }
  __syncthreads();
  normalise_rows<T>(step, rows, keys, queries, layout.stride);
  __syncthreads();
  multiply_rows(Dk, layout, keys, queries, parts);
  const int32_t pieces = blocks(Dk, kPiece);
  write_operands(pieces, prepared.operand(shape, blockIdx.x, h, 0),
                 sizeof(T) == 2 ? nullptr : prepared.operand(shape, blockIdx.x, h, 1),
                 [&](int32_t t, int32_t c) { return keys[t * layout.stride + c]; });
  write_operands(pieces, prepared.operand(shape, blockIdx.x, h, 2), prepared.operand(shape, blockIdx.x, h, 3),
                 [&](int32_t t, int32_t c) { return queries[t * layout.stride + c]; });
  if (rows.to < kRows)
    for (int32_t at = threadIdx.x; at < kRows * Dk; at += blockDim.x)
      if (at / Dk >= rows.from && at / Dk < rows.to)
        prepared.key_rows<T>(shape, s, h)[at] = narrow<T>(keys[at / Dk * layout.stride + at % Dk]);
  __syncthreads();
  float* products = prepared.product(shape, blockIdx.x, h);
  for (int32_t at = threadIdx.x; at < 2 * kSquare; at += blockDim.x) {
    const int32_t above = at % kSquare / kRows, t = at % kRows;
    products[at] = above > t ? 0.0f : sum_pieces(layout.parts, [&](int32_t p) { return parts[p * 2 * kSquare + at]; });
  }
}

// ---- scan ----

/// A value head's numbers for the rows of one block.
struct Gates {
  float b[kRows], decay[kRows], beta[kRows], tail[kRows];  // tail: e^{b_15 - b}
  float weights[2][kSquare];                               // A_ts by [s][t], P_ts by [t][s]
};
struct ScanMemory : ScanRows {
  float u[kRows][kReadStride];
  Gates gates[3];
  float log_decays[kRows];
  float reads[2][kMostPieces][kRows][kReadStride];  // of keys and of queries, by piece; as many pieces as there are
};
inline size_t scan_bytes(int32_t pieces) {
  return sizeof(ScanMemory) - sizeof(float) * 2 * (kMostPieces - pieces) * kRows * kReadStride;
}

/// What a block of threads works on.
template <class T>
struct Scan {
  const GdnStep& step;
  const Prepared& prepared;
  ScanMemory& memory;
  int32_t s, j, h, first_column, begin, count, start, pieces, first;  // first: its first block of the call's

  // Made anew where they are used: they would hold registers throughout.
  __device__ GdnHead<T> head() const { return head_of<T>(step.shape, step.sequences.slot(s), j); }
  __device__ StepConv v() const { return step.v_conv(s, begin); }
  /// Block i of the sequence among those of the call.
  __device__ int64_t block(int32_t i) const { return first + i; }
  __device__ BlockRows rows(int32_t i) const { return rows_of_block(start, count, i); }
  __device__ float* read(int32_t which, int32_t piece, int32_t row) const {
    return memory.reads[0][0][0] + ((which * pieces + piece) * kRows + row) * kReadStride;
  }
  __device__ int32_t channel(int32_t column) const { return j * step.shape.Dv + first_column + column; }
};

/// The solver's inputs for a block, under way while it has other work; lane t has row t's.
struct Ahead {
  float log_decay, beta;
};
template <class T>
__device__ Ahead load_gates(const Scan<T>& scan, int32_t i) {
  const int32_t lane = threadIdx.x % kWarp;
  const BlockRows rows = scan.rows(i);
  if (lane < rows.from || lane >= rows.to) return {0, 0};
  const int64_t row = scan.begin + rows.first + lane;
  return {scan.step.log_decay(row, scan.j), scan.step.strength(row, scan.j)};
}

/// b and what follows from it.
template <class T>
__device__ void write_gates(const Scan<T>& scan, int32_t i, const Ahead& ahead) {
  const int32_t lane = threadIdx.x % kWarp;
  const BlockRows rows = scan.rows(i);
  Gates& gates = scan.memory.gates[i % 3];
  if (lane < kRows) scan.memory.log_decays[lane] = ahead.log_decay;
  __syncwarp();
  if (lane < kRows) {
    const float* known = scan.prepared.decay_rows(scan.step.shape, scan.s, scan.j);
    float b = 0;
    if (lane < rows.from) {
      b = known[lane];
    } else {
      b = rows.from > 0 ? known[rows.from - 1] + scan.memory.log_decays[rows.from] : scan.memory.log_decays[0];
      for (int32_t t = rows.from + 1; t <= lane; t++) b += scan.memory.log_decays[t];
    }
    gates.b[lane] = b;
    gates.decay[lane] = expf(b);
    gates.beta[lane] = ahead.beta;
  }
  __syncwarp();
  if (lane < kRows) gates.tail[lane] = expf(gates.b[kRows - 1] - gates.b[lane]);
}

constexpr int32_t kEach = kSquare / kWarp;
/// Products of a block, a lane's share of them.
template <class T>
__device__ void load_products(const Scan<T>& scan, int32_t i, float (&products)[2][kEach]) {
  const float* from = scan.prepared.product(scan.step.shape, scan.block(i), scan.h) + threadIdx.x % kWarp;
#pragma unroll
  for (int32_t n = 0; n < kEach; n++) {
    products[0][n] = from[n * kWarp];
    products[1][n] = from[kSquare + n * kWarp];
  }
}
/// A and P of a block from them.
template <class T>
__device__ void write_weights(const Scan<T>& scan, int32_t i, const float (&products)[2][kEach]) {
  Gates& gates = scan.memory.gates[i % 3];
#pragma unroll
  for (int32_t n = 0; n < kEach; n++) {
    const int32_t at = n * kWarp + threadIdx.x % kWarp, above = at / kRows, t = at % kRows;
    const float decay = above <= t ? expf(gates.b[t] - gates.b[above]) : 0.0f;
    gates.weights[0][at] = mul(products[0][n], decay);
    gates.weights[1][t * kRows + above] = mul(products[1][n], decay);
  }
}

template <class T>
__device__ void load_array(const Scan<T>& scan, int32_t i, int32_t array, int32_t piece, uint4 (&to)[kSteps]) {
  load_operands(scan.prepared.operand(scan.step.shape, scan.block(i), scan.h, array), piece, to);
}

/// u of block i, a lane a column.
template <class T>
__device__ void solve(const Scan<T>& scan, int32_t i) {
  const int32_t lane = threadIdx.x % kWarp;
  const BlockRows rows = scan.rows(i);
  const Gates& gates = scan.memory.gates[i % 3];
  float w[kRows];
#pragma unroll
  for (int32_t t = 0; t < kRows; t++) {
    const float sum = sum_pieces(scan.pieces, [&](int32_t p) { return scan.read(0, p, t)[lane]; });
    w[t] = fmaf(-gates.decay[t], sum, scan.memory.v[i % 2][t][lane]);
  }
#pragma unroll
  for (int32_t s = 0; s < kRows; s++) {
    float u = 0;
    if (s < rows.from)
      u = scan.memory.u[s][lane];
    else if (s < rows.to)
      u = kept<T>(mul(gates.beta[s], w[s]));
    scan.memory.u[s][lane] = u;
#pragma unroll
    for (int32_t t = s + 1; t < kRows; t++) w[t] = fmaf(-gates.weights[0][s * kRows + t], u, w[t]);
  }
}

/// Outputs of block i, before their norm, by the warps that have pieces.
template <class T>
__device__ void write_outputs(const Scan<T>& scan, int32_t i, int32_t warp) {
  const GdnShape& shape = scan.step.shape;
  const int32_t lane = threadIdx.x % kWarp;
  const BlockRows rows = scan.rows(i);
  const Gates& gates = scan.memory.gates[i % 3];
  float u[kRows];
#pragma unroll
  for (int32_t s = 0; s < kRows; s++) u[s] = scan.memory.u[s][lane];
  for (int32_t t = rows.from + warp; t < rows.to; t += scan.pieces) {
    const float* weights = gates.weights[1] + t * kRows;
    float o = mul(gates.decay[t], sum_pieces(scan.pieces, [&](int32_t p) { return scan.read(1, p, t)[lane]; }));
#pragma unroll
    for (int32_t s = 0; s < kRows; s++)
      if (s <= t) o = fmaf(weights[s], u[s], o);
    if (scan.first_column + lane < shape.Dv)
      scan.step.y[static_cast<int64_t>(scan.begin + rows.first + t) * scan.v().C + scan.channel(lane)] = o;
  }
}

/// The piece behind a full block.
template <class T>
__device__ void advance_piece(const Scan<T>& scan, int32_t i, Tile<T>& tile, const uint4 (&high)[kSteps],
                              const uint4 (&low)[kSteps]) {
  const Gates& gates = scan.memory.gates[i % 3];
  const TilePlace place = tile_place();
  float4 x[4];
#pragma unroll
  for (int32_t n = 0; n < 4; n++) {
    const int32_t s = place.channel(0, n);
    const float4 u = load4(scan.memory.u[s] + place.column);
    const float by = gates.tail[s];
    x[n] = make_float4(mul(u.x, by), mul(u.y, by), mul(u.z, by), mul(u.w, by));
  }
  RowsOperand rows;
  rows_operand(rows, x);
  const float decay = gates.decay[kRows - 1];
#pragma unroll
  for (int32_t step = 0; step < kSteps; step++) {
    // Rows 0-7 and 8-15 of eight channels, as rows of the operand of a read, become columns of that of an update.
    const uint32_t first[2] = {transpose(high[step].x), transpose(high[step].z)},
                   second[2] = {transpose(high[step].y), transpose(high[step].w)};
    uint32_t first_low[2] = {0, 0}, second_low[2] = {0, 0};
    if constexpr (sizeof(T) == 4) {
      first_low[0] = transpose(low[step].x);
      first_low[1] = transpose(low[step].z);
      second_low[0] = transpose(low[step].y);
      second_low[1] = transpose(low[step].w);
    }
    advance_tile<sizeof(T) == 2, false>(tile, step, 0, rows, first, first_low, [&](int32_t) { return decay; });
    advance_tile<sizeof(T) == 2, false>(tile, step, 1, rows, second, second_low, [&](int32_t) { return decay; });
  }
}

/// Rows of the unfinished last block, and where the convolutions stand, go to the slot.
template <class T>
__device__ void leave(const Scan<T>& scan, int32_t last) {
  const GdnShape& shape = scan.step.shape;
  const BlockRows rows = scan.rows(last);
  const int32_t Dk = shape.Dk, Dv = shape.Dv;
  for (int32_t column = threadIdx.x; column < kPiece && scan.first_column + column < Dv; column += blockDim.x)
    scan.v().advance(scan.count, scan.channel(column));
  if (rows.to < kRows)
    for (int32_t at = threadIdx.x; at < kRows * kPiece; at += blockDim.x) {
      const int32_t t = at / kPiece, column = at % kPiece;
      if (t >= rows.from && t < rows.to && scan.first_column + column < Dv)
        scan.head().u[static_cast<int64_t>(t) * Dv + scan.first_column + column] = narrow<T>(scan.memory.u[t][column]);
    }
  if (scan.first_column != 0) return;
  for (int32_t t = threadIdx.x; t < rows.to; t += blockDim.x) scan.head().b[t] = scan.memory.gates[last % 3].b[t];
  if (scan.j % shape.group() == 0) {
    if (rows.to < kRows)
      for (int32_t at = rows.from * Dk + threadIdx.x; at < rows.to * Dk; at += blockDim.x)
        scan.head().keys[at] = scan.prepared.template key_rows<T>(shape, scan.s, scan.h)[at];
    const StepConv q = scan.step.q_conv(scan.s, scan.begin), k = scan.step.k_conv(scan.s, scan.begin);
    for (int32_t c = threadIdx.x; c < Dk; c += blockDim.x) {
      q.advance(scan.count, scan.h * Dk + c);
      k.advance(scan.count, scan.h * Dk + c);
    }
  }
  if (scan.j == 0 && threadIdx.x == 0) move_position(scan.step.sequences, scan.s);
}

// Solver and pieces go over the blocks each in a loop of its own, so that neither holds registers for the other; both
// meet at the same barriers: v and S0 are there, the first v is convolved, and of each block: keys have read, u is
// there.

/// The warp that solves.
template <class T>
__device__ void solve_blocks(const Scan<T>& scan, int32_t total) {
  float products[2][kEach];
  load_products(scan, 0, products);
  write_gates(scan, 0, load_gates(scan, 0));
  __syncwarp();
  write_weights(scan, 0, products);
  Ahead ahead = load_gates(scan, 1);
  copy_wait<1>();
  __syncthreads();
  __syncthreads();
  for (int32_t i = 0; i < total; i++) {
    const bool more = i + 1 < total;
    fetch_rows(scan, i + 2);
    copy_commit();
    if (more) {
      load_products(scan, i + 1, products);
      write_gates(scan, i + 1, ahead);
      ahead = load_gates(scan, i + 2);
    }
    copy_wait<1>();
    __syncthreads();
    solve(scan, i);
    __syncthreads();
    if (more) write_weights(scan, i + 1, products);
  }
}

/// A warp that has a piece of S0.
template <class T>
__device__ void read_blocks(const Scan<T>& scan, int32_t total, int32_t warp) {
  constexpr bool kExact = sizeof(T) == 2;
  const int32_t c0 = warp * kPiece, Dk = scan.step.shape.Dk, Dv = scan.step.shape.Dv;
  Tile<T> tile;
  TileOperand operand[kSteps];
  uint4 keys[kSteps], keys_low[kSteps] = {}, queries[kSteps], queries_low[kSteps];
  load_tile(tile, scan.head().state, Dk, Dv, c0, scan.first_column, scan.start == 0);
  const auto load_keys = [&](int32_t i) {
    load_array(scan, i, 0, warp, keys);
    if constexpr (!kExact) load_array(scan, i, 1, warp, keys_low);
  };
  const auto load_queries = [&](int32_t i) {
    load_array(scan, i, 2, warp, queries);
    load_array(scan, i, 3, warp, queries_low);
  };
  load_keys(0);
  load_queries(0);
  operands_of(operand, tile);
  copy_wait<1>();
  __syncthreads();
  convolve_rows<float>(scan, 0, warp);
  __syncthreads();
  for (int32_t i = 0; i < total; i++) {
    const bool more = i + 1 < total;
    fetch_rows(scan, i + 2);
    copy_commit();
    read_rows<T, kExact>(scan.read(0, warp, 0), operand, keys, keys_low);
    copy_wait<1>();
    __syncthreads();
    read_rows<T, false>(scan.read(1, warp, 0), operand, queries, queries_low);
    if (more) {
      load_queries(i + 1);
      convolve_rows<float>(scan, i + 1, warp);
    }
    __syncthreads();
    if (scan.rows(i).to == kRows) {
      advance_piece(scan, i, tile, keys, keys_low);
      operands_of(operand, tile);
    }
    if (more) load_keys(i + 1);
    write_outputs(scan, i, warp);
  }
  if (scan.start == 0 || total > 1 || scan.rows(0).to == kRows)
    store_tile(scan.head().state, tile, Dk, Dv, c0, scan.first_column);
}

/// grid: slices of 32 columns, value heads, sequences; at most Threads threads
template <class T, int32_t Threads>
__global__ void __launch_bounds__(Threads, Threads <= kFewThreads ? 2 : 1) scan_gdn(GdnStep step, Prepared prepared) {
  const GdnShape& shape = step.shape;
  const Sequences& sequences = step.sequences;
  const int32_t j = blockIdx.y, s = blockIdx.z, begin = sequences.seq_start[s],
                count = sequences.seq_start[s + 1] - begin, warp = threadIdx.x / kWarp;
  if (count <= 0) return;
  const int32_t start = sequences.start_pos[s];
  const Scan<T> scan{step,
                     prepared,
                     *shared<ScanMemory>(),
                     s,
                     j,
                     j / shape.group(),
                     static_cast<int32_t>(blockIdx.x) * kPiece,
                     begin,
                     count,
                     start,
                     blocks(shape.Dk, kPiece),
                     first_block(begin, s)};
  const int32_t total = blocks(start % kRows + count, kRows);
  fetch_window(scan);
  for (int32_t i = 0; i < 2; i++) {
    fetch_rows(scan, i);
    copy_commit();
  }
  for (int32_t at = threadIdx.x; at < kRows * kPiece; at += blockDim.x) {
    const int32_t t = at / kPiece, column = scan.first_column + at % kPiece;
    if (t < start % kRows && column < shape.Dv)
      scan.memory.u[t][at % kPiece] = widen(scan.head().u[static_cast<int64_t>(t) * shape.Dv + column]);
  }
  if (warp == scan.pieces)
    solve_blocks(scan, total);
  else
    read_blocks(scan, total, warp);
  copy_wait<0>();
  __syncthreads();
  leave(scan, total - 1);
}

template <class T>
int32_t run(const GdnStep& step) {
  const GdnShape& shape = step.shape;
  const Sequences& sequences = step.sequences;
  const int64_t room = first_block(sequences.N, sequences.S);
  const int32_t pieces = blocks(shape.Dk, kPiece);
  const int64_t operands = room * shape.Hk * 4 * pieces * kSteps * kWarp * 4, products = room * shape.Hk * 2 * kSquare,
                keys = static_cast<int64_t>(sequences.S) * shape.Hk * floats_of<T>(kRows * shape.Dk),
                decays = static_cast<int64_t>(sequences.S) * shape.Hv * kRows;
  float* memory =
      static_cast<float*>(workspace(static_cast<uint64_t>(operands + products + keys + decays) * sizeof(float)));
  if (memory == nullptr) return GRAFT_OUT_OF_MEMORY;
  Prepared prepared{};
  prepared.operands = reinterpret_cast<uint4*>(memory);
  prepared.products = memory + operands;
  prepared.keys = prepared.products + products;
  prepared.decays = prepared.keys + keys;
  const size_t bytes = prepare_layout(shape).floats() * sizeof(float);
  GRAFT_LAUNCH(prepare_gdn<T>, dim3(static_cast<unsigned>(room), shape.Hk), kPrepareThreads, bytes, step, prepared);
  const dim3 slices(blocks(shape.Dv, kPiece), shape.Hv, sequences.S);
  const int32_t threads = (pieces + 1) * static_cast<int32_t>(kWarp);
  if (threads <= kFewThreads)
    GRAFT_LAUNCH((scan_gdn<T, kFewThreads>), slices, threads, scan_bytes(pieces), step, prepared);
  else
    GRAFT_LAUNCH((scan_gdn<T, kManyThreads>), slices, threads, scan_bytes(pieces), step, prepared);
  return finish_heads(step.y, step.gate, step.layer.o_norm, static_cast<int64_t>(sequences.N) * shape.Hv, shape.Dv,
                      step.layer.norm_eps);
}

}  // namespace

size_t gdn_prefill_bytes(const GdnStep& step) {
  return max(prepare_layout(step.shape).floats() * sizeof(float), scan_bytes(blocks(step.shape.Dk, kPiece)));
}

int32_t gdn_prefill(const GdnStep& step) {
  return step.layer.state_dtype == GRAFT_BF16 ? run<bf16_bits>(step) : run<float>(step);
}

}  // namespace graft::gpu
