// Matrix products of bf16 on AMX tile registers, each 16 rows of 64 bytes. The instruction TDPBF16PS takes three:
// sixteen rows of 32 elements (the left operand), sixteen columns of 16 pairs (the right operand), and a 16 x 16 square
// of f32 sums.
//
// The right operand is always packed: a tile is [16 pairs][16 columns], a pair in 4 bytes. The left one
// is sixteen rows of 64 bytes, and so may be read as it is stored where its rows do not run down memory.
#pragma once
#include "dot.h"

#define TILE_EDGE  16 // rows, and columns
#define TILE_DEPTH 32 // elements of the sum
#define TILE_BYTES 1024

#if defined(ISA_amx)
static inline bool goes_by_tiles(Rows r) { return r.dtype == BF16; }
#else
static inline bool goes_by_tiles(Rows r) { return false; }
#endif
// Packs n rows of r, of either layout, in scratch as a right operand, by all threads.
Rows tile_pack(Arena *scratch, Rows r, int64_t n, int64_t K);
// dot_block for bf16; a is from tile_pack.
void tile_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
// dot_all for bf16.
void tile_all(Arena *scratch, Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
