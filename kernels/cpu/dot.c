// Products of rows that are contiguous along K, by tiles of 16 outputs; and the way, for all threads, of every matrix
// product (dot.h has the contract).
//
// Nothing is packed, but where bf16 has to be widened or few rows of a meet all of b: a tile of 4 x 4 outputs keeps 16
// vector accumulators over K, loads 8 vectors for every 16 multiply-adds, and ends in one transposing tree that turns
// 16 vectors into 16 sums. A row more or less in a tile changes nothing for the others, so a product's rows are the
// same bits in every batch. Few rows of a (decode) are limited by reading b: for up to 8 rows of few bytes b is read
// strictly in the order of memory, for up to 32 what comes next is asked for a little with every tile, so that memory
// and arithmetic are busy at the same time.
#include "dot.h"
#include "error.h"
#include "parallel.h"
#include "tile.h"
#include "unit.h"

#define TILE       16  // outputs of a tile: 4 x 4, 2 x 8 or 1 x 16
#define TILE_ROWS  4   // rows of a in a tile, at most
#define BLOCK_M    128 // a task is BLOCK_M x BLOCK_N outputs: a chunk of BLOCK_N rows of b fits the second-level cache
#define BLOCK_N    96
#define HELD       8     // row_alone and rows_few hold the accumulators of this many chunks of K at once
#define FEW        8     // rows of a, packed, for which b is read in the order of memory
#define FEW_BYTES  32768 // and their bytes, which leave the first-level cache room for b
#define MORE       32    // rows of a for which a block of b lies in the first-level cache, MORE_N rows of one chunk
#define MORE_N     16
#define MANY       64 // rows of a for which NEAR_BYTES of b lie in the first-level cache, at least NEAR_LEAST rows
#define NEAR_BYTES 24576
#define NEAR_LEAST 12

// --- Loads, and the step that multiplies a vector of a and one of b into an accumulator, for each dtype ---

#if defined(ISA_avx512)
#define GROUP 4 // rows of b at a time: TILE_ROWS x GROUP accumulators live in registers
#else
#define GROUP 2
#endif
static inline Vec load_f32(const float *p) {
    Vec x;
    memcpy(&x, p, sizeof x);
    KEEP(x);
    return x;
}
// The first n < WIDTH elements, then zeros.
static inline Vec load_f32_part(const float *p, int64_t n) {
    Vec x = {0};
    for (int64_t i = 0; i < n; i++) x[i] = p[i];
    return x;
}
#if defined(ISA_avx512_bf16)
#define WIDTH_BF16 32
typedef Vec BfVec; // WIDTH pairs of bf16
static inline BfVec load_bf16(const uint16_t *p) {
    Vec x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline BfVec load_bf16_part(const uint16_t *p, int64_t n) {
#if defined(__AVX512BF16__)
    return (BfVec)_mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p);
#else
    Vec x = {0};
    memcpy(&x, p, (size_t)n * sizeof *p);
    return x;
#endif
}
static inline Vec step_bf16(Vec acc, BfVec a, BfVec b) { return step_pair(acc, a, b); }
typedef uint16_t RowElem; // of the rows of a that lanes_bf16 reads
static inline BfVec load_row(const RowElem *p) { return load_bf16(p); }
static inline BfVec load_row_part(const RowElem *p, int64_t n) { return load_bf16_part(p, n); }
#define WIDEN false
#else
#define WIDTH_BF16 (2 * WIDTH)
typedef struct {
    Vec even, odd; // elements, widened
} BfVec;
static inline BfVec load_bf16(const uint16_t *p) {
    VecU u;
    memcpy(&u, p, sizeof u);
    BfVec x = {(Vec)(u << 16), (Vec)(u & 0xffff0000u)};
    KEEP(x.even);
    KEEP(x.odd);
    return x;
}
static inline BfVec load_bf16_part(const uint16_t *p, int64_t n) {
    uint16_t h[WIDTH_BF16] = {0};
    for (int64_t i = 0; i < n; i++) h[i] = p[i];
    return load_bf16(h);
}
static inline Vec step_bf16(Vec acc, BfVec a, BfVec b) { return step_f32(step_f32(acc, a.even, b.even), a.odd, b.odd); }
// Widening takes as many instructions as half the multiply-adds of a tile. So rows of a are widened once (wide_rows),
// not once for every tile.
typedef float RowElem;
static inline BfVec load_row(const RowElem *p) { return (BfVec){load_f32(p), load_f32(p + WIDTH)}; }
static inline BfVec load_row_part(const RowElem *p, int64_t n) { return load_row(p); } // padded
#define WIDEN      true
#endif

// The first n elements, or as many as there is room for.
static inline BfVec load_bf16_most(const uint16_t *p, int64_t n) {
    return n < WIDTH_BF16 ? load_bf16_part(p, n) : load_bf16(p);
}

// Defines a function: acc[MR,NR] = the products of MR rows of a and NR rows of b over len elements, still spread over
// lanes; the tail is padded with zeros. Meanwhile len elements of other rows are prefetched: of the first NF <= NR of
// `next`, whose elements have `size` bytes, into the second-level cache, of the first NA <= NR of `near` into the
// first.
#define DEFINE_LANES(name, ElemA, Elem, Loaded, STEP, load_a, load_a_part, load, load_part, step)                      \
    ALWAYS_INLINE void name(Vec *acc, int MR, int NR, const ElemA *const *a, const Elem *const *b, int64_t len,        \
                            const int NF, const void *const *next, int64_t size, const int NA,                         \
                            const Elem *const *near) {                                                                 \
        UNROLL for (int i = 0; i < MR * NR; i++) acc[i] = (Vec){0};                                                    \
        int64_t k = 0;                                                                                                 \
        for (; k + STEP <= len; k += STEP) {                                                                           \
            Loaded x[TILE_ROWS];                                                                                       \
            UNROLL for (int i = 0; i < MR; i++) x[i] = load_a(a[i] + k);                                               \
            UNROLL for (int j = 0; j < NR; j++) {                                                                      \
                Loaded y = load(b[j] + k);                                                                             \
                if (j < NF) __builtin_prefetch((const char *)next[j] + k * size, 0, 2);                                \
                if (j < NA) __builtin_prefetch(near[j] + k, 0, 3);                                                     \
                UNROLL for (int i = 0; i < MR; i++) acc[i * NR + j] = step(acc[i * NR + j], x[i], y);                  \
            }                                                                                                          \
        }                                                                                                              \
        if (k < len) {                                                                                                 \
            Loaded x[TILE_ROWS];                                                                                       \
            UNROLL for (int i = 0; i < MR; i++) x[i] = load_a_part(a[i] + k, len - k);                                 \
            UNROLL for (int j = 0; j < NR; j++) {                                                                      \
                Loaded y = load_part(b[j] + k, len - k);                                                               \
                UNROLL for (int i = 0; i < MR; i++) acc[i * NR + j] = step(acc[i * NR + j], x[i], y);                  \
            }                                                                                                          \
        }                                                                                                              \
    }
DEFINE_LANES(lanes_f32, float, float, Vec, WIDTH, load_f32, load_f32_part, load_f32, load_f32_part, step_f32)
DEFINE_LANES(lanes_bf16, RowElem, uint16_t, BfVec, WIDTH_BF16, load_row, load_row_part, load_bf16, load_bf16_part,
             step_bf16)

ALWAYS_INLINE void lanes(Vec *acc, DType t, int MR, int NR, const void *const *a, const void *const *b, int64_t len,
                         const int NF, const void *const *next, int64_t size, const int NA, const void *const *near) {
    if (t == F32)
        lanes_f32(acc, MR, NR, (const float *const *)a, (const float *const *)b, len, NF, next, size, NA,
                  (const float *const *)near);
    else
        lanes_bf16(acc, MR, NR, (const RowElem *const *)a, (const uint16_t *const *)b, len, NF, next, size, NA,
                   (const uint16_t *const *)near);
}

// Rows of a as `lanes` reads them: m rows of len elements, widened in `to`, rows of `stride` floats, where the
// instruction set has none for pairs of bf16, and else as they are. Of each step of a vector the even elements come
// first: in this order multiply-adds of f32 make the sums of lanes_bf16.
#define WIDE_STRIDE (DOT_CHUNK / 2 + 16) // floats of a chunk; rows do not begin in one set of the first-level cache
#if WIDEN
static Rows wide_rows(float *to, int64_t stride, DType t, Rows a, int64_t m, int64_t len) {
    if (t == F32) return a;
    for (int64_t i = 0; i < m; i++) {
        const uint16_t *row = rows_at(a, i).data;
        for (int64_t k = 0; k < len; k += WIDTH_BF16) {
            BfVec x = load_bf16_most(row + k, len - k);
            memcpy(to + i * stride + k, &x, sizeof x);
        }
    }
    return (Rows){to, F32, stride, false, NULL, 0};
}
#else
static inline Rows wide_rows(float *to, int64_t stride, DType t, Rows a, int64_t m, int64_t len) { return a; }
#endif
// Floats that the copy of so many rows takes.
#define WIDE_FLOATS(rows) (WIDEN ? (rows)*WIDE_STRIDE : 1)
// Rows of b are widened too where they are no longer than this: of longer ones there would be no room for a tile's in
// the first-level cache.
#define WIDE_LEN   (DOT_CHUNK / 4)
#define WIDE_WIDTH (WIDE_LEN + 16) // floats from one such row to the next

// --- Sixteen sums over lanes at once ---

// sum_lanes: out[j] = the sum of v[j]'s lanes for 16 vectors, by a tree (halves, quarters, ...).
#if WIDTH == 16
// A fold adds the upper to the lower half of the lanes that are left of a, and of b, and puts both results in one
// vector.
#define PICK(...) __builtin_shufflevector(a, b, __VA_ARGS__)
static inline Vec fold8(Vec a, Vec b) {
    return PICK(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           PICK(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
static inline Vec fold4(Vec a, Vec b) {
    return PICK(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           PICK(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
static inline Vec fold2(Vec a, Vec b) {
    return PICK(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           PICK(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
static inline Vec fold1(Vec a, Vec b) {
    return PICK(0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
           PICK(1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
}
ALWAYS_INLINE void sum_lanes(float *out, const Vec *v) {
    Vec t[4];
    UNROLL for (int r = 0; r < 4; r++) t[r] = fold4(fold8(v[r], v[4 + r]), fold8(v[8 + r], v[12 + r]));
    Vec sum = fold1(fold2(t[0], t[1]), fold2(t[2], t[3]));
    memcpy(out, &sum, sizeof sum);
}
#else
ALWAYS_INLINE void sum_lanes(float *out, const Vec *v) {
    for (int j = 0; j < TILE; j++) {
        float s[WIDTH];
        memcpy(s, &v[j], sizeof s);
        for (int n = WIDTH / 2; n > 0; n /= 2)
            for (int i = 0; i < n; i++) s[i] += s[i + n];
        out[j] = s[0];
    }
}
#endif

// --- Tiles ---

// c[m,n] = (or +=, with `add`) one chunk of MR rows of a times 16 / MR rows of b. Rows past the end repeat the last one
// and are not stored; `whole`: there are none. Of each GROUP rows from `next` on, the first NF are prefetched, and with
// the first group NA rows from `near` on, into the first-level cache.
ALWAYS_INLINE void tile(float *c, int64_t stride, bool add, DType t, int MR, Rows a, int64_t m, Rows b, int64_t n,
                        int64_t len, const bool whole, const int NF, Rows next, const int NA, Rows near) {
    const int NR = TILE / MR;
    Vec acc[TILE];
    const void *pa[TILE_ROWS], *pb[GROUP], *pn[GROUP] = {0}, *pr[GROUP] = {0};
    UNROLL for (int j = 0; j < NA; j++) pr[j] = rows_at(near, j).data;
    UNROLL for (int i = 0; i < MR; i++) pa[i] = rows_at(a, whole || i < m ? i : m - 1).data;
    UNROLL for (int g = 0; g < NR; g += GROUP) {
        UNROLL for (int j = 0; j < GROUP; j++) pb[j] = rows_at(b, whole || g + j < n ? g + j : n - 1).data;
        UNROLL for (int j = 0; j < NF; j++) pn[j] = rows_at(next, g + j).data;
        Vec partial[TILE_ROWS * GROUP];
        const int64_t size = (int64_t)dtype_size(next.dtype);
        if (g == 0) lanes(partial, t, MR, GROUP, pa, pb, len, NF, pn, size, NA, pr);
        else lanes(partial, t, MR, GROUP, pa, pb, len, NF, pn, size, 0, NULL);
        UNROLL for (int i = 0; i < MR; i++) UNROLL for (int j = 0; j < GROUP; j++) acc[i * NR + g + j] =
            partial[i * GROUP + j];
    }
    float out[TILE];
    sum_lanes(out, acc);
    if (whole) m = MR, n = NR;
    for (int64_t i = 0; i < m && i < MR; i++, c += stride)
        for (int64_t j = 0; j < n && j < NR; j++) c[j] = add ? c[j] + out[i * NR + j] : out[i * NR + j];
}

// c[m,n] = (or +=, with `add`) one chunk of K, by tiles of MR rows of a. Row j's tile prefetches as tile does from row
// j of `next` on; the tiles in turn take NA of the TILE_ROWS rows of `near`.
ALWAYS_INLINE void strip(float *c, int64_t stride, bool add, DType t, int MR, Rows a, int64_t m, Rows b, int64_t n,
                         int64_t len, const int NF, Rows next, const int NA, Rows near) {
    const int64_t NR = TILE / MR;
    int64_t j = 0, r = 0;
    for (; m >= MR && j + NR <= n; j += NR, r = (r + NA) % TILE_ROWS)
        tile(c + j, stride, add, t, MR, a, MR, rows_at(b, j), NR, len, true, NF, rows_at(next, j), NA,
             rows_at(near, r));
    for (; j < n; j += NR)
        tile(c + j, stride, add, t, MR, a, m, rows_at(b, j), n - j, len, false, NF, rows_at(next, j), 0, near);
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
        if (left <= 2) strip(y, stride, add, t, 2, ai, left, b, n, len, GROUP, after, 0, ai);
        else if (i == 0) strip(y, stride, add, t, TILE_ROWS, ai, left, b, n, len, GROUP, after, 0, ai);
        else strip(y, stride, add, t, TILE_ROWS, ai, left, b, n, len, 0, after, 0, ai);
    }
}

#if WIDEN
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
            strip(y + j, stride, add, F32, TILE_ROWS, ai, left, bj, bn, padded, GROUP, rows_at(b, j + NR), 0, ai);
        }
        if (i > 0) strip(y, stride, add, F32, TILE_ROWS, ai, left, bw, n, padded, 0, bw, 0, ai);
    }
}
#endif

// The same for many rows of a: rows of b that fill half of the first-level cache stay there while strips of a
// come from the second, of which each asks for the next. The first GROUP strips ask for the next rows of b.
ALWAYS_INLINE void chunk_many(float *c, int64_t stride, bool add, DType t, Rows a, int64_t m, Rows b, int64_t n,
                              int64_t len) {
    const int64_t bytes = len * (int64_t)dtype_size(t), fit = NEAR_BYTES / bytes / TILE_ROWS * TILE_ROWS;
    for (int64_t j = 0; j < n; j += fit) {
        const int64_t bn = n - j < fit ? n - j : fit;
        Rows bj = rows_at(b, j), later = rows_at(b, j + fit);
        for (int64_t i = 0; i < m; i += TILE_ROWS) {
            const int64_t left = m - i, s = i / TILE_ROWS;
            float *y = c + i * stride + j;
            Rows ai = rows_at(a, i), near = rows_at(a, left >= 2 * TILE_ROWS ? i + TILE_ROWS : 0);
            if (s < GROUP) strip(y, stride, add, t, TILE_ROWS, ai, left, bj, bn, len, 1, rows_at(later, s), 1, near);
            else strip(y, stride, add, t, TILE_ROWS, ai, left, bj, bn, len, 0, later, 1, near);
        }
    }
}

// c[m,n] = one chunk of K for FEW < m <= MORE, MORE_N rows of b after the other. The next of them are prefetched by all
// strips of rows of a together: of every four rows the strips ask for one each, the first of three for two.
ALWAYS_INLINE void chunk_more(float *c, int64_t stride, DType t, Rows a, int64_t m, Rows b, int64_t n, int64_t len) {
    const int64_t strips = (m + TILE_ROWS - 1) / TILE_ROWS;
    _Alignas(64) float wide[WIDE_FLOATS(MORE)];
    a = wide_rows(wide, WIDE_STRIDE, t, a, m, len);
    for (int64_t j = 0; j < n; j += MORE_N) {
        const int64_t bn = n - j < MORE_N ? n - j : MORE_N;
        const bool last = j + 2 * MORE_N > n; // no whole block follows
        Rows bj = rows_at(b, j), next = rows_at(b, last ? j : j + MORE_N);
        for (int64_t s = 0; s < strips; s++) {
            float *y = c + s * TILE_ROWS * stride + j;
            Rows as = rows_at(a, s * TILE_ROWS);
            int64_t left = m - s * TILE_ROWS, first = strips == 3 && s ? s + 1 : s;
            if (last || s >= GROUP) strip(y, stride, false, t, TILE_ROWS, as, left, bj, bn, len, 0, next, 0, as);
            else if (strips == 3 && !s) strip(y, stride, false, t, TILE_ROWS, as, left, bj, bn, len, 2, next, 0, as);
            else strip(y, stride, false, t, TILE_ROWS, as, left, bj, bn, len, 1, rows_at(next, first), 0, as);
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
            Vec acc[HELD][TILE];
            int chunks = 0;
            for (int r = 0; r < TILE; r++) {
                Rows row = rows_at(b, j + r < n ? j + r : n - 1);
                chunks = 0;
                for (int64_t k = k0; k < K && chunks < HELD; k += size, chunks++) {
                    const void *pb = cols_at(row, k).data, *next = cols_at(row, k + size).data;
                    lanes(&acc[chunks][r], t, 1, 1, pa + chunks, &pb, K - k < size ? K - k : size, 1, &next,
                          (int64_t)dtype_size(t), 0, NULL);
                }
            }
            for (int h = 0; h < chunks; h++) {
                float out[TILE];
                sum_lanes(out, acc[h]);
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
static int64_t few_step(DType t) { return t == F32 ? WIDTH : WIDTH_BF16; } // elements
static int64_t few_step_bytes(DType t) { return t == F32 || !WIDEN ? (int64_t)sizeof(Vec) : (int64_t)sizeof(BfVec); }

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

// acc[MR] = the products of MR packed rows of a, from `a` on, and one row of b, as lanes makes them.
#define DEFINE_LANES_FEW(name, ElemA, Elem, Loaded, STEP, load_a, load, load_part, step)                               \
    ALWAYS_INLINE void name(Vec *acc, int MR, const ElemA *a, const Elem *b, int64_t len, int64_t ahead) {             \
        UNROLL for (int i = 0; i < MR; i++) acc[i] = (Vec){0};                                                         \
        for (int64_t k = 0; k < len; k += STEP, a += MR * STEP) {                                                      \
            Loaded y = k + STEP <= len ? load(b + k) : load_part(b + k, len - k);                                      \
            __builtin_prefetch(b + k + ahead, 0, 2);                                                                   \
            UNROLL for (int i = 0; i < MR; i++) acc[i] = step(acc[i], load_a(a + i * STEP), y);                        \
        }                                                                                                              \
    }
DEFINE_LANES_FEW(lanes_few_f32, float, float, Vec, WIDTH, load_f32, load_f32, load_f32_part, step_f32)
DEFINE_LANES_FEW(lanes_few_bf16, RowElem, uint16_t, BfVec, WIDTH_BF16, load_row, load_bf16, load_bf16_part, step_bf16)

// c[m,n] = a[m,K] b[n,K]^T for m <= MR <= FEW rows, whose packed bytes fit FEW_BYTES: b as row_alone reads it.
ALWAYS_INLINE void rows_few(float *c, int64_t stride, DType t, const int MR, Rows a, int64_t m, Rows b, int64_t n,
                            int64_t K) {
    const int64_t size = DOT_CHUNK / (int64_t)dtype_size(t), group = TILE / MR;
    const int64_t bytes = few_step_bytes(t) / few_step(t) * MR; // of an element of all rows
    FewRows few;
    few_pack(&few, t, MR, a, m, K);
    for (int64_t j = 0; j < n; j += group) {
        Vec acc[HELD][TILE];
        for (int64_t r = 0; r < group; r++) {
            Rows row = rows_at(b, j + r < n ? j + r : n - 1);
            for (int64_t k = 0, h = 0; k < K; k += size, h++) {
                const void *pa = few.steps + k * bytes, *pb = cols_at(row, k).data;
                int64_t len = K - k < size ? K - k : size;
                Vec part[FEW];
                if (t == F32) lanes_few_f32(part, MR, pa, pb, len, size);
                else lanes_few_bf16(part, MR, pa, pb, len, size);
                UNROLL for (int i = 0; i < MR; i++) acc[h][r * MR + i] = part[i];
            }
        }
        for (int64_t k = 0, h = 0; k < K; k += size, h++) {
            float out[TILE];
            sum_lanes(out, acc[h]);
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
// Whether m rows go by rows_few.
static bool are_few(DType t, int64_t m, int64_t K) {
    const int64_t bytes = K * (int64_t)dtype_size(t), steps = (K + few_step(t) - 1) / few_step(t);
    return m <= FEW && few_rows(m) * steps * few_step_bytes(t) <= FEW_BYTES && bytes <= HELD * DOT_CHUNK;
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
DEFINE_CHUNK(many_f32, chunk_many, F32)
static __attribute__((noinline)) void more_f32(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n,
                                               int64_t K) {
    chunk_more(c, stride, F32, along(a), m, along(b), n, K);
}
static __attribute__((noinline)) void more_bf16(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n,
                                                int64_t K) {
    chunk_more(c, stride, BF16, along(a), m, along(b), n, K);
}
#if WIDEN
#define many_bf16 chunk_bf16 // for few rows of b at a time, rows of a would be widened too often
#else
DEFINE_CHUNK(many_bf16, chunk_many, BF16)
#endif

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
    if (m > FEW && m <= MORE && K <= size) {
        (a.dtype == F32 ? more_f32 : more_bf16)(c, stride, a, m, b, n, K);
        return;
    }
    for (int64_t j = 0; j < n; j += BLOCK_N)
        for (int64_t k = 0; k < K; k += size) {
            int64_t len = K - k < size ? K - k : size, bn = n - j < BLOCK_N ? n - j : BLOCK_N;
            Rows ak = cols_at(a, k), bk = cols_at(rows_at(b, j), k);
#if WIDEN
            if (a.dtype == BF16 && m > MORE && len <= WIDE_LEN) {
                wide_bf16(c + j, stride, k > 0, ak, m, bk, bn, len);
                continue;
            }
#endif
            const bool many = m >= MANY && len * (int64_t)dtype_size(a.dtype) <= NEAR_BYTES / NEAR_LEAST;
            if (a.dtype == F32) (many ? many_f32 : chunk_f32)(c + j, stride, k > 0, ak, m, bk, bn, len);
            else (many ? many_bf16 : chunk_bf16)(c + j, stride, k > 0, ak, m, bk, bn, len);
        }
}

// --- All threads ---

// Columns of a task of `block`: more for chunk_more, which cannot ask for what comes after a task.
static int64_t block_columns(DType t, int64_t m, int64_t n, int64_t K) {
    bool more = m > FEW && m <= MORE && K * (int64_t)dtype_size(t) <= DOT_CHUNK;
    return more && n >= 16 * BLOCK_N * thread_limit() ? 4 * BLOCK_N : BLOCK_N;
}

// Rows of a task: twice as many where each widens its rows of b anew.
static int64_t block_rows(DType t, int64_t m, int64_t n, int64_t K) {
    const bool wide = WIDEN && t == BF16 && K <= WIDE_LEN;
    return wide && m / (2 * BLOCK_M) * (n / BLOCK_N) >= 4 * thread_limit() ? 2 * BLOCK_M : BLOCK_M;
}

// One task: c[m,n] by dot_block, by way of a block of sums where c is not f32 or is added to.
#define BLOCK_SUMS ((WIDEN ? 2 : 1) * BLOCK_M * BLOCK_N)
static void block(Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    float sums[MORE * 4 * BLOCK_N > BLOCK_SUMS ? MORE * 4 * BLOCK_N : BLOCK_SUMS];
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
    const int64_t columns = block_columns(a.dtype, m, n, K), rows = block_rows(a.dtype, m, n, K);
#pragma omp parallel for collapse(2) schedule(dynamic) if (m * n * K > DOT_SMALL)
    for (int64_t j = 0; j < n; j += columns)
        for (int64_t i = 0; i < m; i += rows) {
            int64_t bm = m - i < rows ? m - i : rows, bn = n - j < columns ? n - j : columns;
            block(cols_at(rows_at(c, i), j), add, rows_at(a, i), bm, rows_at(b, j), bn, K);
        }
}
