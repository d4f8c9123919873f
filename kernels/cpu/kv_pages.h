// The layout of the KV cache and how attention finds its blocks there. A page holds, per kv head, keys channel by
// channel [D, page_size] (lanes run along keys, no horizontal sums) and values token by token [page_size, D] (lanes run
// along channels).
#pragma once
#include "attention.h"

namespace graft {

/// Finds the blocks of one sequence and kv head in the pages.
template <class T>
class Pages {
 public:
  struct Layout {
    int64_t head, Hkv, D, page_size;
  };

  /// `table`: the pages of the sequence, in order.
  Pages(const void* k_cache, const void* v_cache, const int32_t* table, const Layout& l)
      : k_(static_cast<const T*>(k_cache)),
        v_(static_cast<const T*>(v_cache)),
        table_(table),
        page_size_(l.page_size),
        head_(l.head * l.page_size * l.D),
        page_(l.Hkv * l.page_size * l.D),
        D_(l.D) {}

  /// Whole vectors of keys lie inside a page.
  bool aligned() const { return page_size_ % VL == 0; }

  const Block<T>& direct(int64_t key, int visible, int visible_next) {
    for (int v = 0; v * VL < visible; v++) {
      block_.keys[v] = keys_at(key + v * VL);
      block_.next_keys[v] = v * VL < visible_next ? keys_at(key + kBlock + v * VL) : block_.keys[v];
    }
    block_.key_depth = page_size_;
    block_.num_runs = 0;
    for (int at = 0; at < visible;) {
      const int count = int(std::min<int64_t>(visible - at, page_size_ - (key + at) % page_size_));
      const T* values = values_at(key + at);
      const int64_t ahead = at < visible_next ? values_at(key + kBlock + at) - values : 0;
      block_.runs[block_.num_runs++] = {values, count, ahead};
      at += count;
    }
    return block_;
  }

  /// The block widened to float32 in `room` (2 * kBlock * D floats).
  const Block<float>& packed(int64_t key, int visible, float* room) {
    const Block<T>& from = direct(key, aligned() ? visible : 0, 0);
    if (aligned())
      for (int64_t d = 0; d < D_; d++)
        for (int v = 0; v * VL < visible; v++)
          vstore(room + d * kBlock + v * VL, load_wide(from.keys[v] + d * page_size_));
    else
      for (int i = 0; i < visible; i++) {
        const T* column = keys_at(key + i);
        for (int64_t d = 0; d < D_; d++) room[d * kBlock + i] = widen(column[d * page_size_]);
      }
    float* values = room + int64_t(kBlock) * D_;
    for (int i = 0; i < visible; i++) {
      const T* row = values_at(key + i);
      vloop(D_, [&](int64_t d, int n) {
        store_part(values + i * D_ + d, n == VL ? load_wide(row + d) : load_wide_n(row + d, n), n);
      });
    }
    for (int v = 0; v < kKeyVectors; v++) packed_.keys[v] = packed_.next_keys[v] = room + v * VL;
    packed_.key_depth = kBlock;
    packed_.runs[0] = {values, visible, 0};
    packed_.num_runs = 1;
    return packed_;
  }

 private:
  const T* keys_at(int64_t key) const { return k_ + table_[key / page_size_] * page_ + head_ + key % page_size_; }
  const T* values_at(int64_t key) const {
    return v_ + table_[key / page_size_] * page_ + head_ + key % page_size_ * D_;
  }

  static float widen(float x) { return x; }
  static float widen(bf16 x) { return bf16_to_float(x); }

  const T *k_, *v_;
  const int32_t* table_;
  int64_t page_size_, head_, page_;
  int64_t D_;
  Block<T> block_;
  Block<float> packed_;
};

/// out[D, kBlock] = transpose of rows[count, D] that lie `stride` floats apart; columns from count to kBlock become 0.
void transpose_block(float* out, const float* rows, int64_t stride, int count, int64_t D);

}  // namespace graft
