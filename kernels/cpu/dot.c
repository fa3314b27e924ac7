// Products of rows that are contiguous along K, by tiles of 16 outputs; and the way, for all threads, of every matrix
// product (dot.h has the contract).
//
// Nothing is packed, but where bf16 has to be widened (packed.c) or few rows of a meet all of b: a tile of 4 x 4
// outputs keeps 16 vector accumulators over K, loads 8 vectors for every 16 multiply-adds, and ends in one transposing
// tree that turns 16 vectors into 16 sums. A row more or less in a tile changes nothing for the others, so a product's
// rows are the same bits in every batch. A few rows of b stay in the first-level cache while all rows of a go past
// them, a piece of K at a time, and what comes next is asked for a little with every tile, so that memory and
// arithmetic are busy at the same time. For up to 8 rows of a (decode) of few bytes, which are limited by reading b, it
// is asked for in the order of memory.
#include "dot.h"
#include "error.h"
#include "lanes.h"
#include "packed.h"
#include "parallel.h"
#include "tile.h"

#define BLOCK_M    128 // a task is BLOCK_M x BLOCK_N outputs: a chunk of BLOCK_N rows of b fits the second-level cache
#define BLOCK_N    96
#define HELD       8     // row_alone and rows_few hold the accumulators of this many chunks of K at once
#define FEW        8     // rows of a, packed, for which b is asked for in the order of memory
#define FEW_BYTES  32768 // and their bytes, which leave the first-level cache room for b
#define SOME       20    // rows of a, at most, for which packing b (packed.c) takes longer than it saves
#define MORE       32    // rows of a that lie in the second-level cache whole, and not a chunk of K at a time
#define NEAR       12 // rows of b in the first-level cache, of NEAR_BYTES each: a piece of K; more where K is shorter
#define NEAR_BYTES 2048

// --- Tiles ---

// c[m,n] = (or +=, with `add`) one chunk of MR rows of a times 16 / MR rows of b. Rows past the end repeat the last one
// and are not stored; `whole`: there are none. Of each GROUP rows from `next` on, the first NF are prefetched.
ALWAYS_INLINE void tile(float *c, int64_t stride, bool add, DType t, int MR, Rows a, int64_t m, Rows b, int64_t n,
                        int64_t len, const bool whole, const int NF, Rows next) {
    const int NR = TILE / MR;
    vf acc[TILE];
    const void *pa[TILE_ROWS], *pb[GROUP], *pn[GROUP] = {0};
    UNROLL for (int i = 0; i < MR; i++) pa[i] = rows_at(a, whole || i < m ? i : m - 1).data;
    UNROLL for (int g = 0; g < NR; g += GROUP) {
        UNROLL for (int j = 0; j < GROUP; j++) pb[j] = rows_at(b, whole || g + j < n ? g + j : n - 1).data;
        UNROLL for (int j = 0; j < NF; j++) pn[j] = rows_at(next, g + j).data;
        vf partial[TILE_ROWS * GROUP];
        UNROLL for (int i = 0; i < MR * GROUP; i++) partial[i] = (vf){0};
        lanes(partial, t, MR, GROUP, pa, pb, len, NF, pn, (int64_t)dtype_size(next.dtype), 0, NULL);
        UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < GROUP; j++) acc[i * NR + g + j] =
            partial[i * GROUP + j];
    }
    float out[TILE];
    sum_lanes(out, acc, TILE);
    if (whole) m = MR, n = NR;
    for (int64_t i = 0; i < m && i < MR; i++, c += stride)
        for (int64_t j = 0; j < n && j < NR; j++) c[j] = add ? c[j] + out[i * NR + j] : out[i * NR + j];
}

// c[m,n] = (or +=, with `add`) one chunk of K, by tiles of MR rows of a. Row j's tile prefetches as tile does from row
// j of `next` on.
ALWAYS_INLINE void strip(float *c, int64_t stride, bool add, DType t, int MR, Rows a, int64_t m, Rows b, int64_t n,
                         int64_t len, const int NF, Rows next) {
    const int64_t NR = TILE / MR;
    int64_t j = 0;
    for (; m >= MR && j + NR <= n; j += NR)
        tile(c + j, stride, add, t, MR, a, MR, rows_at(b, j), NR, len, true, NF, rows_at(next, j));
    for (; j < n; j += NR)
        tile(c + j, stride, add, t, MR, a, m, rows_at(b, j), n - j, len, false, NF, rows_at(next, j));
}

// The beginnings of the next rows of a are asked for: what follows them the CPU finds out by itself.
ALWAYS_INLINE void begin_rows(Rows next) {
    UNROLL for (int i = 0; i < TILE_ROWS; i++) UNROLL for (int line = 0; line < 4; line++)
        __builtin_prefetch((const char *)rows_at(next, i).data + 64 * line, 0, 2);
}

// The same for any m. Only the first rows of a find b's outside the second-level cache; for the others prefetching
// would only ask it for every line twice, and on newer EPYCs that is what binds (57 instead of 75 % of the arithmetic).
ALWAYS_INLINE void chunk(float *c, int64_t stride, bool add, DType t, Rows a, int64_t m, Rows b, int64_t n,
                         int64_t len) {
    Rows after = rows_at(b, GROUP);
    _Alignas(64) float wide[WIDE_FLOATS(TILE_ROWS)];
    for (int64_t i = 0; i < m; i += TILE_ROWS) {
        int64_t left = m - i;
        float *y = c + i * stride;
        Rows ai = rows_at(a, i);
        begin_rows(left > 2 * TILE_ROWS ? rows_at(ai, TILE_ROWS) : ai);
        ai = wide_rows(wide, WIDE_STRIDE, t, ai, left < TILE_ROWS ? left : TILE_ROWS, len);
        if (left <= 2) strip(y, stride, add, t, 2, ai, left, b, n, len, GROUP, after);
        else if (i == 0) strip(y, stride, add, t, TILE_ROWS, ai, left, b, n, len, GROUP, after);
        else strip(y, stride, add, t, TILE_ROWS, ai, left, b, n, len, 0, after);
    }
}

#if WIDEN && MANY_REGISTERS
// The same for bf16 and many rows of a: rows of b are widened too, by the first strip, which asks for the next.
static __attribute__((noinline)) void wide_bf16(float *c, int64_t stride, bool add, Rows a, int64_t m, Rows b,
                                                int64_t n, int64_t len) {
    _Alignas(64) float wide_a[TILE_ROWS * WIDE_WIDTH], wide_b[BLOCK_N * WIDE_WIDTH];
    const int64_t NR = TILE / TILE_ROWS, padded = (len + WIDTH_BF16 - 1) / WIDTH_BF16 * WIDTH_BF16;
    const Rows bw = {wide_b, F32, WIDE_WIDTH, false, NULL, 0};
    for (int64_t i = 0; i < m; i += TILE_ROWS) {
        const int64_t left = m - i;
        float *y = c + i * stride;
        Rows ai = rows_at(a, i);
        begin_rows(left > 2 * TILE_ROWS ? rows_at(ai, TILE_ROWS) : ai);
        ai = wide_rows(wide_a, WIDE_WIDTH, BF16, ai, left < TILE_ROWS ? left : TILE_ROWS, len);
        for (int64_t j = 0; i == 0 && j < n; j += NR) {
            const int64_t bn = n - j < NR ? n - j : NR;
            Rows bj = wide_rows(wide_b + j * WIDE_WIDTH, WIDE_WIDTH, BF16, rows_at(b, j), bn, len);
            strip(y + j, stride, add, F32, TILE_ROWS, ai, left, bj, bn, padded, GROUP, rows_at(b, j + NR));
        }
        if (i > 0) strip(y, stride, add, F32, TILE_ROWS, ai, left, bw, n, padded, 0, bw);
    }
}
#endif

// --- Rows of b that stay near ---

// A piece of a chunk of K of up to TILE_ROWS rows of a and n of b.
typedef struct {
    float *c;                  // the outputs, rows `stride` apart
    int64_t stride, m, n, len; // m: the rows of a that are left, of which the first TILE_ROWS are taken
    bool add, begins, ends;    // whether c is added to; whether this is the chunk's first piece, its last
    vf *kept;          // [n / TILE_ROWS, TILE], rounded up: the tiles' sums over the pieces so far, spread over lanes
    const char *a, *b; // the first rows
    const char *near, *next; // the next rows of a, and of b, to ask for meanwhile
    int64_t a_row, b_row;    // bytes from a row to the next
    int half;                // 1: to ask for half a row of `next` at a time
} Strip;

// c = (or +=) the piece by tiles of TILE_ROWS rows of a. Each tile asks for the next row of `near`, and for NF rows of
// `next` in every GROUP of those that stand where its own rows of b do. Rows past the end repeat the last one and are
// not stored; `whole`: there are none.
ALWAYS_INLINE void near_strip(const Strip *s, DType t, const int NF, const bool whole) {
    const void *pa[TILE_ROWS];
    UNROLL for (int i = 0; i < TILE_ROWS; i++) pa[i] = s->a + (whole || i < s->m ? i : s->m - 1) * s->a_row;
    for (int64_t j = 0; j < s->n; j += TILE_ROWS) {
        const char *b = s->b + j * s->b_row, *next = s->next + j * s->b_row;
        const int64_t m = whole ? TILE_ROWS : s->m, n = whole ? TILE_ROWS : s->n - j;
        vf acc[TILE];
        if (s->begins) {
            UNROLL for (int i = 0; i < TILE; i++) acc[i] = (vf){0};
        } else {
            UNROLL for (int i = 0; i < TILE; i++) acc[i] = s->kept[j / TILE_ROWS * TILE + i];
        }
        UNROLL for (int g = 0; g < TILE_ROWS; g += GROUP) {
            const void *pb[GROUP], *pn[GROUP] = {0}, *near = g == 0 ? s->near + j / TILE_ROWS * s->a_row : NULL;
            UNROLL for (int i = 0; i < GROUP; i++) pb[i] = b + (g + i < n ? g + i : n - 1) * s->b_row;
            UNROLL for (int i = 0; i < NF; i++) pn[i] = next + (g + i) * s->b_row;
            vf part[TILE_ROWS * GROUP];
            UNROLL for (int i = 0; i < TILE_ROWS * GROUP; i++) part[i] = acc[i / GROUP * TILE_ROWS + g + i % GROUP];
            lanes(part, t, TILE_ROWS, GROUP, pa, pb, s->len, NF, pn, (int64_t)dtype_size(t), s->half, near);
            UNROLL for (int i = 0; i < TILE_ROWS * GROUP; i++) acc[i / GROUP * TILE_ROWS + g + i % GROUP] = part[i];
        }
        if (!s->ends) {
            UNROLL for (int i = 0; i < TILE; i++) s->kept[j / TILE_ROWS * TILE + i] = acc[i];
            continue;
        }
        float out[TILE], *c = s->c + j;
        sum_lanes(out, acc, TILE);
        for (int64_t i = 0; i < m && i < TILE_ROWS; i++, c += s->stride) {
            v4f sum, before;
            memcpy(&sum, out + i * TILE_ROWS, sizeof sum);
            if (n < TILE_ROWS) {
                for (int64_t k = 0; k < n; k++) c[k] = s->add ? c[k] + sum[k] : sum[k];
                continue;
            }
            if (s->add) memcpy(&before, c, sizeof before), sum += before;
            memcpy(c, &sum, sizeof sum);
        }
    }
}

static __attribute__((noinline)) void edge_strip_f32(const Strip *s) { near_strip(s, F32, 1, false); }
static __attribute__((noinline)) void edge_strip_bf16(const Strip *s) { near_strip(s, BF16, 1, false); }

// c[m,n] = (or +=, with `add`) a[m,K] b[n,K]^T for m <= BLOCK_M, a few rows of b after the other; where rows of a have
// to be widened, for m <= MORE and one chunk of K. A piece of K of the rows of b stays in the first-level cache while
// strips of a come from the second, of which each asks for the next. The first GROUP strips ask for the next rows of b
// too, all of them once; where there are 2 GROUP, so many for half of each; of GROUP - 1 the first for those of two.
ALWAYS_INLINE void near_rows(float *c, int64_t stride, bool add, DType t, Rows a, int64_t m, Rows b, int64_t n,
                             int64_t K) {
    const int64_t size = (int64_t)dtype_size(t), chunk = DOT_CHUNK / size, piece = NEAR_BYTES / size;
    const int64_t strips = (m + TILE_ROWS - 1) / TILE_ROWS, asking = strips < 2 * GROUP ? GROUP : 2 * GROUP;
    const int64_t rows = K < piece ? NEAR * piece / K / TILE_ROWS * TILE_ROWS : NEAR;
    vf kept[BLOCK_M / TILE_ROWS][NEAR / TILE_ROWS * TILE]; // where K has more pieces than one
    _Alignas(64) float wide[WIDE_FLOATS(MORE)];
    a = wide_rows(wide, WIDE_STRIDE, t, a, m, K);
    Strip s = {.stride = stride, .a_row = a.stride * (int64_t)dtype_size(a.dtype), .b_row = b.stride * size};
    s.half = asking > GROUP;
    for (int64_t j = 0; j < n; j += rows)
        for (int64_t k = 0; k < K; k += s.len) {
            const int64_t left = chunk - k % chunk < K - k ? chunk - k % chunk : K - k;
            s.len = left < piece ? left : piece;
            s.n = n - j < rows ? n - j : rows;
            s.add = add || k >= chunk, s.begins = k % chunk == 0, s.ends = s.len == left;
            s.a = cols_at(a, k).data, s.b = cols_at(rows_at(b, j), k).data;
            const char *after = s.b + rows * s.b_row;
            for (int64_t i = 0; i < strips; i++, s.a = s.near) {
                s.c = c + i * TILE_ROWS * stride + j, s.m = m - i * TILE_ROWS, s.kept = kept[i];
                s.near = i + 1 < strips ? s.a + TILE_ROWS * s.a_row : cols_at(a, k + s.len < K ? k + s.len : 0).data;
                const int64_t row = s.half ? i / 2 : strips < GROUP && i > 0 ? i + 1 : i;
                s.next = after + row * s.b_row + (s.half && i % 2 ? s.len / 2 * size : 0);
                if (j + rows >= n || i >= asking) s.next = s.b; // which is near already
                if (s.m < TILE_ROWS || s.n % TILE_ROWS != 0) (t == F32 ? edge_strip_f32 : edge_strip_bf16)(&s);
                else if (s.next == s.b) near_strip(&s, t, 0, true);
                else if (strips < GROUP && i == 0) near_strip(&s, t, 2, true);
                else near_strip(&s, t, 1, true);
            }
        }
}

// c[n] = a[K] b[n,K]^T for a single row a: each row of b is read to its end before the next one, and asked for a chunk
// ahead, without which newer EPYCs reach 64 to 94 % of what their memory gives.
ALWAYS_INLINE void row_alone(float *c, DType t, Rows a, Rows b, int64_t n, int64_t K) {
    const int64_t size = DOT_CHUNK / (int64_t)dtype_size(t);
    _Alignas(64) float wide[WIDE_FLOATS(HELD)];
    for (int64_t k0 = 0; k0 < K; k0 += HELD * size) {
        const void *pa[HELD] = {0};
        for (int64_t k = k0, h = 0; k < K && h < HELD; k += size, h++)
            pa[h] = wide_rows(wide + h * WIDE_STRIDE, 0, t, cols_at(a, k), 1, K - k < size ? K - k : size).data;
        for (int64_t j = 0; j < n; j += TILE) {
            vf acc[HELD][TILE];
            int chunks = 0;
            for (int r = 0; r < TILE; r++) {
                Rows row = rows_at(b, j + r < n ? j + r : n - 1);
                chunks = 0;
                for (int64_t k = k0; k < K && chunks < HELD; k += size, chunks++) {
                    const void *pb = cols_at(row, k).data, *next = cols_at(row, k + size).data;
                    acc[chunks][r] = (vf){0};
                    lanes(&acc[chunks][r], t, 1, 1, pa + chunks, &pb, K - k < size ? K - k : size, 1, &next,
                          (int64_t)dtype_size(t), 0, NULL);
                }
            }
            for (int h = 0; h < chunks; h++) {
                float out[TILE];
                sum_lanes(out, acc[h], TILE);
                for (int r = 0; r < TILE && j + r < n; r++) c[j + r] = k0 + h > 0 ? c[j + r] + out[r] : out[r];
            }
        }
    }
}

// Rows of a for rows_few, in steps of a vector of b: step s of row i as `lanes` reads it at s MR + i, zeros past K and
// past the rows.
typedef struct {
    _Alignas(64) char steps[FEW_BYTES];
} FewRows;
static int64_t few_step(DType t) { return t == F32 ? LANES : WIDTH_BF16; } // elements
static int64_t few_step_bytes(DType t) { return t == F32 || !WIDEN ? (int64_t)sizeof(vf) : (int64_t)sizeof(BfVec); }

static void few_pack(FewRows *p, DType t, int MR, Rows a, int64_t m, int64_t K) {
    const int64_t step = few_step(t), bytes = few_step_bytes(t);
    char *to = p->steps;
    for (int64_t k = 0; k < K; k += step)
        for (int64_t i = 0; i < MR; i++, to += bytes) {
            const int64_t n = i >= m ? 0 : K - k < step ? K - k : step;
            const void *from = cols_at(rows_at(a, i < m ? i : 0), k).data;
            if (t == BF16 && WIDEN) {
                BfVec x = load_bf16_most(from, n);
                memcpy(to, &x, sizeof x);
                continue;
            }
            if (n < step) memset(to, 0, (size_t)bytes);
            memcpy(to, from, (size_t)n * dtype_size(t));
        }
}

// acc[R,MR] = the products of MR packed rows of a, from `a` on, and R rows of b, `row` elements apart, as lanes makes
// them. What comes `ahead` elements after them is asked for, in the order of memory where the rows have len elements.
#define DEFINE_LANES_FEW(name, ElemA, Elem, Loaded, STEP, load_a, load, load_part, step)                               \
    ALWAYS_INLINE void name(vf *acc, int MR, const int R, const ElemA *a, const Elem *b, int64_t row, int64_t len,     \
                            int64_t ahead) {                                                                           \
        UNROLL for (int i = 0; i < R * MR; i++) acc[i] = (vf){0};                                                      \
        for (int64_t k = 0; k < len; k += STEP, a += MR * STEP) {                                                      \
            Loaded y[2];                                                                                               \
            UNROLL for (int r = 0; r < R; r++) {                                                                       \
                const Elem *at = b + r * row + k;                                                                      \
                y[r] = k + STEP <= len ? load(at) : load_part(at, len - k);                                            \
                __builtin_prefetch(b + R * k + r * STEP + ahead, 0, 3);                                                \
            }                                                                                                          \
            UNROLL for (int i = 0; i < MR; i++) {                                                                      \
                Loaded x = load_a(a + i * STEP);                                                                       \
                UNROLL for (int r = 0; r < R; r++) acc[r * MR + i] = step(acc[r * MR + i], x, y[r]);                   \
            }                                                                                                          \
        }                                                                                                              \
    }
DEFINE_LANES_FEW(lanes_few_f32, float, float, vf, LANES, load_f32, load_f32, load_f32_part, step_f32)
DEFINE_LANES_FEW(lanes_few_bf16, RowElem, uint16_t, BfVec, WIDTH_BF16, load_row, load_bf16, load_bf16_part, step_bf16)

// c[m,n] = a[m,K] b[n,K]^T for m <= MR <= FEW rows, whose packed bytes fit FEW_BYTES: R rows of b at a time, each to
// its end, asked for two chunks ahead.
ALWAYS_INLINE void rows_few(float *c, int64_t stride, DType t, const int MR, Rows a, int64_t m, Rows b, int64_t n,
                            int64_t K) {
    const int64_t size = DOT_CHUNK / (int64_t)dtype_size(t), group = TILE / MR;
    // Two where eight sums alone would wait for their own last step, and registers hold sixteen.
    const int R = MR == FEW && MANY_REGISTERS ? 2 : 1;
    const int64_t bytes = few_step_bytes(t) / few_step(t) * MR; // of an element of all rows
    FewRows few;
    few_pack(&few, t, MR, a, m, K);
    for (int64_t j = 0; j < n; j += group) {
        vf acc[HELD][TILE];
        for (int64_t r = 0; r < group; r += R) {
            const Rows row = rows_at(b, j + r < n ? j + r : n - 1);
            const int64_t to_next = j + r + 1 < n ? b.stride : 0; // a last row alone: twice, and the second is dropped
            for (int64_t k = 0, h = 0; k < K; k += size, h++) {
                const void *pa = few.steps + k * bytes, *pb = cols_at(row, k).data;
                int64_t len = K - k < size ? K - k : size;
                vf part[TILE];
                if (t == F32) lanes_few_f32(part, MR, R, pa, pb, to_next, len, 2 * size);
                else lanes_few_bf16(part, MR, R, pa, pb, to_next, len, 2 * size);
                UNROLL for (int i = 0; i < R * MR; i++) acc[h][r * MR + i] = part[i];
            }
        }
        for (int64_t k = 0, h = 0; k < K; k += size, h++) {
            float out[TILE];
            sum_lanes(out, acc[h], TILE);
            for (int64_t r = 0; r < group && j + r < n; r++)
                for (int64_t i = 0; i < m; i++) {
                    float *y = c + i * stride + j + r;
                    *y = h ? *y + out[r * MR + i] : out[r * MR + i];
                }
        }
    }
}
// The rows for which rows_few is compiled: 2, 4 or 8.
static int few_rows(int64_t m) { return m <= 2 ? 2 : m <= 4 ? 4 : FEW; }
ALWAYS_INLINE void rows_few_any(float *c, int64_t stride, DType t, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    switch (few_rows(m)) {
    case 2: rows_few(c, stride, t, 2, a, m, b, n, K); break;
    case 4: rows_few(c, stride, t, 4, a, m, b, n, K); break;
    default: rows_few(c, stride, t, FEW, a, m, b, n, K);
    }
}
_Static_assert(FEW_BYTES / 2 <= HELD * DOT_CHUNK, "rows_few holds the sums of all chunks of two rows");
// Whether m rows go by rows_few.
static bool are_few(DType t, int64_t m, int64_t K) {
    const int64_t steps = (K + few_step(t) - 1) / few_step(t);
    return m <= FEW && few_rows(m) * steps * few_step_bytes(t) <= FEW_BYTES;
}

Rows dot_ready(Arena *scratch, Rows a, int64_t m, int64_t K) {
    return goes_by_tiles(a) ? tile_pack(scratch, a, m, K) : a;
}

// Rows that are known to lie along K: what the tiles ask of their layout is decided by the compiler.
static inline Rows along(Rows r) { return (Rows){r.data, r.dtype, r.stride, false, NULL, 0}; }

// A function each: the compiler keeps more of a loop in registers than it would among all the others.
#define DEFINE_CHUNK(name, chunk, t)                                                                                   \
    static __attribute__((noinline)) void name(float *c, int64_t stride, bool add, Rows a, int64_t m, Rows b,          \
                                               int64_t n, int64_t len) {                                               \
        chunk(c, stride, add, t, along(a), m, along(b), n, len);                                                       \
    }
DEFINE_CHUNK(chunk_f32, chunk, F32)
DEFINE_CHUNK(chunk_bf16, chunk, BF16)
DEFINE_CHUNK(near_rows_f32, near_rows, F32)
DEFINE_CHUNK(near_rows_bf16, near_rows, BF16)

void dot_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    if (goes_by_tiles(a)) {
        tile_block(c, stride, a, m, b, n, K);
        return;
    }
    a = along(a), b = along(b);
    const int64_t size = DOT_CHUNK / (int64_t)dtype_size(a.dtype);
    if (K == 0)
        for (int64_t i = 0; i < m; i++) memset(c + i * stride, 0, (size_t)n * sizeof *c);
    if (m == 1) {
        if (a.dtype == F32) row_alone(c, F32, a, b, n, K);
        else row_alone(c, BF16, a, b, n, K);
        return;
    }
    if (are_few(a.dtype, m, K)) {
        if (a.dtype == F32) rows_few_any(c, stride, F32, a, m, b, n, K);
        else rows_few_any(c, stride, BF16, a, m, b, n, K);
        return;
    }
#if WIDEN && !MANY_REGISTERS
    for (int64_t k = 0; m > SOME && a.dtype == BF16 && k < K; k += size)
        packed_chunk(c, stride, k > 0, cols_at(a, k), m, cols_at(b, k), n, K - k < size ? K - k : size);
    if (m > SOME && a.dtype == BF16) return;
#endif
    // near_rows has room for MORE widened rows of one chunk; more of them are widened anew for every BLOCK_N rows of b.
    const bool wide = WIDEN && a.dtype == BF16 && (m > MORE || K > size);
    if (m > FEW && !wide) {
        const int64_t step = m <= MORE ? K : size;
        for (int64_t k = 0; k < K; k += step)
            for (int64_t i = 0; i < m; i += BLOCK_M)
                (a.dtype == F32 ? near_rows_f32 : near_rows_bf16)(
                    c + i * stride, stride, k > 0, cols_at(rows_at(a, i), k), m - i < BLOCK_M ? m - i : BLOCK_M,
                    cols_at(b, k), n, K - k < step ? K - k : step);
        return;
    }
    for (int64_t j = 0; j < n; j += BLOCK_N)
        for (int64_t k = 0; k < K; k += size) {
            int64_t len = K - k < size ? K - k : size, bn = n - j < BLOCK_N ? n - j : BLOCK_N;
            Rows ak = cols_at(a, k), bk = cols_at(rows_at(b, j), k);
#if WIDEN && MANY_REGISTERS
            if (a.dtype == BF16 && m > MORE && len <= WIDE_LEN) {
                wide_bf16(c + j, stride, k > 0, ak, m, bk, bn, len);
                continue;
            }
#endif
            (a.dtype == F32 ? chunk_f32 : chunk_bf16)(c + j, stride, k > 0, ak, m, bk, bn, len);
        }
}

// --- All threads ---

// How many tasks of BLOCK_M x BLOCK_N, at most, are one where each prepares its operands anew: twice as many rows where
// it widens rows of b (wide_bf16), four times as many columns where it packs rows of a (packed.c).
#define WIDER     (!WIDEN ? 1 : MANY_REGISTERS ? 2 : 4)
#define MANY_SUMS (WIDER * BLOCK_M * BLOCK_N) // the sums of a task, of many rows of a and of few
#define MORE_SUMS (MORE * 4 * BLOCK_N)

static int64_t rounded(int64_t n) { return (n + NEAR - 1) / NEAR * NEAR; }

// Columns of a task. For few rows of a they make two tasks a thread, because what comes after a task is not asked for.
static int64_t block_columns(DType t, int64_t m, int64_t n) {
    if (m > MORE && (t == F32 || !WIDEN || MANY_REGISTERS)) return BLOCK_N;
    if (m > MORE) {
        const int64_t blocks = (m + BLOCK_M - 1) / BLOCK_M, tasks = (4 * thread_limit() + blocks - 1) / blocks;
        const int64_t parts = (n + WIDER * BLOCK_N - 1) / (WIDER * BLOCK_N),
                      columns = n / (parts > tasks ? parts : tasks);
        return columns < BLOCK_N ? BLOCK_N : rounded(columns);
    }
    const int64_t least = BLOCK_N / 2, most = MORE_SUMS / (m <= FEW ? FEW : MORE);
    const int64_t share = rounded(n / (2 * thread_limit()));
    return share < least ? least : share < most ? share : most;
}

// Rows of a task.
static int64_t block_rows(DType t, int64_t m, int64_t n, int64_t K) {
    const bool wide = WIDEN && MANY_REGISTERS && t == BF16 && K <= WIDE_LEN;
    return wide && m / (2 * BLOCK_M) * (n / BLOCK_N) >= 4 * thread_limit() ? 2 * BLOCK_M : BLOCK_M;
}

// One task: c[m,n] by dot_block, by way of a block of sums where c is not f32 or is added to.
static void task(Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    float sums[MORE_SUMS > MANY_SUMS ? MORE_SUMS : MANY_SUMS];
    bool direct = c.dtype == F32 && !add;
    dot_block(direct ? (float *)c.data : sums, direct ? c.stride : n, a, m, b, n, K);
    for (int64_t i = 0; !direct && i < m; i++) row_put((void *)rows_at(c, i).data, c.dtype, add, sums + i * n, n);
}

void dot_all(Arena *scratch, Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    if (a.dtype != b.dtype) die("product of %s and %s", dtype_name(a.dtype), dtype_name(b.dtype));
    if (goes_by_tiles(a)) {
        tile_all(scratch, c, add, a, m, b, n, K);
        return;
    }
    if (a.down || b.down) {
        panel_all(c, add, a, m, b, n, K);
        return;
    }
    const int64_t columns = block_columns(a.dtype, m, n), rows = block_rows(a.dtype, m, n, K);
#pragma omp parallel for collapse(2) schedule(dynamic) if (m * n * K > DOT_SMALL)
    for (int64_t j = 0; j < n; j += columns)
        for (int64_t i = 0; i < m; i += rows) {
            int64_t bm = m - i < rows ? m - i : rows, bn = n - j < columns ? n - j : columns;
            task(cols_at(rows_at(c, i), j), add, rows_at(a, i), bm, rows_at(b, j), bn, K);
        }
}
