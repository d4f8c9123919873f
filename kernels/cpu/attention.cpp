// Causal softmax attention over a paged cache, and the forward pass of training over a cache made on the spot.
//   s_j = scale q·k_j for j <= position;  p = softmax(s);  o = sum_j p_j v_j;  query head h reads kv head h / (Hq /
//   Hkv)
// A page holds, per kv head, keys channel by channel [D, page_size] (lanes run along keys, no horizontal sums) and
// values token by token [page_size, D] (lanes run along channels). A task owns some positions of one sequence and the
// query heads of one kv head, so that a key is read once for all of them; while there are fewer tasks than threads,
// spans of a long context become tasks too. Bytes at decode: every key and value once. D: a multiple of 8 from 8 to
// 256; any page size.
#include "attention.h"

#include <type_traits>
#include <utility>
#include <vector>

#include "attention_checks.h"
#include "graft.h"
#include "kv_pages.h"
#include "status.h"
#include "threads.h"

namespace graft {
namespace {

constexpr int kTaskRows = 96;
constexpr int kPackRows = 12;  // from here on, bf16 blocks are widened once instead of at every tile

/// Everything a task reads and writes.
struct Problem {
  float *o, *lse;
  const float* q;
  const void *k_cache, *v_cache;
  const int32_t *seq_start, *start_pos, *table_rows, *page_table;
  int32_t table_stride, S, Hq, Hkv, D, page_size, kv_dtype;
  float scale;
  int group() const { return Hq / Hkv; }
  int64_t position(int32_t s) const { return start_pos ? start_pos[s] : 0; }
};

struct Task {
  int32_t seq, head, first_row, rows;  // rows = positions
  int32_t first_span, spans;
};

/// Working memory of a task: its rows and the total over spans.
struct Workspace {
  QueryRows rows;
  float *total_o, *total_max, *total_sum, *room;

  Workspace(const Problem& p, const Task& t, int thread) {
    const int64_t count = int64_t(t.rows) * p.group(), size = count * p.D;
    float* at = static_cast<float*>(
        thread_scratch(thread, 0, size_t(3 * size + 4 * count + 2 * int64_t(kBlock) * p.D) * sizeof(float)));
    rows = {int(count), p.group(), p.D,           p.position(t.seq) + t.first_row,
            at,         at + size, at + 3 * size, at + 3 * size + count};
    total_o = at + 2 * size;
    total_max = at + 3 * size + 2 * count;
    total_sum = total_max + count;
    room = total_sum + count;
    const vf scale = vset(p.scale);
    for (int64_t r = 0; r < count; r++) {
      const float* from = p.q + row_offset(p, t, int(r));
      vloop(p.D, [&](int64_t d, int n) { store_part(rows.q + r * p.D + d, vmul(load_part(from + d, n), scale), n); });
    }
    std::fill(total_sum, total_sum + count, 0.f);
  }

  static int64_t row_index(const Problem& p, const Task& t, int r) {
    return int64_t(p.seq_start[t.seq] + t.first_row + r / p.group()) * p.Hq + int64_t(t.head) * p.group() +
           r % p.group();
  }
  static int64_t row_offset(const Problem& p, const Task& t, int r) { return row_index(p, t, r) * p.D; }
};

template <class T>
void attend(Pages<T>& pages, const QueryRows& rows, int64_t begin, float* room) {
  const bool widen_once = std::is_same_v<T, bf16> && rows.count >= kPackRows;
  if (pages.aligned() && !widen_once)
    attend_span(
        rows,
        begin, [&](int64_t key, int visible, int after) -> const auto& { return pages.direct(key, visible, after); });
  else
    attend_span(
        rows, begin, [&](int64_t key, int visible, int) -> const auto& { return pages.packed(key, visible, room); });
}

/// o = total / sum, and the log of the sum.
void finish(const Problem& p, int64_t row, const Partial& total) {
  const vf sum = vset(*total.sum);
  vloop(p.D, [&](int64_t d, int n) { store_part(p.o + row * p.D + d, vdiv(load_part(total.o + d, n), sum), n); });
  if (p.lse) p.lse[row] = float(*total.max + std::log(double(*total.sum)));
}

template <class T>
void run_task(const Problem& p, const Task& t, int thread, float* partials, int64_t spans_per_row) {
  Workspace w(p, t, thread);
  Pages<T> pages(p.k_cache, p.v_cache, p.page_table + int64_t(p.table_rows[t.seq]) * p.table_stride,
                 {t.head, p.Hkv, p.D, p.page_size});
  for (int32_t span = t.first_span; span < t.first_span + t.spans; span++) {
    attend(pages, w.rows, int64_t(span) * kSpan, w.room);
    for (int r = 0; r < w.rows.count; r++) {
      const Partial part{w.rows.max + r, w.rows.sum + r, w.rows.o + int64_t(r) * p.D};
      if (!partials) {
        merge({w.total_max + r, w.total_sum + r, w.total_o + int64_t(r) * p.D}, part, p.D);
        continue;
      }
      float* to = partials + (Workspace::row_index(p, t, r) * spans_per_row + span) * (p.D + 2);
      to[0] = *part.max;
      to[1] = *part.sum;
      std::copy(part.o, part.o + p.D, to + 2);
    }
  }
  for (int r = 0; !partials && r < w.rows.count; r++)
    finish(p, Workspace::row_index(p, t, r), {w.total_max + r, w.total_sum + r, w.total_o + int64_t(r) * p.D});
}

int32_t spans_of(int64_t last_position) { return int32_t(last_position / kSpan) + 1; }

std::vector<Task> plan(const Problem& p, bool split) {
  std::vector<Task> tasks;
  const int32_t step = std::max(1, kTaskRows / p.group());
  for (int32_t s = 0; s < p.S; s++) {
    const int32_t rows = p.seq_start[s + 1] - p.seq_start[s];
    for (int32_t first = (rows - 1) / step * step; rows > 0 && first >= 0; first -= step)  // the longest rows first
      for (int32_t head = 0; head < p.Hkv; head++) {
        const int32_t count = std::min(step, rows - first);
        const int32_t spans = spans_of(p.position(s) + first + count - 1);
        if (split)
          for (int32_t span = 0; span < spans; span++) tasks.push_back({s, head, first, count, span, 1});
        else
          tasks.push_back({s, head, first, count, 0, spans});
      }
  }
  return tasks;
}

/// Merges the spans that separate tasks left in `partials`, ascending.
void finish_split(const Problem& p, float* partials, int64_t spans_per_row) {
  parallel(p.S, [&](int64_t s) {
    for (int64_t i = p.seq_start[s]; i < p.seq_start[s + 1]; i++) {
      const int32_t spans = spans_of(p.position(int32_t(s)) + i - p.seq_start[s]);
      for (int64_t row = i * p.Hq; row < (i + 1) * p.Hq; row++) {
        float* first = partials + row * spans_per_row * (p.D + 2);
        const auto part = [&](int32_t span) {
          float* at = first + int64_t(span) * (p.D + 2);
          return Partial{at, at + 1, at + 2};
        };
        for (int32_t span = 1; span < spans; span++) merge(part(0), part(span), p.D);
        finish(p, row, part(0));
      }
    }
  });
}

void attention(const Problem& p) {
  constexpr int64_t kMostPartials = int64_t(16) << 20;  // floats
  int64_t longest = 0;
  for (int32_t s = 0; s < p.S; s++) longest = std::max(longest, p.position(s) + p.seq_start[s + 1] - p.seq_start[s]);
  const int64_t spans = longest / kSpan + 1, N = p.seq_start[p.S];
  std::vector<Task> tasks = plan(p, false);
  float* partials = nullptr;
  if (num_threads() > 1 && int64_t(tasks.size()) < 4 * num_threads() && spans > 1 &&
      N * p.Hq * spans * (p.D + 2) <= kMostPartials) {
    tasks = plan(p, true);
    partials = static_cast<float*>(thread_scratch(0, 3, size_t(N * p.Hq * spans * (p.D + 2)) * sizeof(float)));
  }
  parallel(int64_t(tasks.size()), [&](int64_t i, int thread) {
    if (p.kv_dtype == GRAFT_BF16)
      run_task<bf16>(p, tasks[i], thread, partials, spans);
    else
      run_task<float>(p, tasks[i], thread, partials, spans);
  });
  if (partials) finish_split(p, partials, spans);
}

}  // namespace
}  // namespace graft

using namespace graft;

extern "C" {

int32_t graft_attention(float* o, const float* q, const void* k_cache, const void* v_cache, const int32_t* seq_start,
                        const int32_t* start_pos, const int32_t* table_rows, const int32_t* page_table,
                        int32_t table_stride, int32_t S, int32_t N, int32_t Hq, int32_t Hkv, int32_t D,
                        int32_t page_size, int32_t kv_dtype, float scale) {
  GRAFT_CHECK(o && q && k_cache && v_cache && seq_start && start_pos && table_rows && page_table,
              "attention: null pointer");
  GRAFT_TRY(
      check_paged(seq_start, start_pos, table_rows, page_table, table_stride, S, N, Hq, Hkv, D, page_size, kv_dtype));
  attention({o, nullptr, q, k_cache, v_cache, seq_start, start_pos, table_rows, page_table, table_stride, S, Hq, Hkv, D,
             page_size, kv_dtype, scale});
  return GRAFT_OK;
}

int32_t graft_attention_train(float* o, float* lse, const float* q, const float* k, const float* v,
                              const int32_t* seq_start, int32_t S, int32_t N, int32_t Hq, int32_t Hkv, int32_t D,
                              float scale) {
  GRAFT_CHECK(o && lse && q && k && v && seq_start, "attention_train: null pointer");
  GRAFT_TRY(check_whole("attention_train", seq_start, S, N, Hq, Hkv, D));
  // A cache of pages of kBlock tokens; sequence s owns the pages from first_page[s] on, through an identity table.
  std::vector<int32_t> first_page(S + 1, 0), table;
  std::vector<std::pair<int32_t, int32_t>> sources;  // first row and number of rows of each page
  for (int32_t s = 0; s < S; s++) {
    for (int32_t i = seq_start[s]; i < seq_start[s + 1]; i += kBlock)
      sources.emplace_back(i, std::min(kBlock, seq_start[s + 1] - i));
    first_page[s + 1] = int32_t(sources.size());
  }
  for (size_t i = 0; i < sources.size(); i++) table.push_back(int32_t(i));
  const int64_t page = int64_t(kBlock) * Hkv * D, pages = int64_t(sources.size());
  float* k_cache = static_cast<float*>(thread_scratch(0, 2, size_t(2 * pages * page + 1) * sizeof(float)));
  float* v_cache = k_cache + pages * page;
  parallel(pages * Hkv, [&](int64_t i) {
    const auto [row, count] = sources[i / Hkv];
    const int64_t from = (int64_t(row) * Hkv + i % Hkv) * D, stride = int64_t(Hkv) * D;
    transpose_block(k_cache + i * kBlock * D, k + from, stride, count, D);
    for (int64_t j = 0; j < count; j++)
      std::copy(v + from + j * stride, v + from + j * stride + D, v_cache + (i * kBlock + j) * D);
  });
  // Table row s with stride 1 starts at page first_page[s]: rows of the table overlap, each sequence reads its own
  // pages.
  attention({o, lse, q, k_cache, v_cache, seq_start, nullptr, first_page.data(), table.data(), 1, S, Hq, Hkv, D, kBlock,
             GRAFT_F32, scale});
  return GRAFT_OK;
}

}  // extern "C"
