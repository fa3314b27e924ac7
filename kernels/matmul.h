// Matrix products for the other kernels of this folder. Everything is a dot product of two K-contiguous rows.
//
// The arithmetic of one dot product is fixed: K is cut into chunks of DOT_CHUNK bytes counted from 0; within a chunk
// sixteen f32 lanes accumulate (lane l takes elements l, l + 16, ...; bf16 pairs with the dot-product instruction),
// the lanes are summed by a fixed tree, and the chunks' sums are added in ascending order. Nothing else about the
// call (rows beside it, position in a tile, threads) enters.
#pragma once
#include "ops.h"

#define DOT_CHUNK 4096 // bytes of a row: a few rows stay in the first-level cache, a panel of them in the second

// Rows of K contiguous elements, `stride` elements apart; f32 or bf16.
typedef struct {
    const void *data;
    DType dtype;
    int64_t stride;
} Rows;

static inline Rows rows_of(Tensor x) { return (Rows){x.data, x.dtype, tensor_width(x)}; }
static inline Rows rows_at(Rows r, int64_t i) {
    r.data = (const char *)r.data + (size_t)(i * r.stride) * dtype_size(r.dtype);
    return r;
}

// c[m,n] = a[m,K] b[n,K]^T by the calling thread; c rows are `stride` floats apart. a and b have one dtype.
void dot_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K);

// The same by all threads, c f32 or bf16; add: c += instead of c =.
void dot_all(Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K);

// dst[cols,rows] = src[rows,cols]^T by all threads; one dtype.
void transpose_all(Rows dst, Rows src, int64_t rows, int64_t cols);
