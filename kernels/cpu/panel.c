// Matrix products of operands whose rows run down memory (the backward products), by tiles of outputs: ROWS rows of a
// by VECTORS vectors of rows of b.
//
// b is packed, panels of PANEL rows and a chunk of K at a time, with unit u of all its rows side by side: so each lane
// is an output and no sum goes across lanes. A unit is 4 bytes along K: an f32, a pair of bf16 where the instruction
// set has one for pairs, else one bf16 widened to f32. A unit of a is broadcast straight from memory, or from a packed
// block where a's rows run down memory or have to be widened first.
#include "ahead.h"
#include "parallel.h"
#include "tile.h"
#include "unit.h"

#if defined(ISA_avx512)
#define VECTORS 4 // of a panel
#define ROWS    6 // of a tile: ROWS x VECTORS accumulators, VECTORS of the panel and one broadcast unit
#elif defined(ISA_avx2)
#define VECTORS 2
#define ROWS    6
#else
#define VECTORS 2
#define ROWS    4
#endif
#define PANEL   (LANES * VECTORS) // rows of b
#define UNITS   256               // units of a chunk of K
#define BLOCK_A 96                // rows of a that are packed at a time
// A task is so many outputs, as many columns where a has to be packed, which then is packed once for all of them, and
// half as many where it need not be, so that a panel serves more rows.
#define OUTPUTS 65536
#define COLUMNS 256
#define LEAST   64 // columns, where many threads would else have too few tasks
// The same where rows of a run down memory too (dw). The CPUs on which auto takes these sets are Intel's: since Ice
// Lake their first-level cache keeps a panel of half a chunk, and their second has room for the sums of larger tasks.
#if defined(ISA_amx) || (defined(ISA_avx512) && !defined(ISA_avx512_bf16))
#define UNITS_DOWN   (UNITS / 2)
#define OUTPUTS_DOWN (2 * OUTPUTS)
#else
#define UNITS_DOWN   UNITS
#define OUTPUTS_DOWN OUTPUTS
#endif

// How many elements of type t make a unit.
#if defined(ISA_avx512_bf16)
ALWAYS_INLINE int64_t unit_elements(DType t) { return t == F32 ? 1 : 2; }
#else
ALWAYS_INLINE int64_t unit_elements(DType t) { return 1; }
#endif
// Whether the units of r can be read as they are stored, without packing.
ALWAYS_INLINE bool lies_in_units(Rows r, int64_t K) {
    return !r.down && dtype_size(r.dtype) * (size_t)unit_elements(r.dtype) == 4 && K % unit_elements(r.dtype) == 0;
}

// --- Packing: dst[u * ld + i] = unit u of row i; past the last row, zeros up to a whole vector ---

// The first LANES units of a row that is contiguous along K and has `len` elements left; zeros past the last.
ALWAYS_INLINE vf units_along(const char *row, DType t, int64_t len) {
    size_t bytes = (size_t)(LANES * unit_elements(t)) * dtype_size(t), left = (size_t)len * dtype_size(t);
    vf x = {0};
    if (unit_elements(t) == 2 || t == F32) {
        memcpy(&x, row, left < bytes ? left : bytes);
        return x;
    }
    vh h = {0};
    memcpy(&h, row, left < bytes ? left : bytes);
    return (vf)(vu_widen(h) << 16);
}
// x[j] = unit j of LANES rows, of which n exist, with `len` elements left; `whole`: all rows and units exist.
ALWAYS_INLINE void load_square(vf x[LANES], const char *row, int64_t stride, DType t, int64_t n, int64_t len,
                               const bool whole) {
    UNROLL for (int64_t j = 0; j < LANES; j++) {
        x[j] = (vf){0};
        if (whole || j < n) x[j] = units_along(row + j * stride, t, whole ? LANES * unit_elements(t) : len);
    }
    vf_transpose(x);
}
// Packs LANES rows x LANES units, as load_square reads them.
ALWAYS_INLINE void pack_square(uint32_t *dst, int64_t ld, const char *row, int64_t stride, DType t, int64_t n,
                               int64_t len, const bool whole) {
    vf x[LANES];
    load_square(x, row, stride, t, n, len, whole);
    int64_t units = (len + unit_elements(t) - 1) / unit_elements(t);
    UNROLL for (int64_t j = 0; j < LANES; j++) if (whole || j < units) memcpy(dst + j * ld, &x[j], sizeof x[j]);
}
// Packs n rows that are contiguous along K.
ALWAYS_INLINE void pack_along(uint32_t *dst, int64_t ld, Rows r, DType t, int64_t n, int64_t len) {
    const int64_t each = unit_elements(t), size = (int64_t)dtype_size(t), step = LANES * each, stride = r.stride * size;
    for (int64_t i = 0; i < n; i += LANES) {
        const char *row = rows_at(r, i).data;
        for (int64_t k = 0; k < len; k += step) {
            uint32_t *to = dst + k / each * ld + i;
            if (n - i >= LANES && len - k >= step) pack_square(to, ld, row + k * size, stride, t, LANES, step, true);
            else pack_square(to, ld, row + k * size, stride, t, n - i, len - k, false);
        }
    }
}

#define PACK_AHEAD 32 // lines of memory that are asked for before they are packed

// One unit of LANES rows that run down memory, of which n exist: the rows' elements lie side by side in `line`, the
// second ones of pairs in `next`.
ALWAYS_INLINE vu units_down(const char *line, const char *next, DType t, int64_t n) {
    vu x = {0};
    if (t == F32) {
        memcpy(&x, line, n >= LANES ? sizeof x : (size_t)n * 4);
        return x;
    }
    if (unit_elements(t) == 1) return half_line(line, n) << 16;
    return pairs_down(line, next, n);
}
// Packs n rows that run down memory.
ALWAYS_INLINE void pack_down(uint32_t *dst, int64_t ld, Rows r, DType t, int64_t n, int64_t len) {
    const int64_t each = unit_elements(t), size = (int64_t)dtype_size(t);
    for (int64_t k = 0; k < len; k += each, dst += ld) {
        const char *line = (const char *)r.data + k * r.stride * size, *next = line + r.stride * size;
        if (k + 1 >= len) next = NULL;
        int64_t i = 0;
        for (int64_t at = 0; at < n * size; at += 64) { // the lines may be a page apart: no prefetcher foresees them
            __builtin_prefetch(line + PACK_AHEAD * r.stride * size + at);
            if (each == 2) __builtin_prefetch(line + (PACK_AHEAD + 1) * r.stride * size + at);
        }
        for (; i + LANES <= n; i += LANES) {
            vu x = units_down(line + i * size, next ? next + i * size : NULL, t, LANES);
            memcpy(dst + i, &x, sizeof x);
        }
        if (i < n) {
            vu x = units_down(line + i * size, next ? next + i * size : NULL, t, n - i);
            memcpy(dst + i, &x, sizeof x);
        }
    }
}
static void pack(uint32_t *dst, int64_t ld, Rows r, int64_t n, int64_t len) {
    if (r.down && r.dtype == F32) pack_down(dst, ld, r, F32, n, len);
    else if (r.down) pack_down(dst, ld, r, BF16, n, len);
    else if (r.dtype == F32) pack_along(dst, ld, r, F32, n, len);
    else pack_along(dst, ld, r, BF16, n, len);
}

// --- Tiles ---

static inline vf unit_load(const uint32_t *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    KEEP(x);
    return x;
}
static inline vf unit_broadcast(const void *p) {
    uint32_t u;
    memcpy(&u, p, sizeof u);
    vf x = (vf)(u - (vu){0});
    KEEP(x);
    return x;
}

// Where the units of a are read for broadcasting: unit u of row i at units + i * row + u * next.
typedef struct {
    const char *units;
    int64_t row, next; // bytes
} Broadcast;

// The outputs of a tile, or of the tiles below each other: c[., n] of either dtype is written (or added to, with `add`)
// with the last chunk of K; until then sums[., n], whose rows are `pitch` floats apart, holds those before.
typedef struct {
    Rows c;
    float *sums;
    int64_t pitch;
    bool add, first, last;
} Outputs;
ALWAYS_INLINE Outputs outputs_at(Outputs o, int64_t i, int64_t j) {
    o.c = cols_at(rows_at(o.c, i), j);
    o.sums += i * o.pitch + j;
    return o;
}
// Asks for the lines of c that a tile will end in: they come while it is multiplied.
ALWAYS_INLINE void outputs_fetch(Outputs o, int64_t n, const int rows) {
    const int64_t bytes = (n < PANEL ? n : PANEL) * (int64_t)dtype_size(o.c.dtype);
    for (int i = 0; i < rows; i++)
        for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)rows_at(o.c, i).data + at, 1);
}

// What is packed next, rows that run down memory, in equal parts with every tile.
static Ahead ahead_of(Rows r, int64_t n, int64_t len, int64_t tiles) {
    const int64_t size = (int64_t)dtype_size(r.dtype);
    if (!r.down || n <= 0 || len <= 0 || tiles <= 0) return (Ahead){0};
    return (Ahead){r.data, r.stride * size, n * size, len, 0, (len + tiles - 1) / tiles * ((n * size + 63) / 64)};
}
typedef struct {
    Ahead a, b;
} Next;

// row_put for a tile whose columns are all there: no way by memory.
ALWAYS_INLINE void tile_put(Outputs o, DType t, vf acc[ROWS][VECTORS], const int rows) {
    UNROLL for (int i = 0; i < rows; i++) {
        void *c = (void *)rows_at(o.c, i).data;
        UNROLL for (int v = 0; v < VECTORS; v++) {
            vf sum = (vf)acc[i][v];
            if (o.add) sum += row_load(c, t, v * LANES);
            row_store(c, t, v * LANES, sum);
        }
    }
}

// One chunk of K of rows x PANEL outputs, of which columns from n on are not there.
ALWAYS_INLINE void tile(Outputs o, Next *next, bool pairs, Broadcast a, const uint32_t *panel, int64_t units, int64_t n,
                        const int rows) {
    vf acc[ROWS][VECTORS];
    if (o.last) outputs_fetch(o, n, rows);
    ahead_fetch(&next->a), ahead_fetch(&next->b);
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < VECTORS; v++) acc[i][v] = (vf){0};
    for (int64_t u = 0; u < units; u++, panel += PANEL) {
        vf y[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) y[v] = unit_load(panel + v * LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            vf x = unit_broadcast(a.units + i * a.row + u * a.next);
            UNROLL for (int v = 0; v < VECTORS; v++) acc[i][v] =
                pairs ? step_pair(acc[i][v], x, y[v]) : step_f32(acc[i][v], x, y[v]);
        }
    }
    if (o.first && o.last && n >= PANEL) {
        if (o.c.dtype == F32) tile_put(o, F32, acc, rows);
        else tile_put(o, BF16, acc, rows);
        return;
    }
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < VECTORS; v++) {
        float *sum = o.sums + i * o.pitch + v * LANES;
        vf before;
        memcpy(&before, sum, sizeof before);
        if (!o.first) acc[i][v] += before;
        memcpy(sum, &acc[i][v], sizeof before);
    }
    for (int i = 0; i < rows && o.last; i++)
        row_put((void *)rows_at(o.c, i).data, o.c.dtype, o.add, o.sums + i * o.pitch, n < PANEL ? n : PANEL);
}

#define TILE(r)                                                                                                        \
    case r: tile(o, next, pairs, a, panel, units, n, r); break;
// `tile` for any number of rows, m.
ALWAYS_INLINE void tiles(Outputs o, Next *next, bool pairs, Broadcast a, int64_t m, const uint32_t *panel,
                         int64_t units, int64_t n) {
    for (; m >= ROWS; m -= ROWS, o = outputs_at(o, ROWS, 0), a.units += ROWS * a.row)
        tile(o, next, pairs, a, panel, units, n, ROWS);
    switch (m) {
        TILE(1)
        TILE(2)
        TILE(3)
#if ROWS > 4
        TILE(4) TILE(5)
#endif
    }
}

static int64_t tiles_of(int64_t m, int64_t n) { return (m + ROWS - 1) / ROWS * ((n + PANEL - 1) / PANEL); }

// What a thread packs, and its sums. Panels stay for the next task where it has the same rows of b, all in one chunk.
typedef struct {
    uint32_t panel[COLUMNS / PANEL][UNITS * PANEL] __attribute__((aligned(64)));
    uint32_t packed[UNITS * BLOCK_A] __attribute__((aligned(64)));
    float sums[OUTPUTS_DOWN] __attribute__((aligned(64)));
    const void *of; // the first of the rows of b that the panels hold, or NULL
} Room;
_Static_assert(sizeof(Room) < 1 << 20, "a Room is on the stack: STACK_LEAST (host/base/program.c) is twice this");

// One task: c[m,n] by the calling thread.
static void panel_block(Room *room, Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    const int64_t each = unit_elements(a.dtype), step = (a.down ? UNITS_DOWN : UNITS) * each;
    const bool pairs = each == 2, direct = lies_in_units(a, K);
    const int64_t block = direct ? m : BLOCK_A;
    // With constants a tile's loop has no distances to reload: on AVX2 1.1 to 1.3x.
    const Broadcast packed = {(const char *)room->packed, 4, BLOCK_A * 4};
    for (int64_t k = 0; k < K || k == 0; k += step) {
        const int64_t len = K - k < step ? K - k : step, units = (len + each - 1) / each;
        const int64_t after = K - k - step < step ? K - k - step : step; // elements of the next chunk
        Outputs all = {c, room->sums, (n + PANEL - 1) / PANEL * PANEL, add, k == 0, k + step >= K};
        Next next = {0};
        // Where a lies as it is read, it and the sums fill the second-level cache: there is no room for more.
        if (!direct) next.b = ahead_of(cols_at(b, k + step), n, after, tiles_of(m, n));
        for (int64_t j = 0; j < n && room->of != b.data; j += PANEL)
            pack(room->panel[j / PANEL], PANEL, cols_at(rows_at(b, j), k), n - j < PANEL ? n - j : PANEL, len);
        room->of = K <= step ? b.data : NULL;
        for (int64_t i = 0; i < m; i += block) {
            int64_t rows = m - i < block ? m - i : block;
            Rows ak = cols_at(rows_at(a, i), k);
            Broadcast from = {ak.data, a.stride * (int64_t)dtype_size(a.dtype), 4};
            if (!direct) {
                const int64_t more = m - i - block < block ? m - i - block : block, first = m < block ? m : block;
                pack(room->packed, BLOCK_A, ak, rows, len);
                next.a = more > 0 ? ahead_of(rows_at(ak, block), more, len, tiles_of(rows, n))
                                  : ahead_of(cols_at(a, k + step), first, after, tiles_of(rows, n));
                from = packed;
            }
            for (int64_t j = 0; j < n; j += PANEL) {
                Outputs o = outputs_at(all, i, j);
                const uint32_t *panel = room->panel[j / PANEL];
                if (pairs) tiles(o, &next, true, from, rows, panel, units, n - j);
                else if (direct) tiles(o, &next, false, from, rows, panel, units, n - j);
                else tiles(o, &next, false, packed, rows, panel, units, n - j);
            }
        }
    }
}

void panel_all(Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    int64_t columns = lies_in_units(a, K) ? COLUMNS / 2 : COLUMNS, rows = (a.down ? OUTPUTS_DOWN : OUTPUTS) / columns;
    while (columns > LEAST && (m + rows - 1) / rows * ((n + columns - 1) / columns) < 4 * thread_limit()) columns /= 2;
#pragma omp parallel if (m * n * K > DOT_SMALL)
    {
        Room room;
        room.of = NULL;
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t j = 0; j < n; j += columns)
            for (int64_t i = 0; i < m; i += rows) {
                int64_t bm = m - i < rows ? m - i : rows, bn = n - j < columns ? n - j : columns;
                panel_block(&room, cols_at(rows_at(c, i), j), add, rows_at(a, i), bm, rows_at(b, j), bn, K);
            }
    }
}
