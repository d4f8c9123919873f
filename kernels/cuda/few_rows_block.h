// The parts of a block that multiplies few rows (few_rows.cu): its ring of weights, and what happens to its sums.
#pragma once
#include "few_rows.h"
#include "many_rows.h"

namespace graft::gpu {

constexpr int32_t kBlock = kSlices * kWarp;
static_assert(kBlock == kThreads, "the threads that norm rows are those that multiply them");

/// One launch.
struct FewRows {
  Product products[kMostProducts];
  /// Where a product's groups of output tiles begin.
  int32_t first_group[kMostProducts + 1];
  int32_t count, N, in;
  const float* x;
  RowNorm norm;
  /// Normed rows, [row tile][input tile][lane]; null: the block norms x itself.
  const uint2* rows;
};

/// Group output tiles (of a gated product: half of them of each weight) by RowTiles tiles of rows. Own: most rows that
/// the block norms and keeps in shared memory; 0: rows come through the ring beside the weights.
template <int32_t RowTiles, int32_t Group, int32_t Own>
struct Form {
  static constexpr int32_t kSteps = kChunkTiles / Group;  // input tiles of a stage
  static constexpr int32_t kStages = Own || RowTiles == 4 ? 5 : 4;
  static constexpr int32_t kWeightBytes = kChunkTiles * kWarp * sizeof(uint4);
  static constexpr int32_t kStageBytes = kWeightBytes + (Own ? 0 : kSteps * RowTiles * kWarp * int32_t{sizeof(uint2)});
  static constexpr int32_t kRingBytes = kSlices * kStages * kStageBytes;
  static constexpr int32_t kSums = Group * RowTiles * kTile * kRowTile;  // of a slice
  static constexpr int32_t kSumBytes = kSlices * kSums * sizeof(float);
  static constexpr int32_t kPuts = (kSums + kBlock - 1) / kBlock;  // of a thread
  static constexpr int32_t kFixedBytes = kRingBytes + kSumBytes;
};

/// The product and the first output tile of a group.
template <int32_t Group>
struct Place {
  const Product* product;
  int32_t tile;

  __device__ __forceinline__ Place(const FewRows& plan, int32_t group) {
    int32_t index = 0;
    while (group >= plan.first_group[index + 1]) index++;
    product = &plan.products[index];
    tile = (group - plan.first_group[index]) * (gated() ? Group / 2 : Group);
  }
  __device__ __forceinline__ bool gated() const { return Group > 1 && product->up != nullptr; }
  /// The group's m-th weight tile, null where there is none.
  __device__ __forceinline__ const uint4* weights(int32_t m, int32_t tiles) const {
    const bool up = gated() && m >= Group / 2;
    const int32_t at = tile + (up ? m - Group / 2 : m);
    if (at >= output_tiles(product->out)) return nullptr;
    return static_cast<const uint4*>(up ? product->up : product->packed) + static_cast<int64_t>(at) * tiles * kWarp;
  }
};

/// A warp's slice of the inputs and its ring.
template <int32_t RowTiles, int32_t Group, int32_t Own>
struct Stream {
  using F = Form<RowTiles, Group, Own>;
  const FewRows& plan;
  int32_t lane, tiles, begin, end, groups;
  unsigned char* ring;
  // What is fetched next.
  int32_t group, k, slot = 0;
  const uint4* weights[Group] = {};
  // What is multiplied next.
  int32_t from = 0;

  __device__ __forceinline__ explicit Stream(const FewRows& plan) : plan(plan) {
    const int32_t slice = threadIdx.x / kWarp;
    lane = threadIdx.x % kWarp;
    tiles = input_tiles(plan.in);
    begin = slice_begin(slice, tiles), end = slice_begin(slice + 1, tiles);
    groups = plan.first_group[plan.count];
    ring = shared_bytes() + slice * F::kStages * F::kStageBytes;
    group = begin < end ? blockIdx.x : groups;
    k = begin;
    point();
  }
  __device__ __forceinline__ void point() {
    if (group >= groups) return;
    const Place<Group> place(plan, group);
#pragma unroll
    for (int32_t m = 0; m < Group; m++) weights[m] = place.weights(m, tiles);
  }
  __device__ __forceinline__ bool has_more() const { return group < groups; }

  __device__ __forceinline__ void fetch_weights() {
    auto* to = reinterpret_cast<uint4*>(ring + slot * F::kStageBytes) + lane;
#pragma unroll
    for (int32_t j = 0; j < F::kSteps; j++)
#pragma unroll
      for (int32_t m = 0; m < Group; m++) {
        const bool there = weights[m] != nullptr;
        copy_async(to + (j * Group + m) * kWarp, (there ? weights[m] : weights[0]) + (k + j) * kWarp + lane, there);
      }
  }
  /// The rows of the same inputs, from input tile `at` on.
  __device__ __forceinline__ void fetch_rows(int32_t slot, int32_t at) {
    auto* to = reinterpret_cast<uint2*>(ring + slot * F::kStageBytes + F::kWeightBytes) + lane;
    const int32_t row_tiles = (plan.N + kRowTile - 1) / kRowTile;
#pragma unroll
    for (int32_t n = 0; n < RowTiles; n++)
#pragma unroll
      for (int32_t j = 0; j < F::kSteps; j++)
        if (n < row_tiles)
          copy_async_8(to + (j * RowTiles + n) * kWarp,
                       plan.rows + (static_cast<int64_t>(n) * tiles + at + j) * kWarp + lane);
  }
  __device__ __forceinline__ void advance() {
    slot = slot + 1 == F::kStages ? 0 : slot + 1;
    k += F::kSteps;
    if (k < end) return;
    k = begin;
    group += gridDim.x;
    point();
  }

  /// Fills the ring but for one stage, weights first: rows are there only after depend_wait().
  __device__ __forceinline__ void fill() {
    for (int32_t s = 0; s < F::kStages - 1; s++) {
      if (has_more()) {
        fetch_weights();
        advance();
      } else {
        slot++;
      }
      if (Own) copy_commit();
    }
    if (!has_more()) depend_launch();
  }
  __device__ __forceinline__ void fill_rows() {
    const int32_t own_groups = begin < end ? (groups - static_cast<int32_t>(blockIdx.x) - 1) / gridDim.x + 1 : 0;
    const int32_t stages = own_groups * ((end - begin) / F::kSteps);
    int32_t at = begin;
    for (int32_t s = 0; s < F::kStages - 1; s++) {
      if (s < stages) fetch_rows(s, at);
      at = at + F::kSteps < end ? at + F::kSteps : begin;
      copy_commit();
    }
  }
  __device__ __forceinline__ void fetch() {
    if (has_more()) {
      fetch_weights();
      if (!Own) fetch_rows(slot, k);
      advance();
      if (!has_more()) depend_launch();
    } else {
      slot = slot + 1 == F::kStages ? 0 : slot + 1;
    }
    copy_commit();
  }

  /// Adds the next stage, inputs from tile `at` on. own_rows: [input tile][row][4].
  __device__ __forceinline__ void multiply(float (&sums)[Group][RowTiles][4], int32_t at, const uint2* own_rows) {
    copy_wait<F::kStages - 2>();
    fetch();
    const auto* stage = reinterpret_cast<const uint4*>(ring + from * F::kStageBytes) + lane;
    const auto* rows = reinterpret_cast<const uint2*>(ring + from * F::kStageBytes + F::kWeightBytes) + lane;
    const int32_t row_tiles = (plan.N + kRowTile - 1) / kRowTile;
#pragma unroll
    for (int32_t j = 0; j < F::kSteps; j++) {
      uint32_t b[RowTiles][2] = {};
#pragma unroll
      for (int32_t n = 0; n < RowTiles; n++) {
        if (Own ? lane >= 4 * plan.N : n >= row_tiles) continue;
        const uint2 row = Own ? own_rows[(at + j) * 4 * plan.N + lane] : rows[(j * RowTiles + n) * kWarp];
        b[n][0] = row.x, b[n][1] = row.y;
      }
#pragma unroll
      for (int32_t m = 0; m < Group; m++) {
        const uint4 w = stage[(j * Group + m) * kWarp];
        const uint32_t a[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int32_t n = 0; n < RowTiles; n++) mma(sums[m][n], a, b[n]);
      }
    }
    from = from + 1 == F::kStages ? 0 : from + 1;
  }
};

/// What a thread adds to the sums of a group, fetched while they are formed.
template <int32_t RowTiles, int32_t Group, int32_t Own>
struct Puts {
  using F = Form<RowTiles, Group, Own>;
  Place<Group> place;
  int32_t N;
  float bias[F::kPuts], residual[F::kPuts];

  /// The e-th output of this thread: 16 outputs of a row stand side by side.
  struct At {
    int32_t m, row, o;
    int32_t sum;  // its place among the sums of a slice
    bool exists;
  };
  __device__ __forceinline__ At at(int32_t e) const {
    const int32_t i = threadIdx.x + e * kBlock, o = i % kTile, row = i / kTile % kRowTile;
    const int32_t n = i / (kTile * kRowTile) % RowTiles, m = i / (kTile * kRowTile) / RowTiles;
    const int32_t lane = o % 8 * 4 + row / 2, part = o / 8 * 2 + row % 2;
    constexpr int32_t kLanes = kWarp;
    At at{m, n * kRowTile + row, (place.tile + m) * kTile + o, ((m * RowTiles + n) * kLanes + lane) * 4 + part, false};
    at.exists = m < (place.gated() ? Group / 2 : Group) && at.row < N && at.o < place.product->out;
    return at;
  }
  __device__ __forceinline__ Puts(const FewRows& plan, int32_t group) : place(plan, group), N(plan.N) {
    const Product& product = *place.product;
#pragma unroll
    for (int32_t e = 0; e < F::kPuts; e++) {
      const At to = at(e);
      bias[e] = to.exists && product.bias != nullptr ? product.bias[to.o] : 0.0f;
      residual[e] = 0;
      if (to.exists && product.residual != nullptr)
        residual[e] = product.residual[static_cast<int64_t>(to.row) * product.out + to.o];
    }
  }
  static __device__ __forceinline__ float total(const float* sums, int32_t at) {
    float total = sums[at];
#pragma unroll
    for (int32_t s = 1; s < kSlices; s++) total += sums[s * F::kSums + at];
    return total;
  }
  __device__ __forceinline__ void put(const float* sums) const {
    const Product& product = *place.product;
#pragma unroll
    for (int32_t e = 0; e < F::kPuts; e++) {
      const At to = at(e);
      if (!to.exists) continue;
      float value = total(sums, to.sum);
      if (place.gated()) {
        value = silu(value) * total(sums, to.sum + F::kSums / 2);
      } else {
        if (product.bias != nullptr) value += bias[e];
        value = activated(value, product.activation);
        if (product.residual != nullptr) value += residual[e];
      }
      product.y[static_cast<int64_t>(to.row) * product.out + to.o] = value;
    }
  }
};

}  // namespace graft::gpu
