// Matrix products of bf16 on AMX tile registers, each 16 rows of 64 bytes. The instruction TDPBF16PS takes three:
// sixteen rows of 32 elements (the left operand), sixteen columns of 16 pairs (the right operand), and a 16 x 16 square
// of f32 sums.
//
// The right operand is always packed: a tile is [16 pairs][16 columns], a pair in 4 bytes. The left one is packed only
// where its rows run down memory; else it is read as it is stored, which is how weights are read, for one token or
// many.
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
// How many of the m rows of a scratch has room to pack for a product with b: m, or less and then a multiple of
// TILE_EDGE.
int64_t tile_rows_that_fit(const Arena *scratch, Rows a, int64_t m, Rows b, int64_t K);
// Packs m rows of a in scratch, by all threads, for a product with rows laid out as b's are; returns a as it is where
// it needs no packing.
Rows tile_pack(Arena *scratch, Rows a, int64_t m, Rows b, int64_t K);
// dot_block for bf16, rows of either layout: c[m,n] = a[m,K] b[n,K]^T; a is from tile_pack, b as it is stored.
void tile_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
