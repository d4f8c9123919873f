// The ring of stages in shared memory through which weights and rows come to wgmma: one warp orders copies, the
// warpgroups multiply what is there.
#pragma once
#include "hopper.h"
#include "wgmma_forms.h"

namespace graft::gpu {

constexpr int32_t kMultipliers = 256, kBlockThreads = kMultipliers + 128, kAlign = 1024;

/// A stage holds the weights of one chunk, then its rows in pieces of 4 KiB.
constexpr int32_t stage_bytes(int32_t rows) { return kWeightBytes + rows * kSquare * 2; }
#if defined(GRAFT_SM90A)

constexpr int32_t kPieceRows = 32, kPieceBytes = kPieceRows * kSquare * 2, kSquareBytes = kSquareElements * 2;

/// The ring of stages and its barriers, and how far one thread is in it.
template <int32_t Stages, int32_t StageBytes>
struct Ring {
  static constexpr int32_t kStages = Stages;
  uint32_t stages;
  int32_t at = 0;
  uint32_t round = 0;
  bool given_up = false;

  __device__ __forceinline__ Ring() { stages = (shared_address(shared_bytes()) + kAlign - 1) / kAlign * kAlign; }
  __device__ __forceinline__ uint32_t full(int32_t s) const { return stages + Stages * StageBytes + 8 * s; }
  __device__ __forceinline__ uint32_t empty(int32_t s) const { return full(s + Stages); }
  __device__ __forceinline__ uint32_t stage(int32_t s) const { return stages + s * StageBytes; }
  /// The ring's memory once it is free, and what lies behind it.
  __device__ __forceinline__ float4* begin() const { return static_cast<float4*>(__cvta_shared_to_generic(stages)); }
  __device__ __forceinline__ float4* rest() const {
    return static_cast<float4*>(__cvta_shared_to_generic(full(2 * Stages)));
  }
  /// One thread, before all others go on.
  __device__ __forceinline__ void open(uint32_t releases) const {
    for (int32_t s = 0; s < Stages; s++) {
      barrier_init(full(s), 1);
      barrier_init(empty(s), releases);
    }
    barrier_init_fence();
  }
  __device__ __forceinline__ void advance() {
    if (++at == Stages) at = 0, round ^= 1;
  }
  __device__ __forceinline__ void wait_full(int32_t* stuck) { wait(full(at), round, stuck); }
  __device__ __forceinline__ void wait_empty(int32_t* stuck) { wait(empty(at), round ^ 1, stuck); }
  /// All lanes of the warp are done with the stage, which Sharing blocks of the cluster fill together.
  template <int32_t Sharing>
  __device__ __forceinline__ void release() const {
    __syncwarp();
    const int32_t lane = threadIdx.x % kWarp;
    if (Sharing == 1 && lane == 0) barrier_arrive(empty(at));
    if (Sharing > 1 && lane < Sharing) barrier_arrive_at(empty(at), lane);
  }

 private:
  /// A wait has an end, so that a device on which copies do not arrive is found out instead of hanging.
  __device__ __forceinline__ void wait(uint32_t barrier, uint32_t parity, int32_t* stuck) {
    constexpr int32_t kTries = 64, kTests = 1 << 26;
    int32_t tries = 0;
    while (!given_up) {
      if (tries < kTries ? barrier_try(barrier, parity) : barrier_test(barrier, parity)) break;
      if (++tries < kTests) continue;
      if (stuck == nullptr) __trap();
      *stuck = 1;
      given_up = true;
    }
    __syncwarp();
  }
};

/// The copying warp: fills the ring with chunks [begin, end) of a tile. Lanes 0 to 7 bring a tile of weights each, the
/// next ones pieces of rows, which the blocks of a cluster share among them. fresh: nothing was in the ring yet.
template <int32_t Rows, int32_t Sharing, class R>
__device__ __forceinline__ void fill(R& ring, const ManyRows& plan, const OutputBlock& block, int32_t row_tile,
                                     int32_t begin, int32_t end, bool fresh, int32_t* stuck) {
  constexpr int32_t kPieces = Rows / kPieceRows, kOwn = kPieces / Sharing;
  constexpr uint16_t kAllBlocks = (1 << Sharing) - 1;
  const int32_t lane = threadIdx.x % kWarp;
  const unsigned char* from;
  int32_t to, bytes, step;
  if (lane < kTileWeights) {
    bytes = step = kWeightBytes / kTileWeights;
    to = lane * bytes;
    from = reinterpret_cast<const unsigned char*>(block.weights(lane, plan.chunks));
  } else {
    const int32_t own = min(lane - kTileWeights, kOwn - 1);
    const int32_t piece = Sharing == 1 ? own : static_cast<int32_t>(cluster_rank()) * kOwn + own;
    const int32_t square = min(row_tile * (Rows / kSquare) + piece / 2, (plan.N + kSquare - 1) / kSquare - 1);
    bytes = kPieceBytes, step = kSquareBytes;
    to = kWeightBytes + piece * kPieceBytes;
    from = reinterpret_cast<const unsigned char*>(plan.rows) +
           static_cast<int64_t>(square) * plan.chunks * kSquareBytes + piece % 2 * kPieceBytes;
  }
  from += static_cast<int64_t>(begin) * step;
  const bool weights = lane < kTileWeights, rows = !weights && lane < kTileWeights + kOwn;
  const auto expect = [&](int32_t stage) {
    if (lane == 0) barrier_expect(ring.full(stage), stage_bytes(Rows));
    __syncwarp();
  };
  const auto copy = [&](int32_t stage) {
    if (weights || (Sharing == 1 && rows))
      copy_bulk(ring.stage(stage) + to, from, bytes, ring.full(stage));
    else if (rows)
      copy_bulk_to(ring.stage(stage) + to, from, bytes, ring.full(stage), kAllBlocks);
    from += step;
  };
  if (fresh) {  // weights need not wait for the kernel before
    const int32_t ahead = min(R::kStages, end - begin);
    for (int32_t s = 0; s < ahead; s++) {
      expect(s);
      if (weights) copy(s);
    }
    depend_wait();
    __syncwarp();
    for (int32_t s = 0; s < ahead; s++) {
      if (rows) copy(s);
      ring.advance();
    }
    begin += ahead;
  }
  for (int32_t c = begin; c < end; c++) {
    ring.wait_empty(stuck);
    expect(ring.at);
    copy(ring.at);
    ring.advance();
  }
}

/// A multiplying warp: adds the next chunk of the ring to the sums, or begins them with it. While it fetches weights to
/// registers the other warpgroup multiplies.
template <int32_t Rows, int32_t Sharing, class R>
__device__ __forceinline__ void multiply(R& ring, float (&sums)[Rows / 8][4], bool begins, int32_t* stuck) {
  const int32_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  ring.wait_full(stuck);
  const uint32_t weights = ring.stage(ring.at) + weight_place(warp, 0, lane);
  const uint64_t rows = rows_descriptor(ring.stage(ring.at) + kWeightBytes);
  uint4 a[kChunkTiles];
#pragma unroll
  for (int32_t k = 0; k < kChunkTiles; k++) a[k] = shared_load(weights + weight_place(0, k, 0));
  wgmma_fence();
#pragma unroll
  for (int32_t k = 0; k < kChunkTiles; k++) wgmma(sums, a[k], rows + 2 * k, k > 0 || !begins);
  wgmma_commit();
  wgmma_wait(sums);
  ring.template release<Sharing>();
  ring.advance();
}

#endif

}  // namespace graft::gpu
