// Whether and how products of many rows go through wgmma. At start-up every form is held against the one on mma(), bit
// by bit: how the tensor cores add within an instruction is not documented, and decoding goes through mma().
#include <cstdlib>
#include <cstring>
#include <vector>

#include "host.h"
#include "wgmma_forms.h"

namespace graft::gpu {

#if defined(GRAFT_SIMT)

void prepare_wgmma() {}
const char* wgmma_state() { return nullptr; }
bool uses_wgmma() { return false; }
void multiply_on_wgmma(ManyRows& plan) { multiply_on_mma(plan); }

#else

namespace {

enum class State { kUnknown, kAbsent, kOff, kDiffers, kFails, kEqual };
State the_state = State::kUnknown;
bool pairs = true;

bool set_to(const char* name, const char* value) {
  const char* setting = std::getenv(name);
  return setting != nullptr && std::strcmp(setting, value) == 0;
}

/// Cycles that a product takes in this form, roughly: the slower of the tensor cores (2048 multiply-adds a cycle and
/// multiprocessor) and the L2 cache (about 45 bytes), for as many tiles as come one after another.
double cycles_of(const ManyRows& plan, const WgmmaForm& form) {
  const int32_t out_blocks = plan.first_block[plan.count], row_tiles = blocks(plan.N, form.rows);
  const int32_t fetched = kTileOutputs + (form.cluster == 2 ? form.rows / 2 : form.rows);
  const double arithmetic = kTileOutputs * form.rows * kSquare / 2048.0, traffic = fetched * kSquare * 2 / 45.0;
  const double chunk = 1.05 * (arithmetic > traffic ? arithmetic : traffic) + 30;
  double cycles;
  if (form.slices) {
    const int32_t turns = blocks(out_blocks * row_tiles * kSlices, num_multiprocessors());
    cycles = turns * chunk * plan.chunks / kSlices + 4000;
  } else {
    const int32_t turns = blocks(blocks(out_blocks, form.cluster) * row_tiles, num_multiprocessors() / form.cluster);
    cycles = turns * (chunk * plan.chunks + 14.0 * form.rows + 800);
  }
  const double streaming = out_blocks * double{kWeightBytes} * plan.chunks / 2700;
  return (cycles > streaming ? cycles : streaming) + cycles / 8;
}

/// Numbers of many magnitudes, so that sums in another order have other bits.
void randomize(uint16_t* to, size_t count, uint32_t seed) {
  for (size_t i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    to[i] = static_cast<uint16_t>((seed >> 16 & 0x8000) | (116 + (seed >> 20) % 14) << 7 | (seed >> 8 & 0x7f));
  }
}

/// Whether every form gives the bits of mma(): two products, one gated, of odd sizes and slices of unequal length.
State compare() {
  constexpr int32_t kN = 300, kIn = 1600, kOut = 392, kGated = 200;
  constexpr uint64_t kPlain = output_tiles(kOut) * kTile * kIn, kPair = output_tiles(kGated) * kTile * kIn;
  constexpr uint64_t kRowElements = arranged_bytes(kN, kIn) / 2, kElements = kPlain + 2 * kPair + kRowElements;
  constexpr uint64_t kAdded = kOut + kN * kOut, kResults = kN * (kOut + kGated);
  std::vector<uint16_t> data(kElements + 2 * kAdded);
  randomize(data.data(), kElements, 1);
  std::vector<float> added(kAdded), expected(kResults), actual(kResults);
  for (size_t i = 0; i < added.size(); i++) added[i] = static_cast<float>(i % 97) / 64 - 0.7f;
  std::memcpy(data.data() + kElements, added.data(), kAdded * sizeof(float));
  unsigned char* memory = nullptr;
  const size_t data_bytes = data.size() * 2, result_bytes = kResults * sizeof(float);
  cudaError_t error = cudaMalloc(reinterpret_cast<void**>(&memory), data_bytes + result_bytes + 16);
  if (error != cudaSuccess) return State::kFails;
  auto* weights = reinterpret_cast<uint16_t*>(memory);
  auto* bias = reinterpret_cast<float*>(weights + kElements);
  auto* results = reinterpret_cast<float*>(memory + data_bytes);
  auto* stuck = reinterpret_cast<int32_t*>(results + kResults);
  const Product products[] = {
      {results, weights, nullptr, bias, bias + kOut, kOut, GRAFT_GELU_TANH},
      {results + kN * kOut, weights + kPlain, weights + kPlain + kPair, nullptr, nullptr, kGated, GRAFT_IDENTITY}};
  const auto run = [&](std::vector<float>& out, const WgmmaForm* form) {
    ManyRows plan = plan_of(products, 2, weights + kPlain + 2 * kPair, kN, kIn);
    error = cudaMemsetAsync(results, 0xff, result_bytes, stream());
    if (error == cudaSuccess) error = cudaMemsetAsync(stuck, 0, sizeof *stuck, stream());
    if (form == nullptr) multiply_on_mma(plan);
    if (error == cudaSuccess) error = form == nullptr ? cudaGetLastError() : launch_form(plan, *form, stuck);
    int32_t was_stuck = 0;
    if (error == cudaSuccess)
      error = cudaMemcpyAsync(out.data(), results, result_bytes, cudaMemcpyDeviceToHost, stream());
    if (error == cudaSuccess) error = cudaMemcpyAsync(&was_stuck, stuck, 4, cudaMemcpyDeviceToHost, stream());
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream());
    return error == cudaSuccess && was_stuck == 0;
  };
  error = cudaMemcpyAsync(memory, data.data(), data_bytes, cudaMemcpyHostToDevice, stream());
  State state = error == cudaSuccess && run(expected, nullptr) ? State::kEqual : State::kFails;
  for (const WgmmaForm& form : kWgmmaForms) {
    if (state != State::kEqual) break;
    if (!run(actual, &form))
      state = State::kFails;
    else if (std::memcmp(expected.data(), actual.data(), result_bytes) != 0)
      state = State::kDiffers;
  }
  cudaGetLastError();  // a launch that was refused leaves nothing behind
  cudaFree(memory);
  return state;
}

}  // namespace

void prepare_wgmma() {
  if (the_state != State::kUnknown) return;
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  pairs = !set_to("GRAFT_WGMMA_PAIRS", "0");
  the_state = major != 9 || minor != 0 ? State::kAbsent : set_to("GRAFT_WGMMA", "0") ? State::kOff : State::kEqual;
  if (the_state != State::kEqual) return;
  for (const WgmmaForm& form : kWgmmaForms)
    if (!prepare_form(form)) the_state = State::kFails;
  if (the_state == State::kEqual) the_state = compare();
  cudaGetLastError();
}

const char* wgmma_state() {
  switch (the_state) {
    case State::kEqual:
      return "wgmma";
    case State::kOff:
      return "wgmma off";
    case State::kDiffers:
      return "wgmma differs";
    case State::kFails:
      return "wgmma fails";
    default:
      return nullptr;
  }
}

bool uses_wgmma() { return the_state == State::kEqual; }

void multiply_on_wgmma(ManyRows& plan) {
  const WgmmaForm* best = nullptr;
  double least = 0;
  for (const WgmmaForm& form : kWgmmaForms) {
    if (form.cluster == (pairs ? 1 : 2)) continue;
    const double cycles = cycles_of(plan, form);
    if (best != nullptr && cycles >= least) continue;
    best = &form;
    least = cycles;
  }
  launch_form(plan, *best, nullptr);
}

#endif

}  // namespace graft::gpu
