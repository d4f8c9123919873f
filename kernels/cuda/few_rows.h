// Products of few rows with bfloat16 weights, which are read once and as fast as memory gives them. Knows no op of
// graft.h.
#pragma once
#include "linear_many.h"
#include "row_norm.h"

namespace graft::gpu {

/// Products of more rows are cheaper through multiply_many_rows().
constexpr int32_t kFewRows = 32;
/// Whether multiply_few_rows() takes N rows on this device: all up to kFewRows where blocks have 227 KiB.
bool are_few_rows(int32_t N);

/// Several products of the normed rows x[N, in], are_few_rows(N), in one launch (two where x is too large for a block
/// to norm by itself). A row gets the same bits whatever N is, and the bits that multiply_many_rows() gives.
int32_t multiply_few_rows(const Product* products, int32_t count, const float* x, const RowNorm& norm, int32_t N,
                          int32_t in);

/// Rows of a tile of the right operand of mma().
constexpr int32_t kRowTile = 8;
/// Normed rows as a block reads them that does not norm them itself: [row tile][input tile][lane] of two registers.
void arrange_few_rows(uint16_t* arranged, const float* x, const RowNorm& norm, int32_t N, int32_t in);
uint64_t arranged_few_bytes(int32_t N, int32_t in);

/// Normed rows as multiply_many_rows() takes them.
void arrange_normed_rows(uint16_t* arranged, const float* x, const RowNorm& norm, int32_t N, int32_t in);

}  // namespace graft::gpu
