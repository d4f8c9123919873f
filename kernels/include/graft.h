/* graft.h: the C ABI between the TypeScript that conducts and the kernels that compute.
 *
 * Every kernel library (kernels/reference, kernels/cpu, kernels/cuda) exports all of it; kernels/cuda answers training
 * ops with GRAFT_UNSUPPORTED. Rules that hold for each function:
 *  - Arguments come in the order outputs, inputs, weights, sizes, scalars.
 *  - Pointers name memory from graft_alloc unless a name ends in _host. Matrices are row-major and dense.
 *  - An op returns 0, or a non-zero status after which graft_last_error() says why. It never exits, prints,
 *    keeps a pointer, or writes outside its outputs. On a CUDA device, where ops are queued, what is wrong with the
 *    contents of integer arrays (ids, slots, positions) shows at the next graft_download.
 *  - Activations, gradients, norm weights and biases are float32. Linear weights, embeddings and the KV cache are
 *    float32 or bfloat16 (graft_dtype). With bfloat16 linear weights the input row is rounded to bfloat16
 *    (nearest even) before the products; sums are float32.
 *  - "Ragged": S sequences lie end to end in N rows; seq_start[S+1] holds the first row of each and finally N.
 *  - A gradient documented as "+=" is added to what is there; every other output is overwritten.
 *  - Results do not depend on the number of rows in a call or on the number of threads: every sum has one order.
 * Dimensions: N rows, S sequences, C channels, V vocabulary, Hq/Hk/Hv/Hkv heads, D/Dk/Dv head sizes, W taps.
 */
#ifndef GRAFT_H
#define GRAFT_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GRAFT_ABI_VERSION 2
#define GRAFT_EXPORT __attribute__((visibility("default")))

enum graft_dtype { GRAFT_F32 = 0, GRAFT_BF16 = 1, GRAFT_F16 = 2 }; /* f16: only as a source of graft_convert */
enum graft_status { GRAFT_OK = 0, GRAFT_INVALID = 1, GRAFT_UNSUPPORTED = 2, GRAFT_OUT_OF_MEMORY = 3, GRAFT_DEVICE = 4 };
/* In place of an id where a row of logits has no answer: it holds NaN or +inf, or nothing but -inf. */
enum graft_row { GRAFT_ROW_BROKEN = -1, GRAFT_ROW_EMPTY = -2 };

/* ---- library ---- */
GRAFT_EXPORT int32_t graft_abi_version(void); /* GRAFT_ABI_VERSION of the header it was built with */
GRAFT_EXPORT const char* graft_last_error(void);
/* Call once before any op; again to change the number of threads. num_threads 0 = all cores. Fails with
 * GRAFT_UNSUPPORTED where the processor lacks the instructions this library was built for. */
GRAFT_EXPORT int32_t graft_init(int32_t num_threads);
/* Writes a JSON object (name, backend, isa, threads, features, memory) of at most capacity bytes, zero-terminated. */
GRAFT_EXPORT int32_t graft_device_info(char* json_host, int32_t capacity);

/* ---- memory ---- */
GRAFT_EXPORT void* graft_alloc(uint64_t bytes); /* 64-byte aligned, zeroed; NULL when there is none */
GRAFT_EXPORT void graft_free(void* p);
GRAFT_EXPORT void* graft_host_alloc(uint64_t bytes); /* host memory that the device can copy from and to */
GRAFT_EXPORT void graft_host_free(void* p);
GRAFT_EXPORT int32_t graft_upload(void* dst, const void* src_host, uint64_t bytes);
GRAFT_EXPORT int32_t graft_download(void* dst_host, const void* src, uint64_t bytes);
GRAFT_EXPORT int32_t graft_copy(void* dst, const void* src, uint64_t bytes);
GRAFT_EXPORT int32_t graft_zero(void* dst, uint64_t bytes);
GRAFT_EXPORT int32_t graft_convert(void* dst, const void* src, int32_t dst_dtype, int32_t src_dtype, uint64_t n);
/* n numbers of F32 or BF16, uniform in [-scale, scale): number i depends on seed and i alone and is the same in every
 * library. */
GRAFT_EXPORT int32_t graft_fill_random(void* dst, uint64_t n, int32_t dtype, int32_t seed, float scale);

/* ---- linear layers ---- */
/* Bytes of a packed [out, in] weight. The layout is the library's own; rows are padded as it likes. */
GRAFT_EXPORT double graft_linear_packed_bytes(int32_t out, int32_t in, int32_t dtype);
/* weight: row-major [out, in] of the same dtype. */
GRAFT_EXPORT int32_t graft_linear_pack(void* packed, const void* weight, int32_t out, int32_t in, int32_t dtype);
/* y[N,out] = x[N,in] Wᵀ (+ bias[out]) (+ residual[N,out]); bias and residual may be NULL; residual may be y. */
GRAFT_EXPORT int32_t graft_linear(float* y, const float* x, const void* packed, const float* bias,
                                  const float* residual, int32_t N, int32_t out, int32_t in, int32_t dtype);
/* Plain float32 products for training, W row-major [M, K]; accumulate adds to the output. */
/* y[N,M] = x[N,K] Wᵀ (+ bias[M]) */
GRAFT_EXPORT int32_t graft_matmul_nt(float* y, const float* x, const float* w, const float* bias, int32_t N, int32_t M,
                                     int32_t K, int32_t accumulate);
/* dx[N,K] = dy[N,M] W */
GRAFT_EXPORT int32_t graft_matmul_nn(float* dx, const float* dy, const float* w, int32_t N, int32_t M, int32_t K,
                                     int32_t accumulate);
/* dw[M,K] = dyᵀ x, dy[N,M], x[N,K] */
GRAFT_EXPORT int32_t graft_matmul_tn(float* dw, const float* dy, const float* x, int32_t N, int32_t M, int32_t K,
                                     int32_t accumulate);
/* db[M] = column sums of dy[N,M] */
GRAFT_EXPORT int32_t graft_sum_rows(float* db, const float* dy, int32_t N, int32_t M, int32_t accumulate);

/* ---- rows ---- */
/* y[N,C] = table[ids]; packed != 0: table is a packed linear weight [V, C] (a tied head). Ids outside 0..V-1: error. */
GRAFT_EXPORT int32_t graft_embedding(float* y, const int32_t* ids, const void* table, int32_t N, int32_t V, int32_t C,
                                     int32_t dtype, int32_t packed);
GRAFT_EXPORT int32_t graft_embedding_backward(float* dtable /* += */, const int32_t* ids, const float* dy, int32_t N,
                                              int32_t V, int32_t C);
GRAFT_EXPORT int32_t graft_gather_rows(float* y, const float* x, const int32_t* index, int32_t M, int32_t C);
GRAFT_EXPORT int32_t graft_scatter_rows(float* y, const float* x, const int32_t* index, int32_t M, int32_t C);
GRAFT_EXPORT int32_t graft_add(float* y, const float* a, const float* b, uint64_t n); /* y may be a or b */
GRAFT_EXPORT int32_t graft_axpy(float* y /* += alpha x */, const float* x, uint64_t n, float alpha);

/* ---- normalisation: N rows of C ---- */
GRAFT_EXPORT int32_t graft_rms_norm(float* y, const float* x, const float* w, int32_t N, int32_t C, float eps);
GRAFT_EXPORT int32_t graft_rms_norm_backward(float* dx, float* dw /* += */, const float* dy, const float* x,
                                             const float* w, int32_t N, int32_t C, float eps, int32_t accumulate_dx);
GRAFT_EXPORT int32_t graft_layer_norm(float* y, const float* x, const float* w, const float* b, int32_t N, int32_t C,
                                      float eps);
GRAFT_EXPORT int32_t graft_layer_norm_backward(float* dx, float* dw /* += */, float* db /* += */, const float* dy,
                                               const float* x, const float* w, int32_t N, int32_t C, float eps,
                                               int32_t accumulate_dx);
/* y = rms(x; w) ⊙ silu(gate); gate NULL: rms only. Rows are (token, head); w[C] is shared by all heads. */
GRAFT_EXPORT int32_t graft_gated_rms_norm(float* y, const float* x, const float* gate, const float* w, int32_t N,
                                          int32_t C, float eps);
GRAFT_EXPORT int32_t graft_gated_rms_norm_backward(float* dx, float* dgate, float* dw /* += */, const float* dy,
                                                   const float* x, const float* gate, const float* w, int32_t N,
                                                   int32_t C, float eps);
/* y = x / sqrt(sum x² + eps) */
GRAFT_EXPORT int32_t graft_l2_norm(float* y, const float* x, int32_t N, int32_t C, float eps);
GRAFT_EXPORT int32_t graft_l2_norm_backward(float* dx, const float* dy, const float* x, int32_t N, int32_t C,
                                            float eps);

/* ---- activations, n elements ---- */
GRAFT_EXPORT int32_t graft_silu(float* y, const float* x, uint64_t n);
GRAFT_EXPORT int32_t graft_silu_backward(float* dx, const float* dy, const float* x, uint64_t n);
GRAFT_EXPORT int32_t graft_silu_mul(float* y, const float* gate, const float* up, uint64_t n);
GRAFT_EXPORT int32_t graft_silu_mul_backward(float* dgate, float* dup, const float* dy, const float* gate,
                                             const float* up, uint64_t n);
GRAFT_EXPORT int32_t graft_gelu_tanh(float* y, const float* x, uint64_t n);
GRAFT_EXPORT int32_t graft_gelu_tanh_backward(float* dx, const float* dy, const float* x, uint64_t n);

/* ---- rotary embedding, rotated halves ---- */
/* table[P, D]: cosines of the D/2 angles, then sines, of positions 0..P-1; angle = float32 product p * inv_freq. */
GRAFT_EXPORT int32_t graft_rope_table(float* table, const float* inv_freq, int32_t P, int32_t D);
/* y, x: [N, H, D] (y may be x); direction +1 rotates, -1 rotates back (the gradient). */
GRAFT_EXPORT int32_t graft_rope(float* y, const float* x, const int32_t* positions, const float* table, int32_t N,
                                int32_t H, int32_t D, int32_t P, int32_t direction);

/* ---- softmax attention ---- */
/* Cache of one layer: pages of page_size tokens; token slot = page * page_size + offset. k, v: [N, Hkv, D]. The layout
 * inside a page is the library's own; bytes of one page of one tensor = page_size * Hkv * D * sizeof(kv_dtype). */
GRAFT_EXPORT int32_t graft_kv_write(void* k_cache, void* v_cache, const float* k, const float* v, const int32_t* slots,
                                    int32_t N, int32_t Hkv, int32_t D, int32_t page_size, int32_t kv_dtype);
/* Causal attention of new rows over the paged cache (their own k, v already written). Row i of sequence s stands at
 * position start_pos[s] + i and sees keys 0..position. page_table[table_rows[s] * table_stride + j] is the page of
 * positions j*page_size... . Keys are summed in blocks at absolute positions, ascending (one answer for any chunking).
 */
GRAFT_EXPORT int32_t graft_attention(float* o, const float* q, const void* k_cache, const void* v_cache,
                                     const int32_t* seq_start, const int32_t* start_pos, const int32_t* table_rows,
                                     const int32_t* page_table, int32_t table_stride, int32_t S, int32_t N, int32_t Hq,
                                     int32_t Hkv, int32_t D, int32_t page_size, int32_t kv_dtype, float scale);
/* Training form, no cache: ragged q[N,Hq,D], k, v[N,Hkv,D]; lse[N,Hq] is kept for the backward pass. */
GRAFT_EXPORT int32_t graft_attention_train(float* o, float* lse, const float* q, const float* k, const float* v,
                                           const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv,
                                           int32_t D, float scale);
GRAFT_EXPORT int32_t graft_attention_backward(float* dq, float* dk, float* dv, const float* d_o, const float* o,
                                              const float* lse, const float* q, const float* k, const float* v,
                                              const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv,
                                              int32_t D, float scale);

/* ---- causal depthwise convolution, W = 2..4, left context = conv state ---- */
/* y = act(sum_j w[c,j] u[t-W+1+j] + bias); silu != 0: act = silu, else identity. bias may be NULL. State of sequence s:
 * conv_state + slots[s]*state_stride floats, [W-1, C], oldest row first, advanced in place. conv_state NULL: zero left
 * context, nothing kept. */
GRAFT_EXPORT int32_t graft_short_conv(float* y, float* conv_state, const float* u, const float* w, const float* bias,
                                      const int32_t* slots, const int32_t* seq_start, int32_t S, int32_t N, int32_t C,
                                      int32_t W, uint64_t state_stride, int32_t silu);
GRAFT_EXPORT int32_t graft_short_conv_backward(float* du, float* dw /* += */, float* dbias /* +=, may be NULL */,
                                               const float* dy, const float* u, const float* w, const float* bias,
                                               const int32_t* seq_start, int32_t S, int32_t N, int32_t C, int32_t W,
                                               int32_t silu);
/* JetBlock: the kernel differs per token, kernels[N, C, W]; silu follows. */
GRAFT_EXPORT int32_t graft_dynamic_conv(float* y, float* conv_state, const float* u, const float* kernels,
                                        const int32_t* slots, const int32_t* seq_start, int32_t S, int32_t N, int32_t C,
                                        int32_t W, uint64_t state_stride);
GRAFT_EXPORT int32_t graft_dynamic_conv_backward(float* du, float* dkernels, const float* dy, const float* u,
                                                 const float* kernels, const int32_t* seq_start, int32_t S, int32_t N,
                                                 int32_t C, int32_t W);

/* ---- gates ---- */
/* a = logsigmoid(z) / normalizer */
GRAFT_EXPORT int32_t graft_gla_gate(float* a, const float* z, uint64_t n, float normalizer);
GRAFT_EXPORT int32_t graft_gla_gate_backward(float* dz, const float* da, const float* z, uint64_t n, float normalizer);
/* g = -exp(A_log) softplus(za + dt_bias); beta = beta_scale * sigmoid(zb); all [N, Hv] */
GRAFT_EXPORT int32_t graft_gdn_gate(float* g, float* beta, const float* za, const float* zb, const float* A_log,
                                    const float* dt_bias, int32_t N, int32_t Hv, float beta_scale);
GRAFT_EXPORT int32_t graft_gdn_gate_backward(float* dza, float* dzb, float* dA_log /* += */, float* ddt_bias /* += */,
                                             const float* dg, const float* dbeta, const float* za, const float* zb,
                                             const float* A_log, const float* dt_bias, int32_t N, int32_t Hv,
                                             float beta_scale);

/* ---- linear attention, serving form (block-anchored) ----
 * Per sequence and layer one state slot, at state + slots[s]*state_stride floats. Its first word is the number of
 * tokens it has seen, as int32 bits; what follows is the library's own. kernels/cpu keeps the recurrent state S0 at the
 * start of the current block of `block` tokens (cut at absolute positions) and that block so far: keys, values (gdn:
 * the solved rows u) and products of decays; S0 is written once per block. kernels/reference keeps the plain state in
 * double. Row i of sequence s stands at position start_pos[s] + i. Position 0 begins anew whatever the slot holds; any
 * other must be where the slot stands, else GRAFT_INVALID. Slots move between calls as bytes, never between libraries.
 * state_dtype GRAFT_BF16: S0, values (gla) and keys and u (gdn) are kept in bfloat16, rounded to nearest even once: S0
 * when its block is full, a row when it comes in; products and sums are float32. The reference rounds its state, rows
 * and u at the same places. Sizes and strides of slots count floats (4 bytes) for either type.
 */
GRAFT_EXPORT double graft_gla_state_floats(int32_t Hkv, int32_t Dk, int32_t Dv, int32_t block, int32_t state_dtype);
/* o[N,Hq,Dv]; q[N,Hq,Dk]; k, a[N,Hkv,Dk] (a = log decay <= 0); v[N,Hkv,Dv]. */
GRAFT_EXPORT int32_t graft_gla(float* o, float* state, const float* q, const float* k, const float* v, const float* a,
                               const int32_t* slots, const int32_t* seq_start, const int32_t* start_pos, int32_t S,
                               int32_t N, int32_t Hq, int32_t Hkv, int32_t Dk, int32_t Dv, int32_t block,
                               int32_t state_dtype, uint64_t state_stride, float scale);
/* recurrent[Hkv,Dk,Dv] = the state after `position` tokens of one slot. */
GRAFT_EXPORT int32_t graft_gla_state_read(float* recurrent, const float* slot_state, int32_t Hkv, int32_t Dk,
                                          int32_t Dv, int32_t block, int32_t state_dtype, int32_t position);
GRAFT_EXPORT double graft_gdn_state_floats(int32_t Hk, int32_t Hv, int32_t Dk, int32_t Dv, int32_t block,
                                           int32_t state_dtype);
/* o[N,Hv,Dv]; q, k[N,Hk,Dk] (already normalised); v[N,Hv,Dv]; g (log decay), beta[N,Hv]. */
GRAFT_EXPORT int32_t graft_gdn(float* o, float* state, const float* q, const float* k, const float* v, const float* g,
                               const float* beta, const int32_t* slots, const int32_t* seq_start,
                               const int32_t* start_pos, int32_t S, int32_t N, int32_t Hk, int32_t Hv, int32_t Dk,
                               int32_t Dv, int32_t block, int32_t state_dtype, uint64_t state_stride, float scale);
GRAFT_EXPORT int32_t graft_gdn_state_read(float* recurrent, const float* slot_state, int32_t Hk, int32_t Hv, int32_t Dk,
                                          int32_t Dv, int32_t block, int32_t state_dtype, int32_t position);

/* ---- steps of a layer ----
 * What serving calls: each does what the ops above, named in its comment, do one after another, and rounds where they
 * round. Structs lie in host memory and are read during the call. */
enum graft_activation { GRAFT_IDENTITY = 0, GRAFT_SILU = 1, GRAFT_GELU_TANH = 2 };
typedef struct graft_projection {
  float* y;           /* [N, out] */
  const void* packed; /* [out, in] */
  const float* bias;  /* [out], or NULL */
  int32_t out, activation;
} graft_projection; /* 32 bytes */
/* y = activation(n Wᵀ + bias) of every projection, all of one input: n = x; with norm_weight[in] n = graft_rms_norm of
 * x, with norm_bias[in] too n = graft_layer_norm. No y may be x. */
GRAFT_EXPORT int32_t graft_projections(const graft_projection* projections_host, int32_t count, const float* x,
                                       const float* norm_weight, const float* norm_bias, int32_t N, int32_t in,
                                       int32_t dtype, float eps);
/* h[N,out] = silu(n gateᵀ) ⊙ (n upᵀ), n = graft_rms_norm of x; gate and up packed [out, in]. */
GRAFT_EXPORT int32_t graft_gated_linear(float* h, const float* x, const float* norm_weight, const void* gate,
                                        const void* up, int32_t N, int32_t out, int32_t in, int32_t dtype, float eps);
/* Softmax attention from what was projected, q[N,Hq,D], k, v[N,Hkv,D]: graft_rms_norm of each head of q and k (gains
 * q_norm[D], k_norm[D]; both NULL: none), graft_rope (rope_table[P,D]; NULL: none), graft_kv_write to the pages that
 * page_table names, graft_attention. What q and k hold afterwards is undefined. No row stands at or beyond position
 * `longest`; a device sizes its launch by it. */
GRAFT_EXPORT int32_t graft_attention_step(float* o, float* q, float* k, const float* v, void* k_cache, void* v_cache,
                                          const float* q_norm, const float* k_norm, const float* rope_table,
                                          const int32_t* seq_start, const int32_t* start_pos, const int32_t* table_rows,
                                          const int32_t* page_table, int32_t table_stride, int32_t longest, int32_t S,
                                          int32_t N, int32_t Hq, int32_t Hkv, int32_t D, int32_t P, int32_t page_size,
                                          int32_t kv_dtype, float norm_eps, float scale);
typedef struct graft_conv {
  const float* weight; /* [C, W] */
  const float* bias;   /* [C], or NULL */
} graft_conv;
typedef struct graft_gla_layer {
  graft_conv q_conv, k_conv, v_conv; /* weights NULL: no convolutions */
  const float* o_norm;               /* [Dv] */
  int32_t Hq, Hkv, Dk, Dv, W, block, state_dtype;
  float gate_normalizer, norm_eps, scale;
} graft_gla_layer; /* 96 bytes */
/* y[N,Hq*Dv] = graft_gated_rms_norm of o with gate[N,Hq*Dv] (or NULL), o = graft_gla of q, k, v after their
 * graft_short_conv with silu (as they are where there is none), a = graft_gla_gate of z[N,Hkv*Dk]. The windows of
 * sequence s are at conv_state + slots[s]*state_stride: of q, of k, of v, [W-1, channels] each; conv_state is NULL
 * where there are no convolutions. What q, k, v and z hold afterwards is undefined. */
GRAFT_EXPORT int32_t graft_gla_step(float* y, float* state, float* conv_state, const graft_gla_layer* layer_host,
                                    float* q, float* k, float* v, float* z, const float* gate, const int32_t* slots,
                                    const int32_t* seq_start, const int32_t* start_pos, int32_t S, int32_t N,
                                    uint64_t state_stride);
typedef struct graft_gdn_layer {
  graft_conv q_conv, k_conv, v_conv; /* weights NULL: no convolutions */
  const float* A_log;                /* [Hv] */
  const float* dt_bias;              /* [Hv] */
  const float* o_norm;               /* [Dv] */
  int32_t Hk, Hv, Dk, Dv, W, block, state_dtype;
  float beta_scale, l2_eps, norm_eps, scale;
} graft_gdn_layer; /* 120 bytes */
/* As graft_gla_step with graft_gdn: q and k go through graft_l2_norm per head, g and beta are graft_gdn_gate of za and
 * zb [N,Hv], gate[N,Hv*Dv]. With kernels[N,Hv*Dv,W] (JetBlock) v goes through graft_dynamic_conv, and its window is all
 * that conv_state holds; else kernels is NULL. */
GRAFT_EXPORT int32_t graft_gdn_step(float* y, float* state, float* conv_state, const graft_gdn_layer* layer_host,
                                    float* q, float* k, float* v, const float* kernels, float* za, float* zb,
                                    const float* gate, const int32_t* slots, const int32_t* seq_start,
                                    const int32_t* start_pos, int32_t S, int32_t N, uint64_t state_stride);

/* ---- linear attention, training form (chunked) ----
 * workspace (graft_*_train_floats) carries what the backward call needs besides its operands: states between chunks
 * and, for gdn, the rows of the forward substitution. initial_state[S,H,Dk,Dv] NULL = zero, the same in both calls;
 * final_state, d_final, d_initial may be NULL. */
GRAFT_EXPORT double graft_gla_train_floats(int32_t N, int32_t S, int32_t Hq, int32_t Hkv, int32_t Dk, int32_t Dv);
GRAFT_EXPORT int32_t graft_gla_train(float* o, float* final_state, float* workspace, const float* q, const float* k,
                                     const float* v, const float* a, const float* initial_state,
                                     const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv,
                                     int32_t Dk, int32_t Dv, float scale);
GRAFT_EXPORT int32_t graft_gla_backward(float* dq, float* dk, float* dv, float* da, float* d_initial, float* workspace,
                                        const float* d_o, const float* d_final, const float* q, const float* k,
                                        const float* v, const float* a, const float* initial_state,
                                        const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv,
                                        int32_t Dk, int32_t Dv, float scale);
GRAFT_EXPORT double graft_gdn_train_floats(int32_t N, int32_t S, int32_t Hk, int32_t Hv, int32_t Dk, int32_t Dv);
GRAFT_EXPORT int32_t graft_gdn_train(float* o, float* final_state, float* workspace, const float* q, const float* k,
                                     const float* v, const float* g, const float* beta, const float* initial_state,
                                     const int32_t* seq_start, int32_t S, int32_t N, int32_t Hk, int32_t Hv, int32_t Dk,
                                     int32_t Dv, float scale);
GRAFT_EXPORT int32_t graft_gdn_backward(float* dq, float* dk, float* dv, float* dg, float* dbeta, float* d_initial,
                                        float* workspace, const float* d_o, const float* d_final, const float* q,
                                        const float* k, const float* v, const float* g, const float* beta,
                                        const float* initial_state, const int32_t* seq_start, int32_t S, int32_t N,
                                        int32_t Hk, int32_t Hv, int32_t Dk, int32_t Dv, float scale);

/* ---- losses and scores ---- */
/* loss[N] = -log softmax(logits)[label], 0 where label is -100; dlogits (may be NULL, may be logits) = its gradient
 * times grad_scale. */
GRAFT_EXPORT int32_t graft_cross_entropy(float* loss, float* dlogits, const float* logits, const int32_t* labels,
                                         int32_t N, int32_t V, float grad_scale);
/* logprob[N] of the given ids; argmax[N] of the rows (lowest index wins a tie), or a graft_row, and then the logprob is
 * NaN. Either output may be NULL. */
GRAFT_EXPORT int32_t graft_log_prob(float* logprob, int32_t* argmax, const float* logits, const int32_t* ids, int32_t N,
                                    int32_t V);
/* The counts[i] most likely ids of row i, lowest first among equals, and their log-probabilities: the first counts[i]
 * places of the row in ids[N,K] and logprob[N,K]; the others are not written, nor are rows of count 0 read. Where the
 * row has no answer each id is a graft_row and each logprob NaN. counts are 0 to K, K is 1 to V. */
GRAFT_EXPORT int32_t graft_top_k(int32_t* ids, float* logprob, const float* logits, const int32_t* counts, int32_t N,
                                 int32_t V, int32_t K);
/* stats[2] = {sum (y - target)², sum target²}; dy (may be NULL) = gradient of the mean squared error, or with
 * normalized != 0 of stats[0] / stats[1]. */
GRAFT_EXPORT int32_t graft_mse(double* stats, float* dy, const float* y, const float* target, uint64_t n,
                               int32_t normalized);

/* ---- optimiser ---- */
GRAFT_EXPORT int32_t graft_sum_squares(double* out, const float* x, uint64_t n, int32_t accumulate);
/* AdamW with decoupled decay: p -= lr*wd*p, then the bias-corrected step number `step` (from 1). norm_squared (may be
 * NULL) is graft_sum_squares of the whole gradient: g is scaled by min(1, max_norm / (sqrt(norm_squared) + 1e-6)). */
GRAFT_EXPORT int32_t graft_adamw(float* p, float* m, float* v, const float* g, const double* norm_squared, uint64_t n,
                                 int32_t step, float lr, float beta1, float beta2, float eps, float weight_decay,
                                 float max_norm);

/* ---- sampling ---- */
typedef struct graft_adjustment {
  int32_t id;
  float scale;      /* more than 0; a logit above 0 is divided by it, any other multiplied (a repetition penalty) */
  float add;        /* then added */
} graft_adjustment; /* 12 bytes */
/* logits[N,V] in place: row i takes entries entry_start[i] .. entry_start[i+1]-1, no id twice; then every id whose bit
 * in the row's mask is 0 gets -inf, but NaN and +inf become NaN. Mask mask_rows[i] of masks[M, ceil(V/32)]; -1: none.
 * A row without entries and mask is not touched. masks and mask_rows may be NULL (M = 0), entries too where there are
 * none. */
GRAFT_EXPORT int32_t graft_adjust_logits(float* logits, const graft_adjustment* entries, const int32_t* entry_start,
                                         const uint32_t* masks, const int32_t* mask_rows, int32_t N, int32_t V,
                                         int32_t M);
typedef struct graft_sampling {
  float temperature;         /* 0 = argmax */
  float top_p;               /* 1 = off */
  float min_p;               /* 0 = off */
  int32_t top_k;             /* 0 = off */
  uint32_t seed_lo, seed_hi; /* the random number is a function of (seed, choice, position) alone */
  uint32_t choice, position;
} graft_sampling; /* 32 bytes */
/* ids[N], logprob[N] (of the id under softmax(logits), before temperature and cuts; may be NULL). Where nothing can be
 * drawn the logprob is NaN and the id says why: GRAFT_ROW_BROKEN or GRAFT_ROW_EMPTY. */
GRAFT_EXPORT int32_t graft_sample(int32_t* ids, float* logprob, const float* logits, const graft_sampling* params,
                                  int32_t N, int32_t V);

/* ---- steps that repeat ---- */
/* Between begin and end ops are recorded instead of done; a replay does them in order, with what their operands hold
 * then. Everything an op was given must outlive the recording; structs in host memory only its call. Only ops may be
 * recorded, none that waits, allocates or takes from host memory, and each must have been done once before at these
 * sizes. GRAFT_UNSUPPORTED where ops are done as they are called: a replay would save nothing. */
GRAFT_EXPORT int32_t graft_record_begin(void);
/* NULL where something in between cannot be recorded. Whatever it says, recording has ended. */
GRAFT_EXPORT void* graft_record_end(void);
GRAFT_EXPORT int32_t graft_replay(const void* recording);
GRAFT_EXPORT void graft_recording_free(void* recording);
/* Begins to fetch; dst_host, from graft_host_alloc, holds the bytes after graft_download_wait(ticket), and nothing that
 * is called in between delays or changes them. A ticket, 0 to GRAFT_TICKETS-1, stands for the last fetch begun with it.
 */
#define GRAFT_TICKETS 4
GRAFT_EXPORT int32_t graft_download_begin(void* dst_host, const void* src, uint64_t bytes, int32_t ticket);
GRAFT_EXPORT int32_t graft_download_wait(int32_t ticket);
/* From a step with one row per sequence to the next: ids[i] = max(drawn[i], 0) of N, positions[j] += 1 of M,
 * params[i].position += 1 of N. A row without an answer goes on with id 0: nobody will ask for what comes of it. */
GRAFT_EXPORT int32_t graft_advance(int32_t* ids, int32_t* positions, graft_sampling* params, const int32_t* drawn,
                                   int32_t N, int32_t M);
/* table[entries[2 i]] = entries[2 i + 1] of n entries, no place twice; size: of the table. */
GRAFT_EXPORT int32_t graft_put(int32_t* table, const int32_t* entries, int32_t n, int32_t size);

/* ---- limits of this machine, for shares of the limit in benchmarks ---- */
/* Seconds for one plain streaming read of the buffer by all threads (best of repeats). */
GRAFT_EXPORT double graft_bench_read(const void* buffer, uint64_t bytes, int32_t repeats);
/* FLOP/s of all threads in register-only multiply-adds of that dtype's unit (bf16: its dot-product unit, 0 if none). */
GRAFT_EXPORT double graft_bench_flops(int32_t dtype, double seconds);

#ifdef __cplusplus
}
#endif
#endif
