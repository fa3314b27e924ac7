// bf16 matrix products on AMX tile registers, forward and backward.
//
// An output is one chain: K in steps of 32 elements counted from 0, one instruction each, which adds the sum of its 16
// even products and the sum of its 16 odd ones (twin.h has its exact arithmetic). Past the end of K and of the rows
// there are zeros. So no output depends on the rows beside it, and a row has the same bits alone as among others.
//
// Four accumulators are used at a time, 2 x 2 tiles: 64 cycles for four instructions. Their four loads take 32 from the
// first-level cache and 86 from the second, so one operand stays in the first, two rows of tiles and a piece of K of
// them, and the other goes past it once for every such pair, by loads that do not put it there. Between pieces the
// accumulators are kept in memory, unrounded.
//
// What stays: in a forward product the weights, as they are stored where there are few tokens, else copied; in dx the
// weights, whose rows run down memory, two by two; in dw dy, transposed. What goes past: tokens, in dx dy.
#include "tile.h"
#include "error.h"
#include "parallel.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(ISA_amx)
#include "ahead.h"
#include "tile_unit.h"

#define PIECE   20                 // tiles along K that stay, at most: 2 x 20 KiB of 48
#define PAIR    (2 * TILE_EDGE)    // rows of an operand that meet at a time
#define WINDOW  512                // rows that go past in a task, at most
#define NEAR    ((int64_t)1 << 20) // bytes that a second-level cache of 2 MiB keeps beside all else
#define FAR     ((int64_t)2 << 20) // bytes of outputs that are not looked for in it
#define STAYS   384                // tiles that are packed at a time
#define BATCH   8                  // pairs of rows down memory that are packed at a time: 512 bytes side by side
#define SUMS    256                // blocks of 2 x 2 accumulators that are kept between pieces
#define FEW     (4 * PAIR)         // rows going past for which what stays is not copied
#define ELEMENT ((int64_t)sizeof(uint16_t))

TILES_HERE

static inline int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }
static inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

// --- Tiles in memory ---

// Transposes 16 rows of 16 f32 (or pairs of bf16), `row` bytes apart, to 1 KiB, which may be where they are.
ALWAYS_INLINE void transpose_tile(char *to, const char *from, int64_t row) {
    vf x[16];
#if defined(__AVX512F__)
    // Quarters of rows are put side by side as they are loaded, so that half of the shuffles go away.
#define QUARTER(r)    _mm512_castps128_ps512(_mm_loadu_ps((const float *)(from + (r)*row) + 4 * q))
#define LANE(v, r, l) _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(from + (r)*row) + 4 * q), l)
    UNROLL for (int q = 0; q < 4; q++) {
        __m512 v[4];
        UNROLL for (int g = 0; g < 4; g++) v[g] = LANE(LANE(LANE(QUARTER(g), 4 + g, 1), 8 + g, 2), 12 + g, 3);
        __m512 a = _mm512_unpacklo_ps(v[0], v[1]), b = _mm512_unpackhi_ps(v[0], v[1]);
        __m512 c = _mm512_unpacklo_ps(v[2], v[3]), d = _mm512_unpackhi_ps(v[2], v[3]);
        x[4 * q] = (vf)_mm512_shuffle_ps(a, c, 0x44), x[4 * q + 1] = (vf)_mm512_shuffle_ps(a, c, 0xee);
        x[4 * q + 2] = (vf)_mm512_shuffle_ps(b, d, 0x44), x[4 * q + 3] = (vf)_mm512_shuffle_ps(b, d, 0xee);
    }
#undef QUARTER
#undef LANE
#else
    for (int i = 0; i < 16; i++) memcpy(&x[i], from + i * row, 64);
    vf_transpose(x);
#endif
    memcpy(to, x, TILE_BYTES);
}

// Interleaves two lines of 32 bf16: pairs of the first 16 columns, and of the others.
ALWAYS_INLINE void interleave(vf x[2], const char *line, const char *next) {
#if defined(__AVX512BW__)
    const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                           37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    __m512i a = _mm512_loadu_si512(line), b = _mm512_loadu_si512(next);
    x[0] = (vf)_mm512_permutex2var_epi16(a, first, b);
    x[1] = (vf)_mm512_permutex2var_epi16(a, _mm512_add_epi16(first, _mm512_set1_epi16(16)), b);
#else
    x[0] = (vf)pairs_down(line, next, 16), x[1] = (vf)pairs_down(line + 32, next + 32, 16);
#endif
}

// One tile from rows contiguous along K, of which n exist with `len` elements each; the rest is 0.
static void pack_along(char *to, Rows r, int64_t n, int64_t len, bool right) {
    const char *from = r.data;
    int64_t row = r.stride * ELEMENT;
    char copy[TILE_BYTES];
    if (n < TILE_EDGE || len < TILE_DEPTH) {
        memset(copy, 0, TILE_BYTES);
        for (int64_t i = 0; i < n && i < TILE_EDGE; i++)
            memcpy(copy + i * 64, from + i * row, (size_t)(len < TILE_DEPTH ? len * ELEMENT : 64));
        from = copy, row = 64;
    }
    if (right) transpose_tile(to, from, row);
    else
        for (int64_t i = 0; i < TILE_EDGE; i++) memcpy(to + i * 64, from + i * row, 64);
}
// Pair p of two tiles, `across` bytes apart, from 32 rows that run down memory, of which n exist; of the elements `len`
// are left.
ALWAYS_INLINE void pack_down(char *to, int64_t across, Rows r, int64_t n, int64_t len) {
    const char *line = r.data, *next = len > 1 ? line + r.stride * ELEMENT : NULL;
    vf x[2] = {{0}, {0}};
    if (n >= PAIR && next) interleave(x, line, next);
    else if (len > 0) {
        x[0] = (vf)pairs_down(line, next, n);
        if (n > TILE_EDGE) x[1] = (vf)pairs_down(line + 32, next ? next + 32 : NULL, n - TILE_EDGE);
    }
    memcpy(to, &x[0], 64);
    memcpy(to + across, &x[1], 64);
}
#define PACK_AHEAD 16 // rows of memory that are asked for before they are packed: no prefetcher foresees them

// Packs n rows of r: `along` tiles of each along K, of which K elements are left. A row of tiles has `row` bytes.
// Memory is read in its own order.
static void pack(char *to, int64_t row, Rows r, int64_t n, int64_t K, int64_t along, bool right) {
    if (!r.down)
        for (int64_t i = 0; i < ceil_div(n, PAIR) * PAIR; i += TILE_EDGE, to += row)
            for (int64_t k = 0; k < along; k++)
                pack_along(to + k * TILE_BYTES, cols_at(rows_at(r, i), k * TILE_DEPTH), n - i, K - k * TILE_DEPTH,
                           right);
    else
        for (int64_t k = 0; k < along; k++, to += TILE_BYTES) {
            for (int64_t p = 0; p < TILE_EDGE; p++) {
                const Rows lines = cols_at(r, k * TILE_DEPTH + 2 * p);
                for (int64_t i = 0; i < n; i += PAIR) {
                    const char *line = rows_at(lines, i).data;
                    __builtin_prefetch(line + PACK_AHEAD * r.stride * ELEMENT);
                    __builtin_prefetch(line + (PACK_AHEAD + 1) * r.stride * ELEMENT);
                    pack_down(to + i / TILE_EDGE * row + p * 64, row, rows_at(lines, i), n - i,
                              K - k * TILE_DEPTH - 2 * p);
                }
            }
            for (int64_t i = 0; i < n && !right; i += TILE_EDGE)
                transpose_tile(to + i / TILE_EDGE * row, to + i / TILE_EDGE * row, 64);
        }
}

// Bytes of one row of tiles, and of n rows of an operand that are packed: pairs of rows of tiles.
static int64_t tile_row_bytes(int64_t K) { return ceil_div(K, TILE_DEPTH) * TILE_BYTES; }
static int64_t packed_bytes(int64_t n, int64_t K) { return ceil_div(n, PAIR) * 2 * tile_row_bytes(K); }

// Packs n rows in scratch, by all threads.
static Rows pack_all(Arena *scratch, Rows r, int64_t n, int64_t K, bool right) {
    const int64_t row = tile_row_bytes(K), along = ceil_div(K, TILE_DEPTH);
    char *to = arena_take(scratch, (size_t)packed_bytes(n, K));
#pragma omp parallel for if (n * K > PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += PAIR)
        pack(to + i / TILE_EDGE * row, row, rows_at(r, i), min_of(n - i, PAIR), K, along, right);
    r.tiles = to;
    r.tile_row = row;
    return r;
}
Rows tile_pack(Arena *scratch, Rows r, int64_t n, int64_t K) { return pack_all(scratch, r, n, K, true); }

// A pair of rows of tiles that stays: tile (i, k) begins at `at` + i * down + k * along, its rows `row` bytes apart.
// The tiles at edges of an operand that is not packed are not whole: of those a padded copy is read.
typedef struct {
    const char *at;
    int64_t down, along, row; // bytes
    int64_t rows, whole;      // rows of tiles that are whole, and tiles along K
    Rows r;
    int64_t n, K; // rows and elements of r
} Pair;

static Pair pair_of(Rows r, int64_t n, int64_t K) {
    const int64_t row = r.stride * ELEMENT;
    return (Pair){r.data, row * TILE_EDGE, 64, row, n / TILE_EDGE, K / TILE_DEPTH, r, n, K};
}
static Pair pair_packed(const char *at, int64_t down) {
    return (Pair){at, down, TILE_BYTES, 64, INT64_MAX, INT64_MAX, {0}, 0, 0};
}
static inline const char *tile_at(const Pair *s, int64_t i, int64_t k, char *copy, int64_t *row) {
    *row = s->row;
    if (i < s->rows && k < s->whole) return s->at + i * s->down + k * s->along;
    pack_along(copy, cols_at(rows_at(s->r, i * TILE_EDGE), k * TILE_DEPTH), s->n - i * TILE_EDGE, s->K - k * TILE_DEPTH,
               false);
    *row = 64;
    return copy;
}
// What goes past, which is packed: tile (j, k) is at `at` + j * down + k * TILE_BYTES.
typedef struct {
    const char *at;
    int64_t down; // bytes
} Past;

// --- A pair of rows of tiles meets another ---

// Registers: 4 and 5 are what stays, 6 and 7 what goes past; accumulator 2 i + j is of i of the one and j of the other,
// its rows those of the left operand.
#define DOT(c, s, p)                                                                                                   \
    do {                                                                                                               \
        if (left_stays) tile_dot(c, s, p);                                                                             \
        else tile_dot(c, p, s);                                                                                        \
    } while (0)
// One step of K: rows of tiles of s at a0 and a1, their rows `row0` and `row1` bytes apart.
#define STEP(a0, row0, a1, row1)                                                                                       \
    do {                                                                                                               \
        tile_load_once(6, b, 64);                                                                                      \
        tile_load(4, a0, row0);                                                                                        \
        DOT(0, 4, 6);                                                                                                  \
        if (columns > 1) {                                                                                             \
            tile_load_once(7, b + p.down, 64);                                                                         \
            DOT(1, 4, 7);                                                                                              \
        }                                                                                                              \
        if (rows > 1) {                                                                                                \
            tile_load(5, a1, row1);                                                                                    \
            DOT(2, 5, 6);                                                                                              \
            if (columns > 1) DOT(3, 5, 7);                                                                             \
        }                                                                                                              \
    } while (0)

// sum[4] = (or +=, where `from` is not 0) the products over the tiles [from, to) along K of `rows` rows of tiles of s
// and the first `columns` of p, 1 or 2 each.
ALWAYS_INLINE void meet(float (*sum)[256], const Pair *s, Past p, int64_t from, int64_t to, Ahead *ahead,
                        const bool left_stays, const int rows, const int columns) {
    if (from == 0) {
        tile_zero(0);
        if (columns > 1) tile_zero(1);
        if (rows > 1) tile_zero(2);
        if (rows > 1 && columns > 1) tile_zero(3);
    } else {
        tile_load(0, sum[0], 64);
        if (columns > 1) tile_load(1, sum[1], 64);
        if (rows > 1) tile_load(2, sum[2], 64);
        if (rows > 1 && columns > 1) tile_load(3, sum[3], 64);
    }
    const int64_t whole = rows <= s->rows ? min_of(to, s->whole) : from;
    const char *a = s->at + from * s->along, *b = p.at + from * TILE_BYTES;
    int64_t k = from;
    for (; k < whole; k++, a += s->along, b += TILE_BYTES) {
        STEP(a, s->row, a + s->down, s->row);
        ahead_fetch(ahead);
    }
    for (; k < to; k++, b += TILE_BYTES) {
        char copy[2][TILE_BYTES] __attribute__((aligned(64)));
        int64_t row[2];
        const char *a0 = tile_at(s, 0, k, copy[0], &row[0]), *a1 = rows > 1 ? tile_at(s, 1, k, copy[1], &row[1]) : a0;
        STEP(a0, row[0], a1, row[1]);
    }
    tile_store(0, sum[0], 64);
    if (columns > 1) tile_store(1, sum[1], 64);
    if (rows > 1) tile_store(2, sum[2], 64);
    if (rows > 1 && columns > 1) tile_store(3, sum[3], 64);
}
// meet for `rows` rows of s and `columns` of p, at most 32 each.
ALWAYS_INLINE void meet_any(float (*sum)[256], const Pair *s, Past p, int64_t from, int64_t to, Ahead *ahead,
                            const bool left_stays, int64_t rows, int64_t columns) {
    if (rows > TILE_EDGE && columns > TILE_EDGE) meet(sum, s, p, from, to, ahead, left_stays, 2, 2);
    else if (rows > TILE_EDGE) meet(sum, s, p, from, to, ahead, left_stays, 2, 1);
    else if (columns > TILE_EDGE) meet(sum, s, p, from, to, ahead, left_stays, 1, 2);
    else meet(sum, s, p, from, to, ahead, left_stays, 1, 1);
}

// --- Outputs ---

// A product, c = s p^T or c = p s^T: s stays, p goes past.
typedef struct {
    Rows c;
    bool add;
    bool rows_stay;  // whether c's rows are those of s
    bool left_stays; // whether s is the left operand
    Rows s, p;
    int64_t n_s, n_p, K; // rows of each
    bool far;            // whether c is too large for the caches: then its lines are written without being read first
} Product;

// Writes (or adds) the sums of a block to c[m,n], from (i, j) on; m and n are at most 32.
static void put(const Product *o, float (*sum)[256], int64_t i, int64_t j, int64_t m, int64_t n) {
    const bool transposed = o->rows_stay != o->left_stays;
    Rows c = cols_at(rows_at(o->c, i), j);
    for (int64_t y = 0; y * TILE_EDGE < m; y++) {
        float *t[2] = {sum[o->rows_stay ? 2 * y : y], sum[o->rows_stay ? 2 * y + 1 : 2 + y]};
        const int64_t rows = min_of(m - y * TILE_EDGE, TILE_EDGE), first = min_of(n, TILE_EDGE);
        if (transposed) {
            transpose_tile((char *)t[0], (char *)t[0], 64);
            if (n > TILE_EDGE) transpose_tile((char *)t[1], (char *)t[1], 64);
        }
        Rows cy = rows_at(c, y * TILE_EDGE);
#if defined(__AVX512BF16__)
        // The instruction makes denormals 0, but the tiles' sums are none (twin.h).
        if (n == PAIR && cy.dtype == BF16 && !o->add) {
            for (int64_t r = 0; r < rows; r++) {
                __m512bh two = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(t[1] + r * 16), _mm512_loadu_ps(t[0] + r * 16));
                char *to = (char *)rows_at(cy, r).data;
                if (o->far && (uintptr_t)to % 64 == 0) _mm512_stream_si512((void *)to, (__m512i)two);
                else memcpy(to, &two, 64);
            }
            continue;
        }
#endif
        for (int64_t r = 0; r < rows; r++) {
            void *row = (void *)rows_at(cy, r).data;
            row_put(row, cy.dtype, o->add, t[0] + r * 16, first);
            if (n > TILE_EDGE)
                row_put((char *)row + TILE_EDGE * dtype_size(cy.dtype), cy.dtype, o->add, t[1] + r * 16, n - TILE_EDGE);
        }
    }
}
// Other threads see what was written past the caches.
static inline void put_done(void) {
#if defined(__AVX512BF16__)
    _mm_sfence();
#endif
}
// Asks for the lines of c that a block will end in: they come while it is multiplied.
static void put_fetch(Rows c, int64_t i, int64_t j, int64_t m, int64_t n) {
    c = cols_at(rows_at(c, i), j);
    for (int64_t r = 0; r < m; r++)
        for (int64_t at = 0; at < n * (int64_t)dtype_size(c.dtype); at += 64)
            __builtin_prefetch((const char *)rows_at(c, r).data + at, 1);
}

// --- Tasks ---

// What a thread works with: pairs that stay, one piece of K of what goes past, and accumulators between pieces.
typedef struct {
    char stays[STAYS * TILE_BYTES] __attribute__((aligned(64)));
    char past[WINDOW / TILE_EDGE * PIECE * TILE_BYTES] __attribute__((aligned(64)));
    float sums[SUMS][4][256] __attribute__((aligned(64)));
} Room;

_Static_assert(sizeof(Room) == 2 << 20, "a huge page");

// Rooms that no thread uses: as many are made as threads are ever at work at once. Not on their stacks, which may be as
// small as that, nor their own: a thread may end with any product.
struct FreeRoom {
    struct FreeRoom *next;
};
static struct FreeRoom *free_rooms;
static pthread_mutex_t free_rooms_lock = PTHREAD_MUTEX_INITIALIZER;

static Room *room_take(void) {
    pthread_mutex_lock(&free_rooms_lock);
    struct FreeRoom *room = free_rooms;
    if (room) free_rooms = room->next;
    pthread_mutex_unlock(&free_rooms_lock);
    if (room) return (Room *)room;
    room = aligned_alloc(sizeof(Room), sizeof(Room));
    if (!room) out_of_memory("%zu bytes that a thread needs for matrix products", sizeof(Room));
    madvise(room, sizeof(Room), MADV_HUGEPAGE);
    return (Room *)room;
}
static void room_give(Room *r) {
    struct FreeRoom *room = (struct FreeRoom *)r;
    pthread_mutex_lock(&free_rooms_lock);
    room->next = free_rooms;
    free_rooms = room;
    pthread_mutex_unlock(&free_rooms_lock);
}

// One of the tasks that a product is cut into: rows [i, i + n_s) of s and [j, j + n_p) of p.
typedef struct {
    int64_t i, n_s, j, n_p;
    int64_t along, piece; // tiles along K; those of a piece
    bool direct;          // whether s is read as it is stored
    // Pairs of s that are packed together, and that go together through all of K; tiles along K that are packed.
    int64_t batch, group, depth;
} Task;

// Where all of p is packed, it lies in the second-level cache (or is short): then a pair meets it over all of K before
// the next one. Else many pairs do, one piece of K after the other, for which p is packed by the task.
static Task task_of(const Product *o, int64_t i, int64_t n_s, int64_t j, int64_t n_p) {
    const int64_t blocks = ceil_div(n_p, PAIR);
    Task t = {.i = i, .n_s = n_s, .j = j, .n_p = n_p, .along = ceil_div(o->K, TILE_DEPTH), .batch = 1, .group = 1};
    t.direct = o->p.tiles && !o->s.down && n_p <= FEW;
    t.piece = t.direct && blocks == 1 ? t.along : ceil_div(t.along, ceil_div(t.along, PIECE));
    t.depth = t.direct ? t.along : t.piece;
    if (t.direct) t.batch = t.group = BATCH; // memory is read on while one is multiplied, but not while it is put
    if (t.direct || (o->p.tiles && !o->s.down)) return t;
    if (o->p.tiles && 2 * t.along <= STAYS) {
        t.depth = t.along;
        const int64_t pairs = ceil_div(n_s, PAIR), most = min_of(STAYS / 2 / t.along, BATCH);
        t.batch = t.group = ceil_div(pairs, ceil_div(pairs, most));
        return t;
    }
    t.group = SUMS / blocks;
    t.batch = ceil_div(t.group, ceil_div(t.group, min_of(STAYS / 2 / t.piece, t.group)));
    return t;
}

// Puts the sums of a pair and the PAIR rows of p from q on.
static void put_pair(const Product *o, const Task *t, float (*sum)[256], int64_t i, int64_t rows, int64_t q) {
    const int64_t j = t->j + q, columns = min_of(t->n_p - q, PAIR);
    if (o->rows_stay) put(o, sum, i, j, rows, columns);
    else put(o, sum, j, i, columns, rows);
}

// The pair of `rows` rows of s from row i on meets the task's p over the tiles [from, to) along K.
ALWAYS_INLINE void pass(float (*sums)[4][256], const Product *o, const Task *t, const Pair *s, int64_t i, int64_t rows,
                        Past p, int64_t from, int64_t to, Ahead *ahead, const bool left_stays) {
    const bool last = to == t->along && !t->direct; // a direct task puts its sums later
    for (int64_t q = 0; q < t->n_p; q += PAIR, p.at += 2 * p.down) {
        const int64_t j = t->j + q, columns = min_of(t->n_p - q, PAIR);
        float(*sum)[256] = sums[t->direct || t->piece < t->along ? q / PAIR : 0];
        if (last && !o->far && o->rows_stay) put_fetch(o->c, i, j, rows, columns);
        else if (last && !o->far) put_fetch(o->c, j, i, columns, rows);
        meet_any(sum, s, p, from, to, ahead, left_stays, rows, columns);
        if (last) put_pair(o, t, sum, i, rows, q);
    }
}

// What a task copies next: the pair's next piece of K, or the next pair (of a batch); in as many steps as this one
// takes. Lines of rows down memory are not asked for: so far apart, that costs more than it saves.
static Ahead ahead_of(const Product *o, const Task *t, int64_t g, int64_t k, int64_t b, int64_t steps) {
    const int64_t group_end = min_of(g + t->group * PAIR, t->n_s);
    b += t->batch * PAIR;
    if (b >= group_end) b = g, k += t->depth;
    if (k >= t->along) b = group_end, k = 0;
    if (t->direct || o->s.down || b >= t->n_s) return (Ahead){0};
    const int64_t rows = min_of(t->n_s - b, t->batch * PAIR),
                  bytes = min_of(o->K - k * TILE_DEPTH, t->depth * TILE_DEPTH) * ELEMENT;
    return (Ahead){cols_at(rows_at(o->s, t->i + b), k * TILE_DEPTH).data,
                   o->s.stride * ELEMENT,
                   bytes,
                   rows,
                   0,
                   ceil_div(rows * ceil_div(bytes, 64), steps)};
}

// The tiles [k, end) along K of a batch of pairs, n rows of s from row i on, go through all of the task's p. A pair's
// accumulators are `apart` blocks after those of the one before.
ALWAYS_INLINE void batch(Room *room, float (*sums)[4][256], int64_t apart, const Product *o, const Task *t, int64_t i,
                         int64_t n, Past p, int64_t k, int64_t end, Ahead ahead, const bool left_stays) {
    const int64_t down = t->depth * TILE_BYTES;
    if (!t->direct)
        pack(room->stays, down, cols_at(rows_at(o->s, i), k * TILE_DEPTH), n, o->K - k * TILE_DEPTH, end - k,
             !left_stays);
    for (int64_t x = 0; x < n; x += PAIR) {
        const int64_t rows = min_of(n - x, PAIR);
        const Pair s = t->direct ? pair_of(rows_at(o->s, i + x), rows, o->K)
                                 : pair_packed(room->stays + x / TILE_EDGE * down - k * TILE_BYTES, down);
        for (int64_t from = k; from < end; from += t->piece)
            pass(sums + x / PAIR * apart, o, t, &s, i + x, rows, p, from, min_of(from + t->piece, end), &ahead,
                 left_stays);
    }
    for (int64_t x = 0; x < n && t->direct; x += PAIR)
        for (int64_t q = 0; q < t->n_p; q += PAIR)
            put_pair(o, t, sums[x / PAIR * apart + q / PAIR], i + x, min_of(n - x, PAIR), q);
}

ALWAYS_INLINE void run(Room *room, const Product *o, const Task *t, const bool left_stays) {
    const int64_t blocks = ceil_div(t->n_p, PAIR), down = t->depth * TILE_BYTES;
    const Rows pj = rows_at(o->p, t->j);
    Past p = {pj.tiles, pj.tile_row};
    for (int64_t g = 0; g < t->n_s; g += t->group * PAIR) {
        const int64_t group_end = min_of(g + t->group * PAIR, t->n_s);
        for (int64_t k = 0; k < t->along; k += t->depth) {
            const int64_t end = min_of(k + t->depth, t->along);
            if (!pj.tiles) {
                pack(room->past, down, cols_at(pj, k * TILE_DEPTH), t->n_p, o->K - k * TILE_DEPTH, end - k, left_stays);
                p = (Past){room->past - k * TILE_BYTES, down};
            }
            for (int64_t b = g; b < group_end; b += t->batch * PAIR) {
                const int64_t n = min_of(group_end - b, t->batch * PAIR), at = (b - g) / PAIR * blocks;
                const bool kept = t->depth < t->along; // else a batch is done with its sums before the next begins,
                const bool apart = kept || t->direct;  // and a pair too, which a direct task puts later
                Ahead ahead = ahead_of(o, t, g, k, b, ceil_div(n, PAIR) * blocks * (end - k));
                batch(room, room->sums + (kept ? at : 0), apart ? blocks : 0, o, t, t->i + b, n, p, k, end, ahead,
                      left_stays);
            }
        }
    }
}
static void run_left(Room *room, const Product *o, Task t) { run(room, o, &t, true); }
static void run_right(Room *room, const Product *o, Task t) { run(room, o, &t, false); }

// c[m,n] = 0 where nothing is to be summed.
static void put_nothing(Rows c, bool add, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m && !add; i++) memset((void *)rows_at(c, i).data, 0, (size_t)n * dtype_size(c.dtype));
}

void tile_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    Rows to = {c, F32, stride, false, NULL, 0};
    Product o = {to, false, false, true, b, a, n, m, K};
    if (K == 0) {
        put_nothing(to, false, m, n);
        return;
    }
    if (!a.tiles) die("tile_block: rows that are not packed");
    Room *room = room_take();
    tile_open();
    for (int64_t p = 0; p < m; p += WINDOW) run_left(room, &o, task_of(&o, 0, n, p, min_of(m - p, WINDOW)));
    tile_close();
    room_give(room);
}

// A product by all threads. Tasks are as many as keep all threads at work, more where they only wait for memory, and
// where p is not packed few: each packs it once more.
static void multiply(const Product *o) {
    const int64_t threads = thread_limit(), pairs = ceil_div(o->n_s, PAIR);
    const int64_t most = SUMS / ceil_div(min_of(o->n_p, WINDOW), PAIR);
    int64_t tasks =
        o->p.tiles ? (o->n_p <= FEW ? 48 : 8) * threads : ceil_div(ceil_div(pairs, most), threads) * threads;
    if (o->p.tiles && o->s.down && pairs < 8 * threads * BATCH) // so that a task has a batch
        tasks = pairs < 2 * threads * BATCH ? 2 * threads : pairs / BATCH;
    const int64_t each = ceil_div(pairs, min_of(tasks, pairs)) * PAIR;
#pragma omp parallel if (o->n_s * o->n_p * o->K > DOT_SMALL)
    {
        Room *room = room_take();
        tile_open();
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t p = 0; p < o->n_p; p += WINDOW)
            for (int64_t s = 0; s < o->n_s; s += each)
                (o->left_stays ? run_left : run_right)(
                    room, o, task_of(o, s, min_of(o->n_s - s, each), p, min_of(o->n_p - p, WINDOW)));
        tile_close();
        put_done();
        room_give(room);
    }
}

void tile_all(Arena *scratch, Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    if (K == 0) put_nothing(c, add, m, n);
    if (m == 0 || n == 0 || K == 0) return;
    Product o;
    if (!b.down) o = (Product){c, add, false, true, b, a, n, m, K};
    else if (a.down) o = (Product){c, add, true, true, a, b, m, n, K};
    else o = (Product){c, add, false, false, b, a, n, m, K};
    o.far = !add && c.dtype == BF16 && m * n * ELEMENT > FAR;
    if (o.n_p > FEW && min_of(o.n_p, WINDOW) * K * ELEMENT > NEAR) {
        multiply(&o);
        return;
    }
    // p is packed: as many rows at a time as there is room for.
    const int64_t all = o.n_p, room = (int64_t)(scratch->cap - scratch->used - ARENA_ALIGN);
    int64_t most = packed_bytes(all, K) > room ? room / packed_bytes(PAIR, K) * PAIR : all;
    if (most <= 0) most = PAIR; // there is room for none: arena_take reports it
    const Rows past = o.p;
    for (int64_t i = 0; i < all; i += most) {
        size_t mark = arena_mark(scratch);
        o.n_p = min_of(all - i, most);
        o.p = pack_all(scratch, rows_at(past, i), o.n_p, K, o.left_stays);
        o.c = o.rows_stay ? cols_at(c, i) : rows_at(c, i);
        multiply(&o);
        arena_rewind(scratch, mark);
    }
}
#endif
