// Causal softmax attention over the paged cache: writing keys and values, and which kernels take which rows.
#include <cstdlib>
#include <cstring>

#include "attention.h"
#include "host.h"

namespace graft::gpu {
namespace {

/// One block a row.
__global__ void kv_write(void* k_cache, void* v_cache, const float* k, const float* v, const int32_t* slots,
                         int32_t Hkv, int32_t D, int32_t page_size, int32_t dtype, Report* report) {
  const int32_t row = blockIdx.x, slot = slots[row];
  if (slot < 0) {
    if (threadIdx.x == 0) complain(report, kIndex, row, slot, 0x7fffffff);
    return;
  }
  const int64_t page = slot / page_size, offset = slot % page_size;
  for (int32_t at = threadIdx.x; at < Hkv * D; at += blockDim.x) {
    const int64_t to = ((page * Hkv + at / D) * page_size + offset) * D + at % D;
    const int64_t from = static_cast<int64_t>(row) * Hkv * D + at;
    if (dtype == GRAFT_F32) {
      static_cast<float*>(k_cache)[to] = k[from];
      static_cast<float*>(v_cache)[to] = v[from];
    } else {
      static_cast<uint16_t*>(k_cache)[to] = to_bf16(k[from]);
      static_cast<uint16_t*>(v_cache)[to] = to_bf16(v[from]);
    }
  }
}

/// Whether a block may have the shared memory that heads of D take.
bool has_room(int32_t D) {
#if defined(GRAFT_SIMT)
  return room_of_few(D) <= 227 << 10;
#else
  static const int32_t bytes = [] {
    int value = 0;
    cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
    return value;
  }();
  return static_cast<int64_t>(room_of_few(D)) <= bytes;
#endif
}

/// GRAFT_ATTENTION=plain in the environment: no tensor cores.
bool set_to_plain() {
  const char* setting = std::getenv("GRAFT_ATTENTION");
  return setting != nullptr && std::strcmp(setting, "plain") == 0;
}
const bool all_plain = set_to_plain();

/// Bits depend on which kernels a row meets: the choice knows the layer and the device, not the batch.
bool on_tensor_cores(const Attention& a, int32_t D, int32_t kv_dtype) {
  return kv_dtype == GRAFT_BF16 && (D == 32 || D == 64 || D == 128) && a.scale > 0 && has_room(D) && !all_plain;
}

}  // namespace

bool turns_queries(const Attention& a, int32_t D, int32_t kv_dtype) { return on_tensor_cores(a, D, kv_dtype); }

bool takes_new_keys(const Attention& a, int32_t D, int32_t kv_dtype) {
  return on_tensor_cores(a, D, kv_dtype) && a.one_each;
}

int32_t attend(const char* op, const Attention& a, int32_t D, int32_t kv_dtype) {
  if (!on_tensor_cores(a, D, kv_dtype)) {
    GRAFT_TRY(attend_plain(a, D, kv_dtype));
    return launched(op);
  }
  // How the rows part among the sequences is known to the device alone.
  const int32_t group = a.Hq / a.Hkv;
  if (a.S > 1 || decodes(a.N, group)) GRAFT_TRY(attend_few(a, D));
  if (!a.one_each && !decodes(a.N, group)) GRAFT_TRY(attend_many(a, D));
  return launched(op);
}

int32_t check_sizes(const char* op, int32_t S, int32_t N, int32_t Hq, int32_t Hkv, int32_t D, int32_t table_stride,
                    int32_t page_size, int32_t kv_dtype) {
  GRAFT_CHECK(Hkv > 0 && Hq > 0 && Hq % Hkv == 0, "%s: %d query heads over %d key/value heads", op, Hq, Hkv);
  GRAFT_CHECK(D > 0 && D % 8 == 0 && D <= 256, "%s: D is %d, expected a multiple of 8 up to 256", op, D);
  GRAFT_CHECK(page_size > 0, "%s: page_size is %d, expected above 0", op, page_size);
  GRAFT_CHECK(kv_dtype == GRAFT_F32 || kv_dtype == GRAFT_BF16, "%s: kv_dtype is %d, expected 0 or 1", op, kv_dtype);
  GRAFT_CHECK(S >= 0 && N >= 0, "%s: S is %d and N is %d, expected neither below 0", op, S, N);
  GRAFT_CHECK(table_stride > 0, "%s: table_stride is %d, expected above 0", op, table_stride);
  return GRAFT_OK;
}

}  // namespace graft::gpu

using namespace graft::gpu;

extern "C" int32_t graft_kv_write(void* k_cache, void* v_cache, const float* k, const float* v, const int32_t* slots,
                                  int32_t N, int32_t Hkv, int32_t D, int32_t page_size, int32_t kv_dtype) {
  GRAFT_CHECK(k_cache && v_cache && k && v && slots, "kv_write: null pointer");
  GRAFT_CHECK(N >= 0 && Hkv > 0 && D > 0 && page_size > 0, "kv_write: N %d, Hkv %d, D %d, page_size %d out of range", N,
              Hkv, D, page_size);
  GRAFT_CHECK(D % 8 == 0 && D <= 256, "kv_write: D is %d, expected a multiple of 8 up to 256", D);
  GRAFT_CHECK(kv_dtype == GRAFT_F32 || kv_dtype == GRAFT_BF16, "kv_write: kv_dtype is %d, expected 0 or 1", kv_dtype);
  if (N == 0) return GRAFT_OK;
  GRAFT_LAUNCH(kv_write, dim3(N), kThreads, 0, k_cache, v_cache, k, v, slots, Hkv, D, page_size, kv_dtype, report());
  return launched("kv_write");
}

extern "C" int32_t graft_attention(float* o, const float* q, const void* k_cache, const void* v_cache,
                                   const int32_t* seq_start, const int32_t* start_pos, const int32_t* table_rows,
                                   const int32_t* page_table, int32_t table_stride, int32_t S, int32_t N, int32_t Hq,
                                   int32_t Hkv, int32_t D, int32_t page_size, int32_t kv_dtype, float scale) {
  GRAFT_CHECK(o && q && k_cache && v_cache && seq_start && start_pos && table_rows && page_table,
              "attention: null pointer");
  GRAFT_TRY(check_sizes("attention", S, N, Hq, Hkv, D, table_stride, page_size, kv_dtype));
  if (N == 0 || S == 0) return GRAFT_OK;
  const Attention a{.o = o,
                    .q = q,
                    .k = nullptr,
                    .v = nullptr,
                    .k_cache = const_cast<void*>(k_cache),
                    .v_cache = const_cast<void*>(v_cache),
                    .q_norm = nullptr,
                    .k_norm = nullptr,
                    .rope = nullptr,
                    .seq_start = seq_start,
                    .start_pos = start_pos,
                    .table_rows = table_rows,
                    .page_table = page_table,
                    .table_stride = table_stride,
                    .S = S,
                    .N = N,
                    .Hq = Hq,
                    .Hkv = Hkv,
                    .page = PageSize::of(page_size),
                    .one_each = N == S,
                    .longest = positions_of(table_stride, page_size),
                    .norm_eps = 0,
                    .scale = scale * kLog2E,
                    .report = report()};
  return attend("attention", a, D, kv_dtype);
}
