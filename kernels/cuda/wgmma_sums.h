// The kernels of products of many rows on wgmma: weights go from shared memory to registers as they lie packed, rows
// are read where they stand. One warp orders copies, two warpgroups multiply 64 outputs each. A block goes through
// tiles (whole sums), or a cluster of eight blocks takes a slice each of one tile where tiles are few. Adds in the
// order of few_rows.
#pragma once
#include "wgmma_ring.h"

namespace graft::gpu {
namespace {

/// What is kept of a gated tile while its halves are exchanged.
constexpr int32_t kept_bytes(int32_t rows) { return rows * 256; }
constexpr int32_t whole_stages(int32_t rows) { return rows == 192 ? 4 : rows == 128 ? 5 : 6; }
constexpr int32_t whole_bytes(int32_t rows) {
  return kAlign + whole_stages(rows) * (stage_bytes(rows) + 16) + kept_bytes(rows);
}
constexpr int32_t slice_stages(int32_t rows) { return rows == 128 ? 3 : 4; }
constexpr int32_t slice_bytes(int32_t rows) { return kAlign + slice_stages(rows) * (stage_bytes(rows) + 16); }

#if defined(GRAFT_SM90A)

template <int32_t Tiles>
__device__ __forceinline__ void add(float (&totals)[Tiles][4], const float (&sums)[Tiles][4]) {
#pragma unroll
  for (int32_t j = 0; j < Tiles; j++)
#pragma unroll
    for (int32_t i = 0; i < 4; i++) totals[j][i] += sums[j][i];
}

/// Writes a tile's sums by way of shared memory, half of the rows at a time. Of a gated tile the first warpgroup has
/// the gate, the second what it gates, and they take turns.
template <int32_t Rows>
__device__ __forceinline__ void put_tile(const ManyRows& plan, const OutputBlock& block, int32_t row_tile,
                                         const float (&totals)[Rows / 8][4], float4* kept) {
  constexpr int32_t kHalf = Rows / 16, kGroup = kMultipliers / 2;
  const int32_t group = threadIdx.x / kGroup, place = threadIdx.x % kGroup;
  const int32_t output = block.output(threadIdx.x / kWarp), step = block.gated() ? 2 : 1;
#pragma unroll
  for (int32_t half = 0; half < 2; half++) {
    if (block.gated()) named_barrier(1, kMultipliers);  // what was kept before is read
#pragma unroll
    for (int32_t j = 0; j < kHalf; j++) {
      const auto& t = totals[half * kHalf + j];
      kept[j * kMultipliers + threadIdx.x] = make_float4(t[0], t[1], t[2], t[3]);
    }
    if (block.gated()) named_barrier(1, kMultipliers);
#pragma unroll 1
    for (int32_t j = block.gated() ? group : 0; j < kHalf; j += step) {
      const float4 sum = kept[j * kMultipliers + (block.gated() ? place : threadIdx.x)];
      float v[4] = {sum.x, sum.y, sum.z, sum.w};
      if (block.gated()) gate(v, kept[j * kMultipliers + kGroup + place]);
      put_sums(plan, block, output, row_tile * Rows + (half * kHalf + j) * 8, v);
    }
  }
}

#endif

/// Whole sums: each cluster goes through tiles of Cluster blocks of outputs by the same rows.
template <int32_t Rows, int32_t Cluster>
__global__ void __launch_bounds__(kBlockThreads, 1) whole_sums(const __grid_constant__ ManyRows plan, int32_t* stuck) {
#if defined(GRAFT_SM90A)
  Ring<whole_stages(Rows), stage_bytes(Rows)> ring;
  const int32_t wide_blocks = (plan.first_block[plan.count] + Cluster - 1) / Cluster;
  const int32_t tiles = wide_blocks * plan.row_tiles, step = gridDim.x / Cluster, first = blockIdx.x / Cluster;
  const int32_t rank = Cluster == 1 ? 0 : cluster_rank();
  if (threadIdx.x == 0) ring.open(Cluster * kMultipliers / kWarp);
  __syncthreads();
  if (Cluster > 1) cluster_barrier();
  if (threadIdx.x >= kMultipliers) {
    give_registers<40>();
    if (threadIdx.x < kMultipliers + kWarp) {
      for (int32_t at = first; at < tiles; at += step) {
        int32_t wide_block, row_tile;
        place_tile(plan, at, wide_blocks, wide_block, row_tile);
        fill<Rows, Cluster>(ring, plan, OutputBlock(plan, wide_block * Cluster + rank), row_tile, 0, plan.chunks,
                            at == first, stuck);
      }
      depend_launch();
    } else {
      depend_wait();
    }
    __syncwarp();
  } else {
    take_registers<232>();
    depend_wait();
    float sums[Rows / 8][4] = {};
    for (int32_t at = first; at < tiles; at += step) {
      int32_t wide_block, row_tile;
      place_tile(plan, at, wide_blocks, wide_block, row_tile);
      float totals[Rows / 8][4] = {};
      Slices slices(plan.chunks);
      bool begins = true;
      for (int32_t c = 0; c < plan.chunks; c++) {
        if (slices.begins(c)) {
          add(totals, sums);
          begins = true;
        }
        multiply<Rows, Cluster>(ring, sums, begins, stuck);
        begins = false;
      }
      add(totals, sums);
      put_tile<Rows>(plan, OutputBlock(plan, wide_block * Cluster + rank), row_tile, totals, ring.rest());
    }
  }
  if (Cluster > 1) cluster_barrier();  // nobody writes to, or arrives at, a block that has ended
#endif
}

/// One tile by a cluster of eight blocks, block r of which sums slice r; then each adds the slices of an eighth of it.
template <int32_t Rows>
__global__ void __launch_bounds__(kMultipliers, 2) slice_sums(const __grid_constant__ ManyRows plan, int32_t* stuck) {
#if defined(GRAFT_SM90A)
  constexpr int32_t kStages = slice_stages(Rows);
  Ring<kStages, stage_bytes(Rows)> ring;
  static_assert(Rows * kTileOutputs * 4 <= slice_stages(Rows) * stage_bytes(Rows), "the sums of a tile fit the ring");
  int32_t wanted, row_tile;
  place_tile(plan, blockIdx.x / kSlices, plan.first_block[plan.count], wanted, row_tile);
  const OutputBlock block(plan, wanted);
  const int32_t rank = cluster_rank(), tiles = plan.chunks * kChunkTiles;
  const int32_t begin = slice_begin(rank, tiles) / kChunkTiles, end = slice_begin(rank + 1, tiles) / kChunkTiles;
  if (threadIdx.x == 0) ring.open(kMultipliers / kWarp);
  __syncthreads();
  float4* kept = ring.begin();  // [8 rows][thread]
  // The first warp orders copies beside its work: a stage is filled anew one chunk after it was read.
  auto filling = ring;
  const bool fills = threadIdx.x < kWarp;
  if (fills)
    fill<Rows, 1>(filling, plan, block, row_tile, begin, min(begin + kStages, end), true, stuck);
  else
    depend_wait();
  float sums[Rows / 8][4] = {};
  for (int32_t c = begin; c < end; c++) {
    multiply<Rows, 1>(ring, sums, c == begin, stuck);
    const int32_t next = c - 1 + kStages;
    if (fills && c > begin && next < end) fill<Rows, 1>(filling, plan, block, row_tile, next, next + 1, false, stuck);
  }
  depend_launch();
  __syncthreads();  // the ring is free
#pragma unroll
  for (int32_t j = 0; j < Rows / 8; j++)
    kept[j * kMultipliers + threadIdx.x] = make_float4(sums[j][0], sums[j][1], sums[j][2], sums[j][3]);
  cluster_barrier();
  constexpr int32_t kOwn = Rows / 8 / kSlices, kGroup = kMultipliers / 2;
  const auto total = [&](int32_t j, int32_t thread, float(&v)[4]) {
    v[0] = v[1] = v[2] = v[3] = 0;
#pragma unroll
    for (int32_t s = 0; s < kSlices; s++) {
      const float4 part = cluster_load(ring.stages + (j * kMultipliers + thread) * sizeof(float4), s);
      v[0] += part.x, v[1] += part.y, v[2] += part.z, v[3] += part.w;
    }
  };
  const int32_t place = block.gated() ? threadIdx.x % kGroup : threadIdx.x, step = block.gated() ? 2 : 1;
  for (int32_t j = rank * kOwn + (block.gated() ? threadIdx.x / kGroup : 0); j < (rank + 1) * kOwn; j += step) {
    float v[4];
    total(j, place, v);
    if (block.gated()) {
      float up[4];
      total(j, place + kGroup, up);
      gate(v, make_float4(up[0], up[1], up[2], up[3]));
    }
    put_sums(plan, block, block.output(place / kWarp), row_tile * Rows + j * 8, v);
  }
  cluster_barrier();  // a block's sums stay until all have read them
#endif
}

using Kernel = void (*)(ManyRows, int32_t*);
Kernel kernel_of(const WgmmaForm& form) {
  if (form.slices) return form.rows == 128 ? slice_sums<128> : slice_sums<64>;
  if (form.cluster == 2)
    return form.rows == 192 ? whole_sums<192, 2> : form.rows == 128 ? whole_sums<128, 2> : whole_sums<64, 2>;
  return form.rows == 192 ? whole_sums<192, 1> : form.rows == 128 ? whole_sums<128, 1> : whole_sums<64, 1>;
}
int32_t bytes_of(const WgmmaForm& form) { return form.slices ? slice_bytes(form.rows) : whole_bytes(form.rows); }
int32_t threads_of(const WgmmaForm& form) { return form.slices ? kMultipliers : kBlockThreads; }

/// Orders the tiles of a product for this form; its blocks on a device of `units` multiprocessors.
int32_t blocks_of(ManyRows& plan, const WgmmaForm& form, int32_t units) {
  plan.row_tiles = blocks(plan.N, form.rows);
  plan.band = blocks(plan.row_tiles, blocks(plan.row_tiles, 12));
  const int32_t out_blocks = plan.first_block[plan.count];
  if (form.slices) return out_blocks * plan.row_tiles * kSlices;
  const int32_t tiles = blocks(out_blocks, form.cluster) * plan.row_tiles, room = units / form.cluster;
  return (tiles < room ? tiles : room) * form.cluster;
}

}  // namespace

}  // namespace graft::gpu
