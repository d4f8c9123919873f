// Training is the CPU libraries': here each of its ops says so.
#include "graft.h"
#include "status.h"

#define ELSEWHERE(name) \
  return graft::fail(GRAFT_UNSUPPORTED, name " is not among the kernels of this device; train with --device cpu")

extern "C" {

int32_t graft_matmul_nt(float*, const float*, const float*, const float*, int32_t, int32_t, int32_t, int32_t) {
  ELSEWHERE("matmul_nt");
}
int32_t graft_matmul_nn(float*, const float*, const float*, int32_t, int32_t, int32_t, int32_t) {
  ELSEWHERE("matmul_nn");
}
int32_t graft_matmul_tn(float*, const float*, const float*, int32_t, int32_t, int32_t, int32_t) {
  ELSEWHERE("matmul_tn");
}
int32_t graft_sum_rows(float*, const float*, int32_t, int32_t, int32_t) { ELSEWHERE("sum_rows"); }
int32_t graft_embedding_backward(float*, const int32_t*, const float*, int32_t, int32_t, int32_t) {
  ELSEWHERE("embedding_backward");
}
int32_t graft_rms_norm_backward(float*, float*, const float*, const float*, const float*, int32_t, int32_t, float,
                                int32_t) {
  ELSEWHERE("rms_norm_backward");
}
int32_t graft_layer_norm_backward(float*, float*, float*, const float*, const float*, const float*, int32_t, int32_t,
                                  float, int32_t) {
  ELSEWHERE("layer_norm_backward");
}
int32_t graft_gated_rms_norm_backward(float*, float*, float*, const float*, const float*, const float*, const float*,
                                      int32_t, int32_t, float) {
  ELSEWHERE("gated_rms_norm_backward");
}
int32_t graft_l2_norm_backward(float*, const float*, const float*, int32_t, int32_t, float) {
  ELSEWHERE("l2_norm_backward");
}
int32_t graft_silu_backward(float*, const float*, const float*, uint64_t) { ELSEWHERE("silu_backward"); }
int32_t graft_silu_mul_backward(float*, float*, const float*, const float*, const float*, uint64_t) {
  ELSEWHERE("silu_mul_backward");
}
int32_t graft_gelu_tanh_backward(float*, const float*, const float*, uint64_t) { ELSEWHERE("gelu_tanh_backward"); }
int32_t graft_attention_train(float*, float*, const float*, const float*, const float*, const int32_t*, int32_t,
                              int32_t, int32_t, int32_t, int32_t, float) {
  ELSEWHERE("attention_train");
}
int32_t graft_attention_backward(float*, float*, float*, const float*, const float*, const float*, const float*,
                                 const float*, const float*, const int32_t*, int32_t, int32_t, int32_t, int32_t,
                                 int32_t, float) {
  ELSEWHERE("attention_backward");
}
int32_t graft_short_conv_backward(float*, float*, float*, const float*, const float*, const float*, const float*,
                                  const int32_t*, int32_t, int32_t, int32_t, int32_t, int32_t) {
  ELSEWHERE("short_conv_backward");
}
int32_t graft_dynamic_conv_backward(float*, float*, const float*, const float*, const float*, const int32_t*, int32_t,
                                    int32_t, int32_t, int32_t) {
  ELSEWHERE("dynamic_conv_backward");
}
int32_t graft_gla_gate_backward(float*, const float*, const float*, uint64_t, float) { ELSEWHERE("gla_gate_backward"); }
int32_t graft_gdn_gate_backward(float*, float*, float*, float*, const float*, const float*, const float*, const float*,
                                const float*, const float*, int32_t, int32_t, float) {
  ELSEWHERE("gdn_gate_backward");
}
double graft_gla_train_floats(int32_t, int32_t, int32_t, int32_t, int32_t, int32_t) { return 0; }
int32_t graft_gla_train(float*, float*, float*, const float*, const float*, const float*, const float*, const float*,
                        const int32_t*, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, float) {
  ELSEWHERE("gla_train");
}
int32_t graft_gla_backward(float*, float*, float*, float*, float*, float*, const float*, const float*, const float*,
                           const float*, const float*, const float*, const float*, const int32_t*, int32_t, int32_t,
                           int32_t, int32_t, int32_t, int32_t, float) {
  ELSEWHERE("gla_backward");
}
double graft_gdn_train_floats(int32_t, int32_t, int32_t, int32_t, int32_t, int32_t) { return 0; }
int32_t graft_gdn_train(float*, float*, float*, const float*, const float*, const float*, const float*, const float*,
                        const float*, const int32_t*, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, float) {
  ELSEWHERE("gdn_train");
}
int32_t graft_gdn_backward(float*, float*, float*, float*, float*, float*, float*, const float*, const float*,
                           const float*, const float*, const float*, const float*, const float*, const float*,
                           const int32_t*, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, float) {
  ELSEWHERE("gdn_backward");
}
int32_t graft_cross_entropy(float*, float*, const float*, const int32_t*, int32_t, int32_t, float) {
  ELSEWHERE("cross_entropy");
}
int32_t graft_mse(double*, float*, const float*, const float*, uint64_t, int32_t) { ELSEWHERE("mse"); }
int32_t graft_sum_squares(double*, const float*, uint64_t, int32_t) { ELSEWHERE("sum_squares"); }
int32_t graft_adamw(float*, float*, float*, const float*, const double*, uint64_t, int32_t, float, float, float, float,
                    float, float) {
  ELSEWHERE("adamw");
}

}  // extern "C"
