// Products of bf16 by tile registers: 16 rows of 64 bytes each. Three of them meet in an instruction, TDPBF16PS: sixteen rows of
// 32 elements (the left operand), sixteen columns of 16 pairs (the right one), a square of sums.
//
// The right operand lies packed: a tile is [16 pairs][16 columns], a pair in 4 bytes. So does the left one where its rows run
// down memory; else it is read from where it lies, which is how the weights are read, one token or many.
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
// How many of m rows of a have room in scratch to be packed for a product with b: a multiple of TILE_EDGE, or m.
int64_t tile_rows_that_fit(const Arena *scratch, Rows a, int64_t m, Rows b, int64_t K);
// a with its m rows packed for a product with rows like b's, in scratch, by all threads; as it is, where it needs no packing.
Rows tile_pack(Arena *scratch, Rows a, int64_t m, Rows b, int64_t K);
// dot_block and panel_block of bf16: c[m,n] = a[m,K] b[n,K]^T; a from tile_pack, b from memory.
void tile_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
