// The symbol table of kernels/include/graft.h, in the header's order, and the only place that opens a kernel library.
// Knows C types and nothing of shapes. test/ops/abi.test.ts compares it with the header, name by name.
import { dlopen } from "bun:ffi";

/** GRAFT_ABI_VERSION of the header. */
export const ABI_VERSION = 2;

const p = "ptr";
const i = "i32";
const u = "u64";
const f = "f32";
const d = "f64";

/** C types of every function: arguments in order, result. */
export const symbols = {
  graft_abi_version: { args: [], returns: i },
  graft_last_error: { args: [], returns: "cstring" },
  graft_init: { args: [i], returns: i },
  graft_device_info: { args: [p, i], returns: i },
  graft_alloc: { args: [u], returns: p },
  graft_free: { args: [p], returns: "void" },
  graft_host_alloc: { args: [u], returns: p },
  graft_host_free: { args: [p], returns: "void" },
  graft_upload: { args: [p, p, u], returns: i },
  graft_download: { args: [p, p, u], returns: i },
  graft_copy: { args: [p, p, u], returns: i },
  graft_zero: { args: [p, u], returns: i },
  graft_convert: { args: [p, p, i, i, u], returns: i },
  graft_fill_random: { args: [p, u, i, i, f], returns: i },
  graft_linear_packed_bytes: { args: [i, i, i], returns: d },
  graft_linear_pack: { args: [p, p, i, i, i], returns: i },
  graft_linear: { args: [p, p, p, p, p, i, i, i, i], returns: i },
  graft_matmul_nt: { args: [p, p, p, p, i, i, i, i], returns: i },
  graft_matmul_nn: { args: [p, p, p, i, i, i, i], returns: i },
  graft_matmul_tn: { args: [p, p, p, i, i, i, i], returns: i },
  graft_sum_rows: { args: [p, p, i, i, i], returns: i },
  graft_embedding: { args: [p, p, p, i, i, i, i, i], returns: i },
  graft_embedding_backward: { args: [p, p, p, i, i, i], returns: i },
  graft_gather_rows: { args: [p, p, p, i, i], returns: i },
  graft_scatter_rows: { args: [p, p, p, i, i], returns: i },
  graft_add: { args: [p, p, p, u], returns: i },
  graft_axpy: { args: [p, p, u, f], returns: i },
  graft_rms_norm: { args: [p, p, p, i, i, f], returns: i },
  graft_rms_norm_backward: { args: [p, p, p, p, p, i, i, f, i], returns: i },
  graft_layer_norm: { args: [p, p, p, p, i, i, f], returns: i },
  graft_layer_norm_backward: { args: [p, p, p, p, p, p, i, i, f, i], returns: i },
  graft_gated_rms_norm: { args: [p, p, p, p, i, i, f], returns: i },
  graft_gated_rms_norm_backward: { args: [p, p, p, p, p, p, p, i, i, f], returns: i },
  graft_l2_norm: { args: [p, p, i, i, f], returns: i },
  graft_l2_norm_backward: { args: [p, p, p, i, i, f], returns: i },
  graft_silu: { args: [p, p, u], returns: i },
  graft_silu_backward: { args: [p, p, p, u], returns: i },
  graft_silu_mul: { args: [p, p, p, u], returns: i },
  graft_silu_mul_backward: { args: [p, p, p, p, p, u], returns: i },
  graft_gelu_tanh: { args: [p, p, u], returns: i },
  graft_gelu_tanh_backward: { args: [p, p, p, u], returns: i },
  graft_rope_table: { args: [p, p, i, i], returns: i },
  graft_rope: { args: [p, p, p, p, i, i, i, i, i], returns: i },
  graft_kv_write: { args: [p, p, p, p, p, i, i, i, i, i], returns: i },
  graft_attention: { args: [p, p, p, p, p, p, p, p, i, i, i, i, i, i, i, i, f], returns: i },
  graft_attention_train: { args: [p, p, p, p, p, p, i, i, i, i, i, f], returns: i },
  graft_attention_backward: { args: [p, p, p, p, p, p, p, p, p, p, i, i, i, i, i, f], returns: i },
  graft_short_conv: { args: [p, p, p, p, p, p, p, i, i, i, i, u, i], returns: i },
  graft_short_conv_backward: { args: [p, p, p, p, p, p, p, p, i, i, i, i, i], returns: i },
  graft_dynamic_conv: { args: [p, p, p, p, p, p, i, i, i, i, u], returns: i },
  graft_dynamic_conv_backward: { args: [p, p, p, p, p, p, i, i, i, i], returns: i },
  graft_gla_gate: { args: [p, p, u, f], returns: i },
  graft_gla_gate_backward: { args: [p, p, p, u, f], returns: i },
  graft_gdn_gate: { args: [p, p, p, p, p, p, i, i, f], returns: i },
  graft_gdn_gate_backward: { args: [p, p, p, p, p, p, p, p, p, p, i, i, f], returns: i },
  graft_gla_state_floats: { args: [i, i, i, i, i], returns: d },
  graft_gla: { args: [p, p, p, p, p, p, p, p, p, i, i, i, i, i, i, i, i, u, f], returns: i },
  graft_gla_state_read: { args: [p, p, i, i, i, i, i, i], returns: i },
  graft_gdn_state_floats: { args: [i, i, i, i, i, i], returns: d },
  graft_gdn: { args: [p, p, p, p, p, p, p, p, p, p, i, i, i, i, i, i, i, i, u, f], returns: i },
  graft_gdn_state_read: { args: [p, p, i, i, i, i, i, i, i], returns: i },
  graft_projections: { args: [p, i, p, p, p, i, i, i, f], returns: i },
  graft_gated_linear: { args: [p, p, p, p, p, i, i, i, i, f], returns: i },
  graft_attention_step: {
    args: [p, p, p, p, p, p, p, p, p, p, p, p, p, i, i, i, i, i, i, i, i, i, i, f, f],
    returns: i,
  },
  graft_gla_step: { args: [p, p, p, p, p, p, p, p, p, p, p, p, i, i, u], returns: i },
  graft_gdn_step: { args: [p, p, p, p, p, p, p, p, p, p, p, p, p, p, i, i, u], returns: i },
  graft_gla_train_floats: { args: [i, i, i, i, i, i], returns: d },
  graft_gla_train: { args: [p, p, p, p, p, p, p, p, p, i, i, i, i, i, i, f], returns: i },
  graft_gla_backward: { args: [p, p, p, p, p, p, p, p, p, p, p, p, p, p, i, i, i, i, i, i, f], returns: i },
  graft_gdn_train_floats: { args: [i, i, i, i, i, i], returns: d },
  graft_gdn_train: { args: [p, p, p, p, p, p, p, p, p, p, i, i, i, i, i, i, f], returns: i },
  graft_gdn_backward: { args: [p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, p, i, i, i, i, i, i, f], returns: i },
  graft_cross_entropy: { args: [p, p, p, p, i, i, f], returns: i },
  graft_log_prob: { args: [p, p, p, p, i, i], returns: i },
  graft_top_k: { args: [p, p, p, p, i, i, i], returns: i },
  graft_mse: { args: [p, p, p, p, u, i], returns: i },
  graft_sum_squares: { args: [p, p, u, i], returns: i },
  graft_adamw: { args: [p, p, p, p, p, u, i, f, f, f, f, f, f], returns: i },
  graft_adjust_logits: { args: [p, p, p, p, p, i, i, i], returns: i },
  graft_sample: { args: [p, p, p, p, i, i], returns: i },
  graft_record_begin: { args: [], returns: i },
  graft_record_end: { args: [], returns: p },
  graft_replay: { args: [p], returns: i },
  graft_recording_free: { args: [p], returns: "void" },
  graft_download_begin: { args: [p, p, u, i], returns: i },
  graft_download_wait: { args: [i], returns: i },
  graft_advance: { args: [p, p, p, p, i, i], returns: i },
  graft_put: { args: [p, p, i, i], returns: i },
  graft_bench_read: { args: [p, u, i], returns: d },
  graft_bench_flops: { args: [i, d], returns: d },
} as const;

/** An opened kernel library: one callable per symbol. Pointers are plain numbers. */
export type KernelLibrary = ReturnType<typeof openLibrary>;

/** Opens the shared library at `path` and binds every symbol. @throws if a symbol is missing. */
export function openLibrary(path: string) {
  return dlopen(path, symbols).symbols;
}
