// Matrix products of the CPU ops: c = a b^T, where every output is a sum over k of a row of a times a row of b.
//
// The order of the sum of one output is fixed, so that it has the same bits in every batch and at every number of
// threads: it depends on K, the dtype and the instruction set alone, not on the rows computed beside it or its place in
// a tile.
// - Both rows contiguous along K (the forward products, dot.c): K is cut into chunks of DOT_CHUNK bytes counted from 0.
//   Within a chunk the f32 lanes of a vector register accumulate in ascending k (lane l takes k = l, l + 16, ...; bf16
//   in pairs where the instruction set has one for them). The lanes are summed by a fixed tree, the chunks' sums added
//   in ascending order.
// - An operand whose rows run down memory (the backward products, panel.c): K is cut into chunks of 256 units of 4
//   bytes, on avx512 and amx of 128 where the rows of both run down memory. Each is one chain of multiply-adds in
//   ascending k; the chunks' sums are added in ascending order.
// - bf16 on AMX tile registers (tile.c), both kinds: steps of 32 elements counted from 0, in ascending order.
#pragma once
#include "isa.h"
#include "ops.h"

#define DOT_CHUNK 4096 // bytes of a row: four rows fit the first-level cache, a panel of them the second

// A matrix operand as rows, f32 or bf16. Element k of row i is data[i * stride + k]; with `down`, where a row runs down
// memory (the operand is the transpose of what is stored), it is data[k * stride + i].
typedef struct {
    const void *data;
    DType dtype;
    int64_t stride; // elements
    bool down;
    const char *tiles; // the copy that dot_ready packed for tile registers, or NULL: tile (0, 0)
    int64_t tile_row;  // bytes from one row of tiles (16 rows of the operand) to the next
} Rows;

static inline Rows rows_of(Tensor x) { return (Rows){x.data, x.dtype, tensor_width(x), false, NULL, 0}; }
// The transpose: the columns of r as rows.
static inline Rows columns_of(Rows r) {
    r.down = !r.down;
    r.tiles = NULL;
    return r;
}
// The rows from i on. Where r has a packed copy, i must be a multiple of 16.
static inline Rows rows_at(Rows r, int64_t i) {
    r.data = (const char *)r.data + (size_t)(r.down ? i : i * r.stride) * dtype_size(r.dtype);
    if (r.tiles) r.tiles += i / 16 * r.tile_row;
    return r;
}
// The columns from j on.
static inline Rows cols_at(Rows r, int64_t j) {
    r.data = (const char *)r.data + (size_t)(r.down ? j * r.stride : j) * dtype_size(r.dtype);
    return r;
}

// Prepares m rows of a for dot_block: packs them in scratch where the instruction set wants that, and else returns a as
// it is.
Rows dot_ready(Arena *scratch, Rows a, int64_t m, int64_t K);
// c[m,n] = a[m,K] b[n,K]^T by the calling thread, for rows contiguous along K. The rows of c are `stride` floats apart;
// a comes from dot_ready, and b has a's dtype.
void dot_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
// The same by all threads, written to c of either dtype, or (with `add`) added to it and rounded once, for operands of
// which b, or both, have rows that run down memory. Not for tile registers.
void panel_all(Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K);
// c = a b^T by all threads, for rows of either layout; c is f32 or bf16. With `add`, c += instead, rounded once. Rows
// that have to be packed whole are packed in scratch, as many at a time as it has room for.
void dot_all(Arena *scratch, Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K);

// With fewer multiply-adds than this, waking the other threads costs more than they save.
#define DOT_SMALL ((int64_t)1 << 18)
