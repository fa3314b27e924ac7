// bf16 matrix products on AMX tile registers, forward and backward.
//
// An output is one chain: K in steps of 32 elements counted from 0, one instruction each, which adds the sum of its 16
// even products and the sum of its 16 odd ones (twin.h has its exact arithmetic). Past the end of K and of the rows
// there are zeros. So no output depends on the rows beside it, and a row has the same bits alone as among others.
//
// Four accumulators are used at a time, 2 x 2 tiles: four loads for four instructions. K goes in pieces so short that
// one operand stays in the first-level cache; between pieces the accumulators are kept in memory, unrounded.
#include "tile.h"
#include "parallel.h"

#if defined(ISA_amx)
#include "tile_unit.h"

#define PIECE   16  // tiles along K in a piece
#define SUMS    128 // tiles of sums in a block, at most COLUMNS of them side by side
#define COLUMNS 8
#define ELEMENT 2 // bytes

TILES_HERE

static inline int64_t tiles_of(int64_t n, int64_t edge) { return (n + edge - 1) / edge; }

// --- Packing ---

// One tile from rows contiguous along K: x[i] = 16 pairs of row i. n rows with `len` elements each exist; the rest is
// 0.
ALWAYS_INLINE void load_along(Vec x[16], Rows r, int64_t n, int64_t len) {
    for (int64_t i = 0; i < TILE_EDGE; i++) {
        x[i] = (Vec){0};
        if (i < n) memcpy(&x[i], rows_at(r, i).data, (size_t)(len < TILE_DEPTH ? len * ELEMENT : 64));
    }
}
// One tile from rows that run down memory: x[p] = pair p of 16 rows.
ALWAYS_INLINE void load_down(Vec x[16], Rows r, int64_t n, int64_t len) {
    for (int64_t p = 0; p < TILE_EDGE; p++) {
        const char *line = cols_at(r, 2 * p).data;
        x[p] = (Vec){0};
        if (2 * p < len) x[p] = (Vec)pairs_down(line, 2 * p + 1 < len ? line + r.stride * ELEMENT : NULL, n);
    }
}
// Packs one tile, the rows of r from i on and the elements from k on: as a right operand (a line for each pair) or a
// left one (a line for each row).
static void pack_tile(char *to, Rows r, int64_t m, int64_t K, int64_t i, int64_t k, bool right) {
    Vec x[16];
    Rows at = cols_at(rows_at(r, i), k);
    if (r.down) load_down(x, at, m - i, K - k);
    else load_along(x, at, m - i, K - k);
    if (r.down != right) transpose_square(x);
    memcpy(to, x, TILE_BYTES);
}

// Whether b is the left operand and a the right one: so in forward products, where b, the weights, are read as they are
// stored and a, the tokens, are packed. Else a is the left operand and rows of b are packed.
static inline bool swapped(Rows b) { return !b.down; }
// Whether a can be read as it is stored.
static inline bool lies_ready(Rows a, Rows b) { return !swapped(b) && !a.down; }

int64_t tile_rows_that_fit(const Arena *scratch, Rows a, int64_t m, Rows b, int64_t K) {
    int64_t each = tiles_of(K, TILE_DEPTH) * TILE_BYTES, tiles;
    if (lies_ready(a, b) || K == 0) return m;
    tiles = (int64_t)(scratch->cap - scratch->used - ARENA_ALIGN) / each;
    if (tiles < 1) tiles = 1; // there is room for none: arena_take reports it
    return tiles >= tiles_of(m, TILE_EDGE) ? m : tiles * TILE_EDGE;
}

Rows tile_pack(Arena *scratch, Rows a, int64_t m, Rows b, int64_t K) {
    if (lies_ready(a, b)) return a;
    const int64_t along = tiles_of(K, TILE_DEPTH), rows = tiles_of(m, TILE_EDGE);
    const bool right = swapped(b);
    char *to = arena_take(scratch, (size_t)(rows * along * TILE_BYTES));
#pragma omp parallel for if (m * K > PARALLEL_MIN)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < along; k++)
            pack_tile(to + (i * along + k) * TILE_BYTES, a, m, K, i * TILE_EDGE, k * TILE_DEPTH, right);
    a.tiles = to;
    a.tile_row = along * TILE_BYTES;
    return a;
}

// --- Blocks of sums ---

// A left operand: tile (i, k) begins at `at` + i * down + k * along, its rows `row` bytes apart.
typedef struct {
    const char *at;
    int64_t down, along, row; // bytes
    int64_t m, K;             // rows and elements that exist
} Left;

static Left left_of(Rows r, int64_t m, int64_t K) {
    if (r.tiles)
        return (Left){r.tiles,
                      r.tile_row,
                      TILE_BYTES,
                      64,
                      tiles_of(m, TILE_EDGE) * TILE_EDGE,
                      tiles_of(K, TILE_DEPTH) * TILE_DEPTH};
    return (Left){r.data, r.stride * ELEMENT * TILE_EDGE, 64, r.stride * ELEMENT, m, K};
}
// Where tile (i, k) can be read, and in *row how far apart its rows are. At an edge that is `copy`, padded with zeros.
static inline const char *left_tile(const Left *l, int64_t i, int64_t k, char *copy, int64_t *row) {
    const char *from = l->at + i * l->down + k * l->along;
    int64_t m = l->m - i * TILE_EDGE, len = l->K - k * TILE_DEPTH;
    *row = l->row;
    if (m >= TILE_EDGE && len >= TILE_DEPTH) return from;
    memset(copy, 0, TILE_BYTES);
    for (int64_t r = 0; r < m && r < TILE_EDGE; r++)
        memcpy(copy + r * 64, from + r * l->row, (size_t)(len < TILE_DEPTH ? len * ELEMENT : 64));
    *row = 64;
    return copy;
}

// A right operand: tile (k, j) begins at `at` + j * across + k * TILE_BYTES.
typedef struct {
    const char *at;
    int64_t across; // bytes
} Right;

// Adds the tiles [from, to) along K to rows x columns (1 or 2 each) tiles of sums, from tile (i, j) on; a line of `sum`
// has `wide` tiles. With from == 0 the sums begin at 0. r begins at tile `from`.
ALWAYS_INLINE void meet(float (*sum)[256], int64_t wide, const Left *l, int64_t i, Right r, int64_t j, int64_t from,
                        int64_t to, const int rows, const int columns) {
    char copy[2][TILE_BYTES] __attribute__((aligned(64)));
    float(*s)[256] = sum + i * wide + j;
    if (from == 0) {
        tile_zero(0);
        if (columns > 1) tile_zero(1);
        if (rows > 1) tile_zero(2);
        if (rows > 1 && columns > 1) tile_zero(3);
    } else {
        tile_load(0, s[0], 64);
        if (columns > 1) tile_load(1, s[1], 64);
        if (rows > 1) tile_load(2, s[wide], 64);
        if (rows > 1 && columns > 1) tile_load(3, s[wide + 1], 64);
    }
    const char *b = r.at + j * r.across;
    for (int64_t k = from; k < to; k++, b += TILE_BYTES) {
        int64_t row;
        const char *a = left_tile(l, i, k, copy[0], &row);
        tile_load(4, a, row);
        tile_load(6, b, 64);
        tile_dot(0, 4, 6);
        if (columns > 1) {
            tile_load(7, b + r.across, 64);
            tile_dot(1, 4, 7);
        }
        if (rows > 1) {
            a = left_tile(l, i + 1, k, copy[1], &row);
            tile_load(5, a, row);
            tile_dot(2, 5, 6);
            if (columns > 1) tile_dot(3, 5, 7);
        }
    }
    tile_store(0, s[0], 64);
    if (columns > 1) tile_store(1, s[1], 64);
    if (rows > 1) tile_store(2, s[wide], 64);
    if (rows > 1 && columns > 1) tile_store(3, s[wide + 1], 64);
}
static void meet_all(float (*sum)[256], const Left *l, int64_t rows, Right r, int64_t columns, int64_t from,
                     int64_t to) {
    for (int64_t i = 0; i < rows; i += 2)
        for (int64_t j = 0; j < columns; j += 2) {
            if (rows - i > 1 && columns - j > 1) meet(sum, columns, l, i, r, j, from, to, 2, 2);
            else if (rows - i > 1) meet(sum, columns, l, i, r, j, from, to, 2, 1);
            else if (columns - j > 1) meet(sum, columns, l, i, r, j, from, to, 1, 2);
            else meet(sum, columns, l, i, r, j, from, to, 1, 1);
        }
}

// Stores one tile of sums to c, or its transpose; m rows and n columns of c exist.
static void store_square(float *c, int64_t stride, const float *sum, int64_t m, int64_t n, bool transpose) {
    Vec x[16];
    memcpy(x, sum, sizeof x);
    if (transpose) transpose_square(x);
    for (int64_t i = 0; i < TILE_EDGE && i < m; i++, c += stride)
        memcpy(c, &x[i], n < TILE_EDGE ? (size_t)n * sizeof *c : sizeof x[i]);
}

// One block of sums over the whole of K. The right operand is r, or where r.at is NULL rows of b that run down memory,
// packed here a piece at a time.
static void block_of_sums(float (*sum)[256], const Left *l, int64_t rows, Right r, Rows b, int64_t n, int64_t columns,
                          int64_t K) {
    char panel[COLUMNS * PIECE * TILE_BYTES] __attribute__((aligned(64)));
    const int64_t along = tiles_of(K, TILE_DEPTH);
    // With so few columns no tile of the left operand is used twice, so nothing is gained from pieces: read memory in
    // order.
    const int64_t piece = r.at && columns <= 2 ? along : PIECE;
    for (int64_t k = 0; k < along; k += piece) {
        int64_t end = k + piece < along ? k + piece : along;
        Right at = {r.at + k * TILE_BYTES, r.across};
        if (!r.at) {
            at = (Right){panel, PIECE * TILE_BYTES};
            for (int64_t j = 0; j < columns; j++)
                for (int64_t i = k; i < end; i++)
                    pack_tile(panel + (j * PIECE + i - k) * TILE_BYTES, b, n, K, j * TILE_EDGE, i * TILE_DEPTH, true);
        }
        meet_all(sum, l, rows, at, columns, k, end);
    }
}

void tile_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    const bool swap = swapped(b);
    if (!a.tiles && !lies_ready(a, b)) die("tile_block: rows that are not packed");
    if (K == 0)
        for (int64_t i = 0; i < m; i++) memset(c + i * stride, 0, (size_t)n * sizeof *c);
    if (K == 0) return;
    // The rows of `sum` are those of the left operand, whichever of a and b that is.
    const int64_t rows = swap ? n : m, columns = swap ? m : n;
    const int64_t most = COLUMNS * TILE_EDGE, step = columns <= 64 ? SUMS / 4 * TILE_EDGE : SUMS / COLUMNS * TILE_EDGE;
    float sum[SUMS][256] __attribute__((aligned(64)));
    tile_open();
    for (int64_t i = 0; i < rows; i += step)
        for (int64_t j = 0; j < columns; j += most) {
            int64_t r = rows - i < step ? rows - i : step, s = columns - j < most ? columns - j : most;
            int64_t down = tiles_of(r, TILE_EDGE), across = tiles_of(s, TILE_EDGE);
            Left l = left_of(rows_at(swap ? b : a, i), r, K);
            Right right = {0};
            if (swap) right = (Right){rows_at(a, j).tiles, a.tile_row};
            block_of_sums(sum, &l, down, right, rows_at(b, swap ? 0 : j), s, across, K);
            for (int64_t y = 0; y < down; y++)
                for (int64_t x = 0; x < across; x++) {
                    int64_t row = i + y * TILE_EDGE, column = j + x * TILE_EDGE;
                    if (swap)
                        store_square(c + column * stride + row, stride, sum[y * across + x], m - column, n - row, true);
                    else
                        store_square(c + row * stride + column, stride, sum[y * across + x], m - row, n - column,
                                     false);
                }
        }
    tile_close();
}
#endif
