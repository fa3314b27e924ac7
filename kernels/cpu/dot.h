// Matrix products for the kernels of this folder: everything is a dot product of two K-contiguous rows.
//
// The arithmetic of one dot product is fixed. K is cut into chunks of DOT_CHUNK bytes counted from 0; within a chunk the
// f32 lanes of a vector register accumulate in ascending k (lane l takes k = l, l + 16, ...; bf16 in pairs where there is
// an instruction for it); the lanes are summed by a fixed tree, and the chunks' sums are added in ascending order. Nothing
// else about a call enters: not the rows beside it, nor its place in a tile, nor threads.
#pragma once
#include "ops.h"

#define DOT_CHUNK 4096 // bytes of a row: four rows fit the first-level cache, a panel of them the second

// Rows of contiguous elements, f32 or bf16, `stride` elements apart.
typedef struct {
    const void *data;
    DType dtype;
    int64_t stride;
} Rows;

static inline Rows rows_of(Tensor x) { return (Rows){x.data, x.dtype, tensor_width(x)}; }
// Rows i, i + 1, ...
static inline Rows rows_at(Rows r, int64_t i) {
    r.data = (const char *)r.data + (size_t)(i * r.stride) * dtype_size(r.dtype);
    return r;
}
// Columns j, j + 1, ...
static inline Rows cols_at(Rows r, int64_t j) {
    r.data = (const char *)r.data + (size_t)j * dtype_size(r.dtype);
    return r;
}

// n rows of `width` elements from scratch. The stride is padded: rows a large power of two apart would share cache sets.
Rows rows_take(Arena *a, DType t, int64_t n, int64_t width);
// What rows_take takes, in bytes.
size_t rows_bytes(DType t, int64_t n, int64_t width);

// c[m,n] = a[m,K] b[n,K]^T by the calling thread; c's rows are `stride` floats apart. a and b have one dtype.
void dot_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
// The same by all threads, c f32 or bf16; add: c += instead of c =.
void dot_all(Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
// dst[cols,rows] = src[rows,cols]^T by all threads; one dtype.
void transpose_all(Rows dst, Rows src, int64_t rows, int64_t cols);

// Multiply-adds below which waking the other threads costs more than they give.
#define DOT_SMALL ((int64_t)1 << 18)
