// Products of few rows. A block has eight warps, one for each slice of the inputs, and takes groups of output tiles in
// turn; each lane copies the weights that it multiplies into a ring of its own in shared memory, several stages ahead
// and on from one group to the next. It starts early (device.h): the ring fills while the kernel before drains, and the
// next kernel may start as soon as the last weights are on their way.
#include "few_rows.h"
#include "many_rows.h"

namespace graft::gpu {
namespace {

constexpr int32_t kRowTile = 8, kBlock = kSlices * kWarp;
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
  static constexpr int32_t kStages = RowTiles == 2 ? 4 : 5;
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

template <int32_t RowTiles, int32_t Group, int32_t Own>
__global__ void __launch_bounds__(kBlock, RowTiles < 4 ? 2 : 1) few_rows(const __grid_constant__ FewRows plan) {
  using F = Form<RowTiles, Group, Own>;
  float* sums_of_slices = reinterpret_cast<float*>(shared_bytes() + F::kRingBytes);
  uint2* own_rows = reinterpret_cast<uint2*>(shared_bytes() + F::kFixedBytes);
  Stream<RowTiles, Group, Own> stream(plan);
  stream.fill();
  if constexpr (Own > 0) {
    NormedRows<Own> rows{plan.x, plan.norm, plan.N, plan.in, stream.tiles * kTile, {}, {}, {}};
    rows.prefetch();
    depend_wait();
    rows.measure(sums_of_slices);
    auto* elements = reinterpret_cast<uint16_t*>(own_rows);
    rows.put_each([&](int32_t r, int32_t c, float value) {
      const int32_t unit = (c / kTile * plan.N + r) * 4 + c % 8 / 2;
      elements[unit * 4 + c / 8 % 2 * 2 + c % 2] = static_cast<uint16_t>(to_bf16_pair(value, 0.0f));
    });
    __syncthreads();
  } else {
    depend_wait();
    stream.fill_rows();
  }
  for (int32_t group = blockIdx.x; group < stream.groups; group += gridDim.x) {
    const Puts<RowTiles, Group, Own> puts(plan, group);
    float sums[Group][RowTiles][4] = {};
    for (int32_t k = stream.begin; k < stream.end; k += F::kSteps) stream.multiply(sums, k, own_rows);
    auto* mine = reinterpret_cast<float4*>(sums_of_slices) + threadIdx.x / kWarp * (F::kSums / 4) + stream.lane;
    if (group != static_cast<int32_t>(blockIdx.x)) __syncthreads();  // all have read the sums of the group before
#pragma unroll
    for (int32_t m = 0; m < Group; m++)
#pragma unroll
      for (int32_t n = 0; n < RowTiles; n++)
        mine[(m * RowTiles + n) * kWarp] = make_float4(sums[m][n][0], sums[m][n][1], sums[m][n][2], sums[m][n][3]);
    __syncthreads();
    puts.put(sums_of_slices);
  }
}

/// A block a row, whole row tiles: rows beyond the end are zeros.
template <class Place>
__global__ void __launch_bounds__(kThreads)
    arrange(uint16_t* arranged, const float* x, RowNorm norm, int32_t N, int32_t in, int32_t padded, Place place) {
  const int32_t row = blockIdx.x;
  depend_launch();
  NormedRows<1> rows{x + static_cast<int64_t>(row) * in, norm, 1, in, padded, {}, {}, {}};
  rows.prefetch();
  depend_wait();
  if (row >= N) {
    for (int32_t c = threadIdx.x; c < padded; c += kThreads) arranged[place(row, c, in)] = 0;
    return;
  }
  rows.measure(shared<float>());
  rows.put_each([&](int32_t, int32_t c, float value) {
    arranged[place(row, c, in)] = static_cast<uint16_t>(to_bf16_pair(value, 0.0f));
  });
}

/// Where an element lies for few_rows, counted in bfloat16.
struct InTiles {
  __device__ __forceinline__ int64_t operator()(int32_t row, int32_t i, int32_t in) const {
    const int64_t tile = static_cast<int64_t>(row / kRowTile) * input_tiles(in) + i / kTile;
    return (tile * kWarp + row % kRowTile * 4 + i % 8 / 2) * 4 + i / 8 % 2 * 2 + i % 2;
  }
};
struct InSquares {
  __device__ __forceinline__ int64_t operator()(int32_t row, int32_t i, int32_t in) const {
    return arranged_index(row, i, in);
  }
};

template <class Place>
void arrange_rows(uint16_t* arranged, const float* x, const RowNorm& norm, int32_t N, int32_t rows, int32_t in) {
  GRAFT_LAUNCH_EARLY(arrange<Place>, dim3(rows), kThreads, NormedRows<1>::kScratch * sizeof(float), arranged, x, norm,
                     N, in, input_tiles(in) * kTile, Place{});
}

/// Bytes of normed rows that a block keeps, so that two blocks fit a multiprocessor: the next kernel's ring fills
/// early.
constexpr int32_t kOwnBytes = 64 << 10;

template <int32_t RowTiles, int32_t Group, int32_t Own>
void launch(FewRows& plan) {
  for (int32_t i = 0; i < plan.count; i++) {
    const Product& product = plan.products[i];
    const int32_t tiles = output_tiles(product.out), outputs = product.up != nullptr ? Group / 2 : Group;
    plan.first_group[i + 1] = plan.first_group[i] + blocks(tiles, outputs);
  }
  const int32_t groups = plan.first_group[plan.count], processors = num_multiprocessors();
  const int32_t own = Own > 0 ? plan.N * input_tiles(plan.in) * kTile * int32_t{sizeof(uint16_t)} : 0;
  const int32_t bytes = Form<RowTiles, Group, Own>::kFixedBytes + own;
  const dim3 grid(groups < processors ? groups : processors);
  GRAFT_LAUNCH_EARLY((few_rows<RowTiles, Group, Own>), grid, kBlock, bytes, plan);
}

/// The form for a number of rows: wide groups read rows less often, but there must be enough of them for the device.
void launch_form(FewRows& plan, int32_t tiles, bool gated) {
  const bool wide = tiles >= 4 * num_multiprocessors();
  if (plan.rows == nullptr) {
    if (plan.N == 1) return gated ? launch<1, 2, 1>(plan) : launch<1, 1, 1>(plan);
    return gated ? launch<1, 2, 8>(plan) : launch<1, 1, 8>(plan);
  }
  if (plan.N <= kRowTile) return launch<1, 2, 0>(plan);
  if (plan.N <= 2 * kRowTile) return wide ? launch<2, 4, 0>(plan) : launch<2, 2, 0>(plan);
  return wide ? launch<4, 4, 0>(plan) : launch<4, 2, 0>(plan);
}

}  // namespace

int32_t multiply_few_rows(const Product* products, int32_t count, const float* x, const RowNorm& norm, int32_t N,
                          int32_t in) {
  FewRows plan{};
  plan.N = N, plan.in = in, plan.x = x, plan.norm = norm;
  if (N > kRowTile || N * input_tiles(in) * kTile * int64_t{sizeof(uint16_t)} > kOwnBytes) {
    const int32_t rows = blocks(N, kRowTile) * kRowTile;
    auto* arranged = static_cast<uint16_t*>(workspace(sizeof(uint16_t) * rows * uint64_t(input_tiles(in)) * kTile));
    if (arranged == nullptr) return GRAFT_OUT_OF_MEMORY;
    arrange_rows<InTiles>(arranged, x, norm, N, rows, in);
    plan.rows = reinterpret_cast<const uint2*>(arranged);
  }
  for (int32_t first = 0; first < count; first += kMostProducts) {
    plan.count = count - first < kMostProducts ? count - first : kMostProducts;
    int32_t tiles = 0;
    bool gated = false;
    for (int32_t i = 0; i < plan.count; i++) {
      plan.products[i] = products[first + i];
      gated |= plan.products[i].up != nullptr;
      tiles += output_tiles(plan.products[i].out) * (plan.products[i].up != nullptr ? 2 : 1);
    }
    launch_form(plan, tiles, gated);
  }
  return GRAFT_OK;
}

void arrange_normed_rows(uint16_t* arranged, const float* x, const RowNorm& norm, int32_t N, int32_t in) {
  arrange_rows<InSquares>(arranged, x, norm, N, blocks(N, kSquare) * kSquare, in);
}

}  // namespace graft::gpu
