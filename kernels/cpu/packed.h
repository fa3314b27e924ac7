// Products of rows of bf16 that are contiguous along K, for instruction sets of sixteen vector registers that have no
// instruction for pairs of bf16.
#pragma once
#include "dot.h"

// c[m,n] = (or +=, with `add`) one chunk of K, by the calling thread: dot_block's bits.
void packed_chunk(float *c, int64_t stride, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t len);
