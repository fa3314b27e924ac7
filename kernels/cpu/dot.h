// Matrix products for the kernels of this folder: every output is a sum over k of a row of a and a row of b.
//
// The arithmetic of one output is fixed. Where both rows lie along K (the forward products): K is cut into chunks of DOT_CHUNK
// bytes counted from 0; within a chunk the f32 lanes of a vector register accumulate in ascending k (lane l takes k = l,
// l + 16, ...; bf16 in pairs where there is an instruction for it); the lanes are summed by a fixed tree, and the chunks'
// sums are added in ascending order. Where the sum runs down the rows of an operand (the backward products): chunks of 256
// units of 4 bytes along K, each one chain in ascending k, their sums added in ascending order (panel.c). Where bf16 goes by tile
// registers, both ways: steps of 32 elements counted from 0, in ascending order (tile.c). Nothing else about a call enters: not
// the rows beside it, nor its place in a tile, nor threads.
#pragma once
#include "isa.h"
#include "ops.h"

#define DOT_CHUNK 4096 // bytes of a row: four rows fit the first-level cache, a panel of them the second

// Rows of elements, f32 or bf16: element k of row i is data[i * stride + k], or where the rows run down memory (the
// transpose of what lies there) data[k * stride + i].
typedef struct {
    const void *data;
    DType dtype;
    int64_t stride; // elements
    bool down;
    const char *tiles; // dot_ready's copy, if there is one: tile (i / 16, 0) of row i
    int64_t tile_row;  // bytes from a row of tiles to the next
} Rows;

static inline Rows rows_of(Tensor x) { return (Rows){x.data, x.dtype, tensor_width(x), false, NULL, 0}; }
// The columns of r as rows.
static inline Rows columns_of(Rows r) {
    r.down = !r.down;
    r.tiles = NULL;
    return r;
}
// Rows i, i + 1, ...; of a copy in tiles, i is a multiple of 16.
static inline Rows rows_at(Rows r, int64_t i) {
    r.data = (const char *)r.data + (size_t)(r.down ? i : i * r.stride) * dtype_size(r.dtype);
    if (r.tiles) r.tiles += i / 16 * r.tile_row;
    return r;
}
// Columns j, j + 1, ...
static inline Rows cols_at(Rows r, int64_t j) {
    r.data = (const char *)r.data + (size_t)(r.down ? j * r.stride : j) * dtype_size(r.dtype);
    return r;
}

// a's m rows as they are multiplied with rows that run as b's do: where the instruction set wants them packed, with a copy in
// scratch.
Rows dot_ready(Arena *scratch, Rows a, int64_t m, Rows b, int64_t K);
// c[m,n] = a[m,K] b[n,K]^T by the calling thread, both along K; c's rows are `stride` floats apart. a and b have one
// dtype; a is from dot_ready.
void dot_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
// The same where the rows of b, or of both, run down memory.
void panel_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
// By all threads, whichever way the rows run; c f32 or bf16; add: c += instead of c =, rounded once. What has to be packed is
// packed in scratch, as many rows of a at a time as there is room for.
void dot_all(Arena *scratch, Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K);

// Multiply-adds below which waking the other threads costs more than they give.
#define DOT_SMALL ((int64_t)1 << 18)
